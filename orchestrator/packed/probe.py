"""How many slots a device should have: the fewest that train at about the best rate it has."""

import time
from functools import partial
from typing import NamedTuple

from orchestrator.packed.engine import PackedEngine
from orchestrator.packed.memory import OutOfMemory, attempt
from orchestrator.packed.slots import SlotSpec

NEAR_THE_PEAK = 0.95
"""Share of the best tokens per second that is good enough."""
LONG_STEP_S = 0.5
"""A device that works so long at a step is full; more slots only make its steps longer."""


def measure_rates(engine: PackedEngine, *, most_slots: int, cohort: int, rank: int) -> dict[int, float]:
    """Tokens per second with 1, 2, 4, ... slots, until twice as many bring hardly more, take long, or do not fit.

    Args:
        engine: Without slots; it has none afterwards.
        most_slots: No more than this are tried.
        cohort: Up to this many are tried, whether or not they bring more.
        rank: The largest rank of the search, which needs the most memory and time.
    """
    spec = SlotSpec(rank=rank, alpha=rank, learning_rate=1e-6, max_steps=1_000_000)
    rates: dict[int, float] = {}
    slots = 1
    while slots <= most_slots:
        step = attempt(partial(_timed_step, engine, spec, slots))
        for name in engine.slots:
            engine.evict(name)
        if isinstance(step, OutOfMemory):
            break
        rates[slots] = step.tokens / step.seconds
        brings_no_more = slots > 1 and rates[slots // 2] >= NEAR_THE_PEAK * rates[slots]
        if slots >= cohort and (brings_no_more or step.seconds >= LONG_STEP_S):
            break
        slots *= 2
    return rates


def choose_slots(rates: dict[int, float], *, cohort: int) -> int:
    """The fewest slots within 5 % of the best rate; `cohort`, or as near to it as can be, where that costs no more.

    Trials that are compared at a rung should be many, or the first ones are stopped by none (docs/decisions/0018). One
    slot where nothing could be measured.
    """
    enough = [slots for slots, rate in rates.items() if rate >= NEAR_THE_PEAK * max(rates.values())]
    together = [slots for slots in enough if slots <= cohort]
    return max(together, default=min(enough, default=1))


class _Step(NamedTuple):
    tokens: int
    seconds: float


def _timed_step(engine: PackedEngine, spec: SlotSpec, slots: int) -> _Step:
    """The second step of so many slots; the first pays for what the others reuse."""
    for number in range(slots):
        engine.admit(f"probe-{number}", spec)
    engine.train_step()
    started = time.perf_counter()
    results = engine.train_step()
    return _Step(sum(result.tokens for result in results.values()), time.perf_counter() - started)
