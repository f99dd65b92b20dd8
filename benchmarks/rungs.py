"""What a repeatable search costs: halving by trial numbers against halving in order of arrival, on made-up curves.

    python benchmarks/rungs.py --seeds 400

By arrival, trials that reach a rung at the same moment are judged at once, by all that were there so far. Time is
counted in optimizer steps of a slot: all slots train at once, and those of a slow device take 1.3 times as long.
`whole` is the time of the search in whole trainings of one slot, `idle` the share of slot time in which a slot had
nothing to train before the last trial had begun.
"""

import argparse
import heapq
import random
from dataclasses import dataclass, field
from statistics import mean

from orchestrator.search.rungs import Rungs, survivors

MAX_STEPS, EVAL_STEPS, FACTOR, KEEP = 60, 6, 3, 2
RUNGS = (6, 18)
SLOW, NEAR = 1.3, 0.0025


@dataclass
class Curves:
    """Losses of the candidates of one seed: (number, step) -> loss."""

    num_trials: int
    rng: random.Random
    finals: list[float] = field(init=False)
    early: list[float] = field(init=False)

    def __post_init__(self) -> None:
        rates = [self.rng.uniform(-1, 1) for _ in range(self.num_trials)]
        self.finals = [1 + 0.035 * rate**2 + self.rng.gauss(0, 0.001) for rate in rates]
        self.early = [its + self.rng.gauss(0, 0.006) for its in self.finals]

    def at(self, number: int, step: int) -> float:
        """The loss after a step; early ones say less of the final ones."""
        share = (step - EVAL_STEPS) / (MAX_STEPS - EVAL_STEPS)
        return (1 - share) * (self.early[number - 1] + 0.5) + share * self.finals[number - 1]


class Search:
    """One search on slots, whose entries say how long each takes for a step. `group` is None by arrival."""

    def __init__(self, curves: Curves, slots: list[float], group: int | None) -> None:
        self.curves, self.slots, self.group = curves, slots, group
        self.now, self.steps = 0.0, 0
        self.at: dict[int, int] = {}
        self.spans: list[tuple[float, float]] = []
        self._rungs = Rungs(
            RUNGS, reduction_factor=FACTOR, keep=KEEP, num_trials=curves.num_trials, group=group or curves.num_trials
        )
        self._arrived: dict[int, dict[int, bool]] = {rung: {} for rung in RUNGS}
        self._free = list(range(len(slots)))
        self._waiting = list(range(1, curves.num_trials + 1))
        self._running: list[tuple[float, int, int]] = []

    def run(self) -> "Search":
        """Train to the end; sets the steps, the time, and where each trial ended (`at`)."""
        while self._running or self._waiting:
            self._fill()
            there = self._next_moment()
            for number in there:
                step = self.at[number]
                if step >= MAX_STEPS:
                    self._rungs.ended(number, MAX_STEPS)
                elif step in RUNGS:
                    self._rungs.hear(number, [(step, self.curves.at(number, step))])
                else:
                    self._waiting.append(number)
            for number, goes_on in self._verdicts(there):
                if goes_on:
                    self._waiting.append(number)
                else:
                    self._rungs.ended(number, self.at[number])
        return self

    @property
    def idle(self) -> float:
        """Share of the slots' time without work before the last training of a piece began."""
        until = max(start for start, _ in self.spans)
        busy = sum(min(end, until) - start for start, end in self.spans if start < until)
        return 1 - busy / (until * len(self.slots)) if until else 0.0

    def _fill(self) -> None:
        self._waiting.sort(key=lambda number: (number not in self.at, number))  # who has begun goes first
        self._free.sort(key=lambda slot: self.slots[slot])
        while self._free and self._waiting:
            slot, number = self._free.pop(0), self._waiting.pop(0)
            end = self.now + EVAL_STEPS * self.slots[slot]
            self.spans.append((self.now, end))
            heapq.heappush(self._running, (end, slot, number))

    def _next_moment(self) -> list[int]:
        there: list[int] = []
        self.now = self._running[0][0]
        while self._running and self._running[0][0] == self.now:
            _, slot, number = heapq.heappop(self._running)
            self._free.append(slot)
            self.at[number] = self.at.get(number, 0) + EVAL_STEPS
            self.steps += EVAL_STEPS
            there.append(number)
        return there

    def _verdicts(self, there: list[int]) -> list[tuple[int, bool]]:
        if self.group is not None:
            return [(number, goes_on) for number, _, goes_on in self._rungs.decide()]
        told, to_come = [], self.curves.num_trials
        for rung in RUNGS:
            arrived, new = self._arrived[rung], [number for number in there if self.at[number] == rung]
            losses = {number: self.curves.at(number, rung) for number in (*arrived, *new)}
            if new:
                on = survivors(losses, FACTOR) & set(new)
                others = sum(arrived.values()) + len(on) + max(0, to_come - len(losses))
                runners_up = sorted(set(new) - on, key=lambda number: losses[number])
                on |= set(runners_up[: max(0, KEEP - others)])
                arrived.update((number, number in on) for number in new)
                told += [(number, number in on) for number in new]
            to_come = sum(arrived.values())  # to the next rung
        return told


SLOTS = {
    "1 x 4": [1.0] * 4,
    "1 x 8": [1.0] * 8,
    "1 x 16": [1.0] * 16,
    "2 x 4, one slow": [1.0] * 4 + [SLOW] * 4,
    "2 x 8, one slow": [1.0] * 8 + [SLOW] * 8,
    "4 isolated": [1.0] * 4,
    "4 isolated, two slow": [1.0] * 2 + [SLOW] * 2,
}
CASES = [
    (12, "1 x 8"), (16, "1 x 4"), (16, "1 x 8"), (16, "1 x 16"), (16, "2 x 4, one slow"), (64, "1 x 8"),
    (64, "2 x 8, one slow"), (16, "4 isolated"), (16, "4 isolated, two slow"), (64, "4 isolated, two slow"),
]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=400)
    seeds = parser.parse_args().seeds
    print("| Trials, devices x slots | Judged | Saved | Regret (near the best) | Whole | Idle |")
    print("|---|---|---|---|---|---|")
    for num_trials, layout in CASES:
        by_number = 1 if "isolated" in layout else 8
        for rule, group in (("by arrival", None), (f"by number, groups of {by_number}", by_number)):
            row = _measure(num_trials, SLOTS[layout], group, seeds)
            print(f"| {num_trials}, {layout} | {rule} | {row} |")


def _measure(num_trials: int, slots: list[float], group: int | None, seeds: int) -> str:
    all_curves = [Curves(num_trials, random.Random(seed)) for seed in range(seeds)]
    searches = [Search(curves, slots, group).run() for curves in all_curves]
    regrets = []
    for search in searches:
        finals = search.curves.finals
        found = min(finals[number - 1] for number, step in search.at.items() if step == MAX_STEPS)
        regrets.append(found / min(finals) - 1)
    saved = mean(1 - search.steps / (num_trials * MAX_STEPS) for search in searches)
    whole, idle = mean(search.now / MAX_STEPS for search in searches), mean(search.idle for search in searches)
    near = mean(its <= NEAR for its in regrets)
    return f"{saved:.1%} | {mean(regrets):.3%} ({near:.0%}) | {whole:.2f} | {idle:.1%}"


if __name__ == "__main__":
    main()
