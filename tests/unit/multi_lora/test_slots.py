import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_lora_builders import make_engine, make_spec, same_bits, small_base, train_steps

from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.slots import (
    CHUNK,
    NARROWEST,
    Pair,
    SlotSpec,
    SlotStack,
    SlotState,
    Target,
    initial_state,
    stack_width,
)

TARGETS = [Target("first", 12, 20), Target("second", 20, 7)]
CPU = torch.device("cpu")


def new_stack(width: int = 16, dtype: torch.dtype = torch.float32) -> SlotStack:
    return SlotStack(width, TARGETS, device=CPU, dtype=dtype)


def random_state(rank: int, *, seed: int, step: int = 3) -> SlotState:
    generator = torch.Generator().manual_seed(seed)

    def pairs() -> dict[str, Pair]:
        return {
            name: (
                torch.randn(rank, size_in, generator=generator),
                torch.randn(size_out, rank, generator=generator),
            )
            for name, size_in, size_out in TARGETS
        }

    return SlotState(step, pairs(), pairs(), pairs())


def padding_of(stack: SlotStack, index: int) -> torch.Tensor:
    """All numbers of a slot's rows in every tensor that belong to no rank of it, and what fills a row up."""
    rank, found = stack.specs[index].rank, []
    for tensor in (stack.params, stack.exp_avg, stack.exp_avg_sq, stack.grads, stack.work):
        for a, b in stack.views(tensor):
            found += [a[index, rank:].flatten(), b[index, :, rank:].flatten()]
        found.append(tensor[index, sum(stack.width * (inner + outer) for _, inner, outer in stack._targets) :])
    return torch.cat([part.float() for part in found])


@given(st.integers(1, 600))
def test_a_stack_is_as_wide_as_the_next_power_of_two(rank: int) -> None:
    width = stack_width(rank)
    assert width & (width - 1) == 0
    assert width >= max(rank, NARROWEST)
    assert width == NARROWEST or width < 2 * rank


@pytest.mark.parametrize(
    ("rank", "use_rslora", "scale"), [(8, False, 2.0), (8, True, 16 / math.sqrt(8)), (64, False, 0.25)]
)
def test_the_scale_is_that_of_lora_or_of_rslora(rank: int, use_rslora: bool, scale: float) -> None:
    assert make_spec(rank, use_rslora=use_rslora).scale == scale


def test_new_adapters_start_as_in_peft() -> None:
    state = initial_state(make_spec(8), [Target("layer", 400, 300)])
    a, b = state.adapter["layer"]
    assert (a.shape, b.shape) == ((8, 400), (300, 8))
    bound = 1 / math.sqrt(400)  # Kaiming's with a = sqrt(5)
    assert bound * 0.99 < a.abs().max() <= bound
    assert abs(a.std() - bound / math.sqrt(3)) < 0.03 * bound
    assert not b.any()
    assert state.step == 0
    assert not any(part.any() for kept in (state.exp_avg, state.exp_avg_sq) for part in kept["layer"])


def test_initial_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(1)
    one = initial_state(make_spec(4, seed=5), TARGETS)
    torch.manual_seed(2)
    assert same_bits(one, initial_state(make_spec(4, seed=5, learning_rate=1.0, dropout=0.5), TARGETS))
    assert not same_bits(one, initial_state(make_spec(4, seed=6), TARGETS))
    double = initial_state(make_spec(4, seed=5), TARGETS, torch.float64)
    assert torch.equal(double.adapter["first"][0], one.adapter["first"][0].double())


@given(st.lists(st.integers(1, 16), min_size=1, max_size=4), st.data())
def test_slots_come_out_as_they_went_in_whoever_leaves(ranks: list[int], data: st.DataObject) -> None:
    stack = new_stack()
    states = {f"s{place}": random_state(rank, seed=place, step=place) for place, rank in enumerate(ranks)}
    for place, (name, state) in enumerate(states.items()):
        stack.add(name, make_spec(ranks[place]), state)
    leaver = data.draw(st.sampled_from(sorted(states)))
    stack.remove(leaver)
    for name, state in states.items():
        if name != leaver:
            assert same_bits(stack.state(name), state)
    stack.add("new", make_spec(3), random_state(3, seed=99))
    assert stack.names == [*(name for name in states if name != leaver), "new"]
    assert same_bits(stack.state("new"), random_state(3, seed=99))
    assert not any(padding_of(stack, index).any() for index in range(len(stack.names)))


def test_what_is_taken_out_is_a_copy() -> None:
    stack = new_stack()
    stack.add("a", make_spec(4), random_state(4, seed=0))
    taken = stack.state("a")
    stack.params.fill_(7)
    assert same_bits(taken, random_state(4, seed=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_products_use_the_bases_type_and_a_scaled_b(dtype: torch.dtype) -> None:
    stack = new_stack(dtype=dtype)
    specs = [make_spec(4), make_spec(9, use_rslora=True)]
    for place, spec in enumerate(specs):
        stack.add(f"s{place}", spec, random_state(spec.rank, seed=place))
    assert stack.params.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for place, spec in enumerate(specs):
        wanted = random_state(spec.rank, seed=place).adapter["second"]
        a, b = stack.weights[1]
        assert a.dtype == b.dtype == dtype
        assert torch.equal(a[place, : spec.rank], wanted[0].to(dtype))
        exact = wanted[1].double() * spec.scale
        assert torch.allclose(b[place, :, : spec.rank].double(), exact, rtol=0.01 if dtype == torch.bfloat16 else 1e-6)


def test_rows_are_whole_chunks() -> None:
    assert new_stack().params.shape[1] % CHUNK == 0


def test_a_stack_that_finds_no_memory_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = new_stack()
    stack.add("a", make_spec(4), random_state(4, seed=0))

    def no_memory(*_args: object, **_settings: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty_like", no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            stack.add("b", make_spec(4), random_state(4, seed=1))
    assert stack.names == ["a"]
    assert stack.params.shape[0] == stack.work.shape[0] == stack.grads.shape[0] == 1
    assert same_bits(stack.state("a"), random_state(4, seed=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_stays_exactly_zero_over_steps_and_refills(dtype: torch.dtype) -> None:
    specs = {f"s{place}": make_spec(rank, weight_decay=0.1) for place, rank in enumerate((1, 4, 16, 20, 33, 50))}
    engine = make_engine(small_base(dtype=dtype), specs)
    assert_padding_is_zero(engine, steps=3)
    engine.evict("s1")
    engine.evict("s5")
    engine.admit("new", make_spec(3, dropout=0.2, seed=2))
    engine.admit("s5", SlotSpec(rank=40, alpha=8, learning_rate=1e-2, max_steps=5))
    assert_padding_is_zero(engine, steps=3)


def assert_padding_is_zero(engine: MultiLoraEngine, *, steps: int) -> None:
    for _ in range(steps):
        train_steps(engine, 1)
        for stack in engine._stacks.values():
            assert stack.grads.any()
            assert not any(padding_of(stack, index).any() for index in range(len(stack.names)))
