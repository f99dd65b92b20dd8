import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_lora_builders import difference, make_spec, rows_keep_their_bits, same_bits
from transformers import get_scheduler

from orchestrator.multi_lora.slots import Pair, SlotSpec, SlotStack, SlotState, Target, initial_state, schedule_factor

TARGETS = [Target("first", 12, 20), Target("second", 20, 7)]
SCHEDULES = ("cosine", "linear", "constant_with_warmup")


def stack_of(specs: list[SlotSpec], *, dtype: torch.dtype = torch.float64) -> SlotStack:
    stack = SlotStack(16, TARGETS, device=torch.device("cpu"), dtype=dtype)
    for place, spec in enumerate(specs):
        stack.add(f"s{place}", spec, initial_state(spec, TARGETS, stack.params.dtype))
    return stack


def gradients(spec: SlotSpec, step: int, dtype: torch.dtype = torch.float64) -> dict[str, Pair]:
    """Gradients of A and B, as a loss would give them."""
    generator = torch.Generator().manual_seed(1000 * spec.rank + step)
    size = 10.0 ** (step % 3 - 1)
    return {
        name: (
            torch.randn(spec.rank, inner, generator=generator).to(dtype) * size,
            torch.randn(outer, spec.rank, generator=generator).to(dtype) * size,
        )
        for name, inner, outer in TARGETS
    }


def do_step(stack: SlotStack, step: int) -> torch.Tensor:
    """A step from `gradients` of every slot, given as the products give them: those of the scaled B."""
    stack.grads.zero_()
    for index, spec in enumerate(stack.specs):
        given_gradients = gradients(spec, step, stack.params.dtype).values()
        for (to_a, to_b), (a, b) in zip(stack.gradients, given_gradients, strict=True):
            to_a[index, : spec.rank] = a
            to_b[index, :, : spec.rank] = b / spec.scale
    room = torch.empty_like(stack.params)
    norms = stack.gradient_norms(room)
    stack.optimizer_step(norms, room)
    return norms.squeeze(1)


def train_with_torch(spec: SlotSpec, steps: int) -> tuple[SlotState, list[float], dict[str, Pair]]:
    start = initial_state(spec, TARGETS, torch.float64).adapter
    weights = {name: tuple(torch.nn.Parameter(part.clone()) for part in pair) for name, pair in start.items()}
    flat = [weight for pair in weights.values() for weight in pair]
    optimizer = torch.optim.AdamW(flat, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    scheduler = get_scheduler(spec.schedule, optimizer, spec.warmup_steps, spec.max_steps)
    norms = []
    for step in range(steps):
        for name, pair in gradients(spec, step).items():
            for weight, value in zip(weights[name], pair, strict=True):
                weight.grad = value
        norms.append(float(torch.nn.utils.clip_grad_norm_(flat, spec.max_grad_norm)))
        optimizer.step()
        scheduler.step()

    def pairs(of: dict[torch.nn.Parameter, torch.Tensor]) -> dict[str, Pair]:
        return {name: (of[a].detach(), of[b].detach()) for name, (a, b) in weights.items()}

    kept = optimizer.state
    state = SlotState(
        steps,
        pairs({weight: weight for weight in flat}),
        pairs({weight: kept[weight]["exp_avg"] for weight in flat}),
        pairs({weight: kept[weight]["exp_avg_sq"] for weight in flat}),
    )
    return state, norms, pairs({weight: weight.grad for weight in flat})


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("max_grad_norm", [1.0, 1e6])
def test_a_stack_does_what_adamw_clipping_and_schedule_do_alone(schedule: str, max_grad_norm: float) -> None:
    specs = [
        make_spec(rank, schedule=schedule, max_grad_norm=max_grad_norm, weight_decay=decay, warmup_steps=warmup)
        for rank, decay, warmup in ((1, 0.0, 0), (4, 0.1, 2), (16, 0.01, 5))
    ]
    stack = stack_of(specs)
    norms = [do_step(stack, step) for step in range(9)]
    for index, spec in enumerate(specs):
        alone, its_norms, its_gradient = train_with_torch(spec, 9)
        state = stack.state(f"s{index}")
        assert state.step == 9
        assert difference(state.adapter, alone.adapter) < 1e-13
        assert difference(state.exp_avg, alone.exp_avg) < 1e-12 * max(its_norms)
        assert difference(state.exp_avg_sq, alone.exp_avg_sq) < 1e-12 * max(its_norms) ** 2
        assert difference(stack.gradient(f"s{index}"), its_gradient) < 1e-12 * max(its_norms)
        assert [float(norm[index]) for norm in norms] == pytest.approx(its_norms, rel=1e-12)


@given(st.sampled_from(SCHEDULES), st.integers(0, 40), st.integers(1, 60))
def test_schedules_are_those_of_transformers(schedule: str, warmup: int, max_steps: int) -> None:
    spec = make_spec(schedule=schedule, warmup_steps=warmup, max_steps=max_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(schedule, optimizer, warmup, max_steps)
    for step in range(max_steps):
        assert schedule_factor(spec, step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-15)
        optimizer.step()
        scheduler.step()


@pytest.mark.skipif(not rows_keep_their_bits(torch.float32), reason="sums depend on the number of rows here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_slot_moves_the_same_bits_in_whatever_company(dtype: torch.dtype) -> None:
    specs = [make_spec(rank, learning_rate=1e-3 * rank, weight_decay=0.1, warmup_steps=rank) for rank in (1, 4, 7, 16)]
    together = stack_of(specs, dtype=dtype)
    alone = [stack_of([spec], dtype=dtype) for spec in specs]
    for step in range(4):
        norms = do_step(together, step)
        for index, stack in enumerate(alone):
            assert torch.equal(do_step(stack, step), norms[index : index + 1])
            assert same_bits(stack.state("s0"), together.state(f"s{index}"))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stays_with_its_slot(broken: float) -> None:
    specs = [make_spec(4), make_spec(8), make_spec(16)]
    stack, healthy = stack_of(specs), stack_of(specs)
    for each in (stack, healthy):
        do_step(each, 0)
    stack.exp_avg[1, 5] = broken
    do_step(stack, 1)
    do_step(healthy, 1)
    for name in ("s0", "s2"):
        assert same_bits(stack.state(name), healthy.state(name))
    assert not all(part.isfinite().all() for part in stack.state("s1").adapter["first"])
