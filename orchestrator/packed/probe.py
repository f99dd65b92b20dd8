"""How many slots a device should have: the fewest that train at about the best rate it has."""

import time
from functools import partial

from orchestrator.packed.engine import PackedEngine
from orchestrator.packed.memory import OutOfMemory, attempt
from orchestrator.packed.slots import SlotSpec

NEAR_THE_PEAK = 0.95
"""Share of the best tokens per second that is good enough."""
TIMED_STEPS = 2


def measure_rates(engine: PackedEngine, *, most_slots: int, cohort: int, rank: int) -> dict[int, float]:
    """Tokens per second with 1, 2, 4, ... slots, until twice as many bring hardly more or do not fit.

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
        rate = attempt(partial(_rate, engine, spec, slots))
        for name in engine.slots:
            engine.evict(name)
        if isinstance(rate, OutOfMemory):
            break
        rates[slots] = rate
        if slots > 1 and slots >= cohort and rates[slots // 2] >= NEAR_THE_PEAK * rates[slots]:
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


def _rate(engine: PackedEngine, spec: SlotSpec, slots: int) -> float:
    """The best of a few steps: what else the machine does can only slow one down."""
    for number in range(slots):
        engine.admit(f"probe-{number}", spec)
    engine.train_step()  # the first step of a shape pays for what the others reuse
    rates = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        results = engine.train_step()
        rates.append(sum(result.tokens for result in results.values()) / (time.perf_counter() - started))
    return max(rates)
