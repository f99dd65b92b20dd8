"""Which trials go on past the rungs of a search, from their numbers and losses alone. Pure."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

Values = Callable[[int, Mapping[int, float]], Mapping[int, float]]
"""What is judged at a rung, lower is better, of the trials with these losses there, by number."""


class Verdict(NamedTuple):
    """Whether the trial with this number goes on past a rung."""

    number: int
    rung: int
    goes_on: bool


def survivors(recorded: Mapping[int, float], reduction_factor: int) -> frozenset[int]:
    """The best ceil(n / reduction_factor) of the n trials recorded at a rung; ties go to the lower number.

    `recorded` maps numbers of trials to losses. One that is not finite counts in n and never survives.
    """
    return frozenset(_best_first(recorded)[: math.ceil(len(recorded) / reduction_factor)])


def _best_first(losses: Mapping[int, float]) -> list[int]:
    return sorted((number for number, loss in losses.items() if math.isfinite(loss)), key=lambda n: (losses[n], n))


class Rungs:
    """Successive halving by numbers: a trial goes on if it is among the best of its own and of all earlier groups.

    Trials 1 to `group` are the first group, and so on. A group is decided on at a rung once each trial of it and of the
    groups before it is recorded there or will never come, so nothing depends on who comes first or how many train at
    once. Where too few others have gone on or are still to come, the best of the rest go on too, so that at least
    `keep` do.

    `steps` are the rungs, optimizer steps at which every trial is evaluated. Trials have the numbers 1 to `num_trials`.
    """

    def __init__(
        self, steps: Iterable[int], *, reduction_factor: int, group: int, num_trials: int, keep: int = 1
    ) -> None:
        self.steps = tuple(sorted(steps))
        self._factor, self._group, self._num_trials, self._keep = reduction_factor, group, num_trials, keep
        self._losses: dict[int, dict[int, float]] = {rung: {} for rung in self.steps}
        self._goes_on: dict[int, dict[int, bool]] = {rung: {} for rung in self.steps}
        self._ended_at: dict[int, int] = {}

    def hear(self, number: int, losses: Iterable[tuple[int, float]]) -> None:
        """Record evaluations of a trial, as (step, loss); what was heard first at a rung stands."""
        for step, loss in losses:
            if step in self._losses:
                self._losses[step].setdefault(number, loss)

    def has_passed(self, number: int, step: int) -> None:
        """A trial of an earlier process has trained up to `step`, and so went on at every rung before."""
        for rung in self.steps:
            if rung < step and number in self._losses[rung]:
                self._goes_on[rung].setdefault(number, True)

    def ended(self, number: int, step: int) -> None:
        """A trial that was last evaluated at `step` will not be heard of again, unless `begins_again` says so."""
        self._ended_at[number] = step

    def begins_again(self, number: int) -> None:
        """A trial that ended trains on."""
        self._ended_at.pop(number, None)

    def decide(self, values: Values | None = None) -> list[Verdict]:
        """What can be decided by now and was not before; `values` says what is judged in place of finite losses."""
        return [verdict for rung in self.steps for verdict in self._decide_at(rung, values)]

    def is_held(self, number: int) -> bool:
        """Whether the trial waits at a rung for others."""
        at = [rung for rung in self.steps if number in self._losses[rung]]
        return bool(at) and number not in self._goes_on[at[-1]] and number not in self._ended_at

    def counts(self) -> list[tuple[int, int, int]]:
        """Rung, how many went on there, and of how many."""
        return [(rung, sum(on.values()), len(on)) for rung, on in self._goes_on.items()]

    def _decide_at(self, rung: int, values: Values | None) -> Iterator[Verdict]:
        losses, decided = self._losses[rung], self._goes_on[rung]
        for last in range(self._group, self._num_trials + self._group, self._group):
            numbers = range(1, min(last, self._num_trials) + 1)
            if not all(self._is_settled(number, rung) for number in numbers):
                return
            there = {number: losses[number] for number in numbers if number in losses}
            new = [number for number in there if number not in decided]
            if not new:
                continue
            finite = {number: loss for number, loss in there.items() if math.isfinite(loss)}
            if values is not None and finite:
                there |= values(rung, finite)
            on = self._on(rung, there, new, to_come=self._num_trials - numbers[-1])
            for number in new:
                decided[number] = number in on
                yield Verdict(number, rung, number in on)

    def _on(self, rung: int, there: Mapping[int, float], new: Sequence[int], *, to_come: int) -> set[int]:
        on = set(survivors(there, self._factor)) & set(new)
        went_on = on | {number for number in there if self._goes_on[rung].get(number)}
        others = sum(self._ended_at.get(number) != rung for number in went_on)
        if rung == self.steps[0]:  # to a later rung perhaps none of the later groups will come
            others += to_come
        runners_up = [number for number in _best_first(there) if number in new and number not in on]
        return on | set(runners_up[: max(0, self._keep - others)])

    def _is_settled(self, number: int, rung: int) -> bool:
        """Whether the trial was recorded at the rung or will never be."""
        if number in self._losses[rung] or number in self._ended_at:
            return True
        return any(self._goes_on[earlier].get(number) is False for earlier in self.steps if earlier < rung)
