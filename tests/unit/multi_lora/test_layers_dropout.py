import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multi_lora_builders import (
    difference,
    make_engine,
    make_spec,
    rows_keep_their_bits,
    same_bits,
    small_base,
    train_steps,
)

from orchestrator.multi_lora.layers import DropoutKeys, row_key

CPU = torch.device("cpu")
EXACT = pytest.mark.skipif(
    not rows_keep_their_bits(torch.float32) or not rows_keep_their_bits(torch.bfloat16),
    reason="products depend on the number of rows here",
)


def multiplier(
    rates: list[float], keys: list[int], *, length: int = 64, layer: int = 0, channels: int = 256
) -> torch.Tensor:
    return DropoutKeys(rates, keys, length, CPU).multiplier(layer, channels, slice(0, len(rates)), torch.float64)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_the_expectation_is_kept(rate: float) -> None:
    drawn = multiplier([rate] * 8, [row_key(3, 1, rank) for rank in range(8)])
    assert torch.equal(drawn.unique(), torch.tensor([0.0, 1 / (1 - rate)] if rate else [1.0], dtype=torch.float64))
    number, dropped = drawn.numel(), (drawn == 0).double()
    deviation = (rate * (1 - rate) / number) ** 0.5
    assert abs(dropped.mean() - rate) <= 4.5 * deviation
    assert abs(drawn.mean() - 1) <= 4.5 * deviation / (1 - rate)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_no_row_token_or_channel_is_favoured(dim: int) -> None:
    drawn = multiplier([0.25] * 32, [row_key(5, 2, rank) for rank in range(32)], length=32, channels=64)
    shares = (drawn == 0).double().mean(dim=[other for other in range(3) if other != dim])
    deviation = (0.25 * 0.75 / (drawn.numel() / len(shares))) ** 0.5
    assert (shares - 0.25).abs().max() < 4.5 * deviation


def test_steps_places_layers_tokens_and_channels_are_drawn_apart() -> None:
    keys = [row_key(0, 0, 0), row_key(0, 0, 1), row_key(0, 1, 0), row_key(1, 0, 0), row_key(1, 1, 1)]
    dropped = [multiplier([0.5] * 5, keys, layer=layer, length=40, channels=200) == 0 for layer in (0, 1, 7)]
    apart = [mask[row].flatten().double() for mask in dropped for row in range(5)]
    shifted = [mask[0].roll(1, dims=dim).flatten().double() for mask in dropped for dim in (0, 1)]
    correlations = torch.corrcoef(torch.stack(apart + shifted)).fill_diagonal_(0.0)
    assert correlations.abs().max() < 4.5 / 8000**0.5


@given(
    st.lists(st.tuples(st.floats(0, 0.95), st.integers(0, 2**32 - 1)), min_size=1, max_size=5),
    st.integers(1, 30),
    st.integers(1, 20),
    st.integers(0, 500),
)
def test_a_row_is_drawn_alike_at_every_place_and_under_every_padding(
    rows: list[tuple[float, int]], length: int, padding: int, layer: int
) -> None:
    rates, keys = [rate for rate, _ in rows], [key for _, key in rows]
    together = DropoutKeys(rates, keys, length + padding, CPU).multiplier(layer, 9, slice(0, len(rows)), torch.float32)
    for place, (rate, key) in enumerate(rows):
        alone = DropoutKeys([rate], [key], length, CPU).multiplier(layer, 9, slice(0, 1), torch.float32)
        assert torch.equal(together[place, :length], alone[0])


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000), st.integers(0, 500))
def test_keys_are_a_function_of_seed_step_and_place(seed: int, step: int, rank: int) -> None:
    assert 0 <= row_key(seed, step, rank) < 2**32
    assert row_key(seed, step, rank) == row_key(seed, step, rank)
    assert row_key(seed, step, rank) != row_key(seed, step + 1, rank)


def test_keys_of_a_run_hardly_ever_meet() -> None:
    keys = {row_key(seed, step, rank) for seed in range(4) for step in range(200) for rank in range(16)}
    assert len(keys) >= 4 * 200 * 16 - 2


@pytest.mark.parametrize("rate", [0.999999, 1 - 2**-40])
def test_a_rate_next_to_one_leaves_finite_numbers(rate: float) -> None:
    assert multiplier([rate], [1]).isfinite().all()


@EXACT
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_is_the_same_in_whatever_company(dtype: torch.dtype) -> None:
    spec = make_spec(8, dropout=0.3)
    company = {
        "alone": {"mine": spec},
        "first": {"mine": spec, "n": make_spec(4, dropout=0.1)},
        "last": {"p": make_spec(2), "n": make_spec(8, dropout=0.6), "mine": spec},
        "other stack": {"n": make_spec(40, dropout=0.5), "mine": spec, "p": make_spec(3)},
    }
    states = {}
    for name, specs in company.items():
        engine = make_engine(small_base(dtype=dtype), specs, micro_batch_size=3)
        train_steps(engine, 3)
        states[name] = engine.export("mine")
    for state in states.values():
        assert same_bits(state, states["alone"])


@settings(max_examples=5)
@given(st.integers(1, 4))
def test_dropout_does_not_depend_on_the_passes(micro_batch_size: int) -> None:
    base = small_base("gpt_neox", dtype=torch.float64)
    whole, split = (
        make_engine(base, {"a": make_spec(4, dropout=0.4)}, micro_batch_size=rows) for rows in (4, micro_batch_size)
    )
    for engine in (whole, split):
        train_steps(engine, 3)
    assert difference(whole.export("a").adapter, split.export("a").adapter) < 1e-10


def test_dropout_acts_in_training_and_never_in_evaluation() -> None:
    base = small_base()
    engine = make_engine(base, {"with": make_spec(8, dropout=0.5), "without": make_spec(8)})
    first = engine.train_step()
    assert first["with"].loss == first["without"].loss  # B is still zero
    assert first["with"].grad_norm != first["without"].grad_norm
    before = engine.eval_loss(["with"])["with"]
    assert engine.eval_loss(["with"])["with"] == before
    fresh = make_engine(base, {})
    fresh.admit("with", make_spec(8), engine.export("with"))
    assert fresh.eval_loss(["with"])["with"] == pytest.approx(before, rel=1e-6)
