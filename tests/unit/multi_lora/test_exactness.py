"""A slot trains what the plain reference trains alone, and neither place nor company changes it."""

import copy
from dataclasses import replace

import pytest
import torch
from multi_lora_builders import (
    TRAIN,
    difference,
    flat,
    in_full_precision,
    make_engine,
    make_spec,
    relative_differences,
    rows_keep_their_bits,
    same_bits,
    small_base,
    train_steps,
)
from multi_lora_reference import TrainedAlone, train_alone
from multi_lora_runs import random_rows
from transformers import PreTrainedModel

from orchestrator.multi_lora.batch import IGNORED, TokenRows
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.slots import SlotSpec, SlotState, initial_state, schedule_factor

MIXED = {
    "rank 1": make_spec(1, schedule="linear", learning_rate=1e-2, seed=1),
    "rsLoRA, decay": make_spec(4, schedule="constant_with_warmup", use_rslora=True, weight_decay=0.1, seed=2),
    "clipped, dropout": make_spec(8, max_grad_norm=1e-2, dropout=0.3, seed=3),
    "never clipped": make_spec(16, max_grad_norm=1e3, weight_decay=0.01, warmup_steps=0, seed=4),
    "rank 64": make_spec(64, schedule="linear", use_rslora=True, learning_rate=2e-3, dropout=0.1, seed=5),
}
"""Every setting somewhere, ranks in two stacks, and a batch of its own for each slot in every step."""
BATCH, STEPS = 5, 6

bits_hold = pytest.mark.skipif(
    not rows_keep_their_bits(torch.float32) or not rows_keep_their_bits(torch.bfloat16),
    reason="the products of this machine depend on the number of rows",
)


SLOW = pytest.mark.slow
"""Kinds that differ from Qwen3 in little that a slot can see."""
KINDS = [
    "qwen3",
    *(pytest.param(kind, marks=SLOW) for kind in ("llama", "gemma3_text", "mistral")),
    "gpt_neox",
    "bloom",
]


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize(
    "kind", ["qwen3", pytest.param("llama", marks=SLOW), pytest.param("mistral", marks=SLOW), "gpt_neox"]
)
def test_in_float64_a_slot_is_the_reference(kind: str, gradient_checkpointing: bool) -> None:
    """Losses, gradients, adapter and moments; measured: 1e-13 where 1e-9 is asked."""
    model = in_full_precision(small_base(kind, dtype=torch.float64))
    engine = make_engine(
        model, MIXED, batch_size=BATCH, micro_batch_size=3, gradient_checkpointing=gradient_checkpointing
    )
    results = train_steps(engine, STEPS)
    for name, spec in MIXED.items():
        alone = train_alone(model, TRAIN, spec, batch_size=BATCH, steps=STEPS)
        state = engine.export(name)
        assert relative_differences([result.loss for result in results[name]], alone.losses) < 1e-9
        assert relative_differences([result.grad_norm for result in results[name]], alone.grad_norms) < 1e-9
        assert difference(engine.gradient(name), alone.gradient) < 1e-9
        assert state.step == alone.state.step
        assert difference(state.adapter, alone.state.adapter) < 1e-9
        assert difference(state.exp_avg, alone.state.exp_avg) < 1e-9
        assert difference(state.exp_avg_sq, alone.state.exp_avg_sq) < 1e-9


def test_in_float64_slots_on_the_toy_base_are_the_reference(tiny_base: PreTrainedModel) -> None:
    model = in_full_precision(copy.deepcopy(tiny_base).double())
    specs = {name: MIXED[name] for name in ("rsLoRA, decay", "clipped, dropout")}
    engine = make_engine(model, specs, batch_size=3, micro_batch_size=2)
    results = train_steps(engine, 3)
    for name, spec in specs.items():
        alone = train_alone(model, TRAIN, spec, batch_size=3, steps=3)
        assert relative_differences([result.loss for result in results[name]], alone.losses) < 1e-9
        assert difference(engine.export(name).adapter, alone.state.adapter) < 1e-9


def travelled(spec: SlotSpec, alone: TrainedAlone, engine: MultiLoraEngine) -> torch.Tensor:
    """How far each weight of an adapter has moved from its start."""
    return flat(alone.state.adapter) - flat(initial_state(spec, engine.targets).adapter)


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_a_slot_is_as_near_to_float64_as_the_reference_is(kind: str) -> None:
    """The same training in float64 says what is right; the engine may round no worse than PEFT does in float32.

    AdamW divides a gradient by its own size plus 1e-8. Where a gradient is hardly larger than its rounding error, the
    weight moves by a full learning rate in a direction that rounding decides, on each processor in its own way. With
    mistral PEFT itself ends 1.9e-3 of the way travelled from float64, and a single weight 0.1 of the longest way it
    can go; elsewhere both are below 1e-4 and 4e-3. So the bounds are twice PEFT's own distance plus a fixed amount:
    1e-6 for losses, 1e-4 of the way travelled for all weights together, and 1e-2 of the longest way for the worst one.
    """
    model = small_base(kind)
    precise = in_full_precision(copy.deepcopy(model).double())
    engine = make_engine(model, MIXED, batch_size=BATCH, micro_batch_size=3)
    results = train_steps(engine, STEPS)
    for name, spec in MIXED.items():
        alone, exact = (train_alone(base, TRAIN, spec, batch_size=BATCH, steps=STEPS) for base in (model, precise))
        losses = [result.loss for result in results[name]]
        assert relative_differences(losses, exact.losses) < 1e-6 + 2 * relative_differences(alone.losses, exact.losses)
        assert relative_differences([result.grad_norm for result in results[name]], alone.grad_norms) < 1e-5
        right = flat(exact.state.adapter)
        wrong, reference_wrong = flat(engine.export(name).adapter) - right, flat(alone.state.adapter) - right
        assert wrong.norm() < 1e-4 * travelled(spec, exact, engine).norm() + 2 * reference_wrong.norm()
        longest_way = sum(spec.learning_rate * schedule_factor(spec, step) for step in range(STEPS))
        assert wrong.abs().max() < 1e-2 * longest_way + 2 * reference_wrong.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_a_gradient_is_the_references_within_1e_6(kind: str) -> None:
    """Of the first step, which no rounding of a step before has touched; relative to the gradient's largest number."""
    model = small_base(kind)
    engine = make_engine(model, MIXED, batch_size=BATCH, micro_batch_size=3)
    engine.train_step()
    for name, spec in MIXED.items():
        alone = train_alone(model, TRAIN, spec, batch_size=BATCH, steps=1)
        assert difference(engine.gradient(name), alone.gradient) < 1e-6 * flat(alone.gradient).abs().max()


def test_in_float32_slots_on_the_toy_base_are_the_reference_but_for_rounding(tiny_base: PreTrainedModel) -> None:
    specs = {"a": make_spec(8, learning_rate=2e-4), "b": make_spec(32, learning_rate=1e-3, seed=8)}
    engine = make_engine(tiny_base, specs, batch_size=3, micro_batch_size=2)
    results = train_steps(engine, 4)
    for name, spec in specs.items():
        alone = train_alone(tiny_base, TRAIN, spec, batch_size=3, steps=4)
        assert relative_differences([result.loss for result in results[name]], alone.losses) < 1e-6
        wrong = flat(engine.export(name).adapter) - flat(alone.state.adapter)
        assert wrong.norm() < 1e-3 * travelled(spec, alone, engine).norm()


def test_in_bfloat16_a_slot_is_near_the_reference() -> None:
    """PEFT keeps the adapter's products in float32 there, and the engine has them in bfloat16."""
    model = small_base("llama", dtype=torch.bfloat16)
    engine = make_engine(model, MIXED, batch_size=BATCH, micro_batch_size=3)
    results = train_steps(engine, STEPS)
    for name, spec in MIXED.items():
        alone = train_alone(model, TRAIN, spec, batch_size=BATCH, steps=STEPS)
        assert relative_differences([result.loss for result in results[name]], alone.losses) < 3e-3


def test_the_reference_leaves_the_base_as_it_was() -> None:
    model = small_base("llama")
    modules = dict(model.named_modules())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_alone(model, TRAIN, make_spec(4, dropout=0.1), batch_size=2, steps=2)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


# What follows compares a slot in company with the same slot alone in the same engine. Slots of one seed see the same
# batches while they are at the same step, so that padding is the same, and every bit is.

COMPANY = [make_spec(rank, learning_rate=1e-3 * (1 + place), weight_decay=0.1 * (place % 2), dropout=0.2 * (place % 3))
           for place, rank in enumerate((4, 16, 1, 64, 8, 24, 16, 2))]  # fmt: skip
DTYPES = [torch.float32, torch.bfloat16]


def mine(rank: int) -> SlotSpec:
    return make_spec(rank, max_grad_norm=0.5)


def company_of(number: int, place: int, spec: SlotSpec) -> dict[str, SlotSpec]:
    """So many slots, of which mine is admitted as the one at `place`."""
    specs = [(f"n{index}", other) for index, other in enumerate(COMPANY[: number - 1])]
    specs.insert(place, ("mine", spec))
    return dict(specs)


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 16, 64])
@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text"])
def test_no_bit_depends_on_the_number_of_slots_or_the_place_among_them(
    kind: str, rank: int, dtype: torch.dtype
) -> None:
    model = small_base(kind, dtype=dtype)
    alone = make_engine(model, {"mine": mine(rank)}, micro_batch_size=3)
    wanted = train_steps(alone, 4)["mine"]
    for number, place in ((2, 0), (2, 1), (4, 2), (8, 0), (8, 3), (8, 7)):
        engine = make_engine(model, company_of(number, place, mine(rank)), micro_batch_size=3)
        assert train_steps(engine, 4)["mine"] == wanted
        assert same_bits(engine.export("mine"), alone.export("mine"))
        assert engine.eval_loss(engine.slots)["mine"] == alone.eval_loss(["mine"])["mine"]
        assert engine.eval_loss(["mine"]) == alone.eval_loss(["mine"])


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_bit_depends_on_company_in_long_rows(dtype: torch.dtype) -> None:
    """Longer than a block of the attention that bfloat16 has on processors."""
    rows = random_rows(6, seed=5, longest=220)
    model = small_base(dtype=dtype)
    alone, engine = (
        make_engine(model, specs, batch_size=3, micro_batch_size=2, train=rows)
        for specs in ({"mine": mine(8)}, company_of(4, 2, mine(8)))
    )
    assert max(rows.lengths) > 128
    assert train_steps(engine, 3)["mine"] == train_steps(alone, 3)["mine"]
    assert same_bits(engine.export("mine"), alone.export("mine"))


@bits_hold
def test_no_bit_depends_on_company_on_the_toy_base(tiny_base: PreTrainedModel) -> None:
    alone = make_engine(tiny_base, {"mine": mine(8)}, batch_size=2)
    engine = make_engine(tiny_base, company_of(4, 2, mine(8)), batch_size=2)
    assert train_steps(engine, 3)["mine"] == train_steps(alone, 3)["mine"]
    assert same_bits(engine.export("mine"), alone.export("mine"))


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_no_bit_depends_on_neighbours_that_join_and_leave(dtype: torch.dtype, gradient_checkpointing: bool) -> None:
    """A neighbour that joins with the same seed goes on from the same step, as after a restart."""
    model = small_base(dtype=dtype)
    alone = make_engine(model, {"mine": mine(8)}, gradient_checkpointing=gradient_checkpointing)
    engine = make_engine(model, company_of(4, 1, mine(8)), gradient_checkpointing=gradient_checkpointing)
    got = train_steps(engine, 2)["mine"]
    left = engine.evict("n0")
    engine.evict("n2")
    got += train_steps(engine, 1)["mine"]
    engine.admit("new", make_spec(3), replace(initial_state(make_spec(3), engine.targets), step=3))
    got += train_steps(engine, 1)["mine"]
    engine.evict("n1")
    engine.admit("n0", COMPANY[0], replace(left, step=4))
    got += train_steps(engine, 2)["mine"]
    assert got == train_steps(alone, 6)["mine"]
    assert same_bits(engine.export("mine"), alone.export("mine"))


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [8, 40])
@pytest.mark.parametrize("how", ["huge learning rate", "infinite weights", "infinite moments"])
def test_no_bit_depends_on_a_neighbour_that_diverges(how: str, rank: int, dtype: torch.dtype) -> None:
    """In the same stack, before and behind, and in another one."""
    model = small_base(dtype=dtype)
    alone, engine = make_engine(model, {"mine": mine(rank)}), make_engine(model, {})
    broken = [(f"n{place}", make_spec(other, learning_rate=1e30)) for place, other in enumerate((8, 40))]
    for name, spec in [*broken, ("mine", mine(rank)), *((f"{name}'", spec) for name, spec in broken)]:
        state = initial_state(spec, engine.targets)
        if name != "mine" and how != "huge learning rate":
            state = spoilt(state, how)
        engine.admit(name, spec, state)
    wanted, got = train_steps(alone, 6), train_steps(engine, 6)
    assert got["mine"] == wanted["mine"]
    assert same_bits(engine.export("mine"), alone.export("mine"))
    losses = engine.eval_loss(engine.slots)
    assert losses["mine"] == alone.eval_loss(["mine"])["mine"]
    for name in ("n0", "n1", "n0'", "n1'"):
        assert not torch.tensor([losses[name], got[name][-1].loss]).isfinite().any()


class LeakyNorm(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """A norm that adds zero times the next row, forward and backward: what is not finite spreads to other rows."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) + 0.0 * x.roll(1, dims=0)


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leaks", ["in a norm", "in products of 40"])
@pytest.mark.parametrize("broken", [("n0",), ("n0", "n1", "n2")])
def test_no_bit_depends_on_a_neighbour_that_diverges_even_where_nan_leaks_between_rows(
    broken: tuple[str, ...], leaks: str, dtype: torch.dtype
) -> None:
    """40 is no multiple of 32: with AMX, bfloat16 products read past the end of such rows."""
    model = small_base(dtype=dtype, hidden_size=40, intermediate_size=72)
    if leaks == "in a norm":
        for layer in model.model.layers:
            layer.input_layernorm = LeakyNorm(layer.input_layernorm)
    specs = {"n0": make_spec(8), "mine": mine(8), "n1": make_spec(40), "n2": make_spec(8)}
    alone, engine = make_engine(model, {"mine": mine(8)}), make_engine(model, {})
    for name, spec in specs.items():
        settled = replace(spec, learning_rate=1e30) if name in broken else spec
        engine.admit(name, settled)
    wanted, got = train_steps(alone, 5), train_steps(engine, 5)
    assert got["mine"] == wanted["mine"]
    assert same_bits(engine.export("mine"), alone.export("mine"))
    losses = engine.eval_loss(engine.slots)
    assert losses["mine"] == alone.eval_loss(["mine"])["mine"]
    for name in ("n0", "n1", "n2"):
        assert torch.tensor([losses[name], got[name][-1].loss]).isfinite().all() == (name not in broken)


@bits_hold
def test_evaluation_keeps_a_slot_apart_that_diverged_in_the_step_before() -> None:
    model = small_base()
    for layer in model.model.layers:
        layer.input_layernorm = LeakyNorm(layer.input_layernorm)
    alone = make_engine(model, {"mine": mine(8)})
    engine = make_engine(model, {"n0": make_spec(8, learning_rate=1e30, warmup_steps=0), "mine": mine(8)})
    assert train_steps(engine, 1)["n0"][0].loss < 10
    train_steps(alone, 1)
    for names in (["mine"], ["n0", "mine"]):
        assert engine.eval_loss(names)["mine"] == alone.eval_loss(["mine"])["mine"]
    assert not torch.tensor(engine.eval_loss(["n0"])["n0"]).isfinite()


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inner", [31, 40, 64, 208])
def test_a_product_of_finite_numbers_keeps_each_row_to_itself(inner: int, dtype: torch.dtype) -> None:
    """What the engine rests on. It does not hold for NaN: with AMX, row 95 of 208 bfloat16 numbers is then NaN too."""
    generator = torch.Generator().manual_seed(0)
    rows, weight = (torch.randn(size, inner, generator=generator).to(dtype) for size in (240, 32))
    company = torch.full_like(rows, torch.finfo(dtype).max / 1e4)
    company[48:96] = rows[48:96]
    assert torch.equal((rows @ weight.mT)[48:96], (company @ weight.mT)[48:96])
    alone, together = (torch.bmm(left.view(5, 48, inner), weight.mT.repeat(5, 1, 1)) for left in (rows, company))
    assert torch.equal(alone[1], together[1])


def spoilt(state: SlotState, how: str) -> SlotState:
    """The state with one layer at infinity."""
    part = copy.deepcopy(state.adapter if how == "infinite weights" else state.exp_avg)
    for matrix in part[next(iter(part))]:
        matrix.fill_(float("inf"))
    return replace(state, adapter=part) if how == "infinite weights" else replace(state, exp_avg=part)


@bits_hold
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("into_another_engine", [False, True])
def test_no_bit_depends_on_being_evicted_and_admitted_again(into_another_engine: bool, dtype: torch.dtype) -> None:
    model = small_base(dtype=dtype)
    alone = make_engine(model, {"mine": mine(8)})
    wanted = train_steps(alone, 6)["mine"]
    engine = make_engine(model, company_of(4, 1, mine(8)))
    got = train_steps(engine, 3)["mine"]
    state = engine.evict("mine")
    if into_another_engine:
        others = {name: engine.export(name) for name in ("n2", "n0")}
        engine = make_engine(model, {})
        for name, its_state in others.items():
            engine.admit(name, COMPANY[int(name[1])], its_state)
    engine.admit("mine", mine(8), state)
    got += train_steps(engine, 3)["mine"]
    assert got == wanted
    assert same_bits(engine.export("mine"), alone.export("mine"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_passes_of_hardly_any_learned_tokens_agree_but_for_rounding(dtype: torch.dtype) -> None:
    """Products of fewer than four rows are computed by other code, so that here bits do depend on company."""
    model = small_base(dtype=dtype)
    short = TokenRows.of([([5 + place, 6, 7], [IGNORED, IGNORED, 7]) for place in range(6)])
    alone = make_engine(model, {"mine": mine(8)}, micro_batch_size=1, train=short)
    engine = make_engine(model, company_of(4, 1, mine(8)), micro_batch_size=1, train=short)
    wanted, got = (train_steps(each, 3)["mine"] for each in (alone, engine))
    bound = 1e-6 if dtype == torch.float32 else 1e-2
    assert relative_differences([result.loss for result in got], [result.loss for result in wanted]) < bound


# Slots of other seeds, or at other steps, have rows of other lengths: what pads a row and how rows are cut into passes
# then depends on company, and sums are rounded in another order.


def with_strangers(
    model: PreTrainedModel, *, steps: int
) -> tuple[MultiLoraEngine, MultiLoraEngine, list[float], list[float]]:
    """An engine with my slot alone, one with strangers that come and go, and my losses in both."""
    alone = make_engine(model, {"mine": mine(8)}, micro_batch_size=3)
    engine = make_engine(model, MIXED, micro_batch_size=3)
    train_steps(engine, 2)
    engine.admit("mine", mine(8))
    got = []
    for step in range(steps):
        if step == 2:
            engine.evict("rank 1")
            engine.admit("late", make_spec(16, seed=11))
        if step == 4:
            engine.evict("rank 64")
        got.append(engine.train_step()["mine"].loss)
    return alone, engine, [result.loss for result in train_steps(alone, steps)["mine"]], got


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt_neox"])
def test_strangers_change_nothing_in_float64(kind: str) -> None:
    model = in_full_precision(small_base(kind, dtype=torch.float64))
    alone, engine, wanted, got = with_strangers(model, steps=6)
    assert relative_differences(got, wanted) < 1e-9
    assert difference(engine.export("mine").adapter, alone.export("mine").adapter) < 1e-9


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3_text", "gpt_neox"])
def test_strangers_change_only_the_rounding_in_float32(kind: str) -> None:
    alone, engine, wanted, got = with_strangers(small_base(kind), steps=6)
    assert relative_differences(got, wanted) < 1e-6
    now, then = (flat(each.export("mine").adapter) for each in (engine, alone))
    start = flat(initial_state(mine(8), engine.targets).adapter)
    assert (now - then).norm() < 1e-4 * (then - start).norm()
    assert engine.eval_loss(["mine"])["mine"] == pytest.approx(alone.eval_loss(["mine"])["mine"], rel=1e-6)
