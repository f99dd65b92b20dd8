"""How many slots a device gets: a cohort, or as many more as train faster; and how running out of memory is caught."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from orchestrator.core import memory
from orchestrator.core.errors import TrainingError
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.slots import SlotSpec
from orchestrator.run.deaths import ALLOCATOR_WORDS

NEAR_THE_PEAK = 0.95
"""Share of the best tokens per second that is good enough."""
LONG_STEP_S = 0.5
"""A device that needs so long for a step is full; more slots only make its steps longer."""

T = TypeVar("T")


@dataclass(frozen=True)
class OutOfMemory:
    """Memory ran out, in the allocator's words."""

    words: str


def attempt(work: Callable[[], T]) -> T | OutOfMemory:
    """What `work` returns, or that memory ran out; the error is dropped, for its traceback holds what filled it."""
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        on_cpu = any(words in str(error).lower() for words in ALLOCATOR_WORDS)
        if not on_cpu and not isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise
        return OutOfMemory((str(error).splitlines() or ["no memory"])[0])


def too_large(problem: OutOfMemory) -> TrainingError:
    """The error for a single slot with a single row per pass that does not fit."""
    return TrainingError(
        f"a single row of a single adapter does not fit the memory ({problem.words})",
        where="data.max_length",
        fix="Lower data.max_length, set train.gradient_checkpointing to true, or use a device with more memory",
    )


def measure_rates(engine: MultiLoraEngine, *, most_slots: int, cohort: int, rank: int) -> dict[int, float]:
    """Tokens per second with `cohort` slots, then twice as many and so on, until that gains little or does not fit.

    A cohort that does not fit the memory is halved until it does. Fewer are not tried for speed: many trials should be
    compared at a rung, or the first ones are stopped by none (docs/decisions/0018). `rank` is the largest of the
    search, which needs the most memory and time. The engine has no slots before and after.
    """
    spec = SlotSpec(rank=rank, alpha=rank, learning_rate=1e-6, max_steps=1_000_000)
    rates: dict[int, float] = {}
    slots = min(cohort, most_slots)
    while 0 < slots <= most_slots and slots not in rates:
        step = attempt(partial(_typical_step, engine, spec, slots))
        for name in engine.slots:
            engine.evict(name)
        if isinstance(step, OutOfMemory):
            slots, most_slots = slots // 2, slots - 1
            continue
        tokens, seconds = step
        rates[slots] = tokens / seconds
        if seconds >= LONG_STEP_S or rates.get(slots // 2, 0.0) >= NEAR_THE_PEAK * rates[slots]:
            break
        slots *= 2
    return rates


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or on this machine within the limit of a container."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return memory.free_memory()


def choose_slots(rates: dict[int, float]) -> int:
    """The fewest slots within 5 % of the best rate; one if nothing could be measured."""
    return min((slots for slots, rate in rates.items() if rate >= NEAR_THE_PEAK * max(rates.values())), default=1)


def _typical_step(engine: MultiLoraEngine, spec: SlotSpec, slots: int) -> tuple[int, float]:
    """Tokens and seconds of the second step, for the first warms up what others reuse; of the first if it is long."""
    for number in range(slots):
        engine.admit(f"probe-{number}", spec)
    first = _timed_step(engine)
    return first if first[1] >= 2 * LONG_STEP_S else _timed_step(engine)


def _timed_step(engine: MultiLoraEngine) -> tuple[int, float]:
    started = time.perf_counter()
    results = engine.train_step()
    return sum(result.tokens for result in results.values()), time.perf_counter() - started
