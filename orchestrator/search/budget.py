"""What a search with a budget has spent, how many trials the rest buys, and whether another is expected to help.

What is spent is read from the trials (time of devices) and from `budget.json` (time by the clock), so a search that is
resumed goes on with what is left. The time of a process that died is not known by the clock and does not count.
"""

import math
import time
import warnings
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.terminator import RegretBoundEvaluator

from orchestrator.config.schema import RunConfig
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.records import TrialRecord
from orchestrator.core.text import counted
from orchestrator.run.paths import RunDir
from orchestrator.run.spent import BudgetRecord, Ended, Round
from orchestrator.search.names import in_order
from orchestrator.search.samplers import BATCH, Dimensions, Results, distributions_of, params_of

HOUR_S = 3600.0
ENOUGH_TO_STOP = 16
"""Results from which on a search may find that another trial is not expected to help."""
NOISE = 0.0025
"""Eval losses that differ by less than this share of the lowest count as equal (docs/early-stopping.md)."""


class Clock:
    """Says when the time of a round is over, and keeps who was stopped for it."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._until, self.stopped = time.monotonic() + seconds, set[str]()

    def stops(self, name: str) -> bool:
        """Whether a trial that has reported is stopped."""
        is_over = time.monotonic() >= self._until
        if is_over:
            self.stopped.add(name)
        return is_over


class Account:
    """The budget of a run's search."""

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        budget = config.search.budget
        assert budget is not None
        self._path, self._turn = run.budget, config.search.turn or BATCH
        hours = (budget.device_hours or budget.wall) or (budget.cost or 0.0) / (config.resources.price_per_hour or 1.0)
        self.record = BudgetRecord(kind=budget.kind, limit_s=hours * HOUR_S)
        if self._path.is_file():
            text = self._path.read_text(encoding="utf-8")
            before = parse_line(text, BudgetRecord, where=str(self._path))
            self.record = self.record.model_copy(update={"rounds": before.rounds, "stopped": before.stopped})

    def left_s(self, trials: Sequence[TrialRecord]) -> float:
        """What is left after these trials, in seconds."""
        return self.record.limit_s - self._spent_s(trials)

    def clock(self, trials: Sequence[TrialRecord], devices: int) -> Clock:
        """The clock of the round after these trials, on so many devices."""
        left = self.left_s(trials)
        return Clock(left / devices if self.record.kind == "device_hours" else left)

    def next_round(self, trials: Sequence[TrialRecord]) -> int:
        """How many trials the next round has, 0 where the rest buys none; as many as before a turn ends at most."""
        left, most = self.left_s(trials), self._turn - len(trials) % self._turn
        if not trials:
            return most
        each = self._spent_s(trials) / len(trials)
        return max(0, min(most, math.floor(left / each) if each > 0 else most))

    def close_round(self, its: Round, clock: Clock, trials: Sequence[TrialRecord]) -> None:
        """Enter a round; `trials` are all so far."""
        lagging = {record.trial_id for record in trials if record.stop_reason == "lagging"}
        stopped = (*self.record.stopped, *sorted(clock.stopped & lagging, key=in_order))
        rounds = (*(one for one in self.record.rounds if one.first != its.first), its)
        self._keep(trials, rounds=rounds, stopped=tuple(dict.fromkeys(stopped)))

    def end(self, trials: Sequence[TrialRecord], ended: Ended, with_more: str) -> None:
        """Enter why the search ended."""
        self._keep(trials, ended=ended, with_more=with_more)

    def gains(self, dimensions: Dimensions, known: Results) -> bool:
        """Whether another trial is expected to help; enters by how much at most."""
        values = [its.values[0] for its in known.values() if its.values]
        if len(values) < ENOUGH_TO_STOP:
            return True
        bound, noise = expected_gain(dimensions, known), NOISE * min(values)
        self.record = self.record.model_copy(update={"bound": bound, "noise": noise})
        return bound >= noise

    def more(self, trials: Sequence[TrialRecord]) -> str:
        """How many trials as much again would buy."""
        each = self._spent_s(trials) / max(1, len(trials))
        return counted(math.floor(self.record.limit_s / each), "trial") if each else "further trials"

    def _spent_s(self, trials: Sequence[TrialRecord]) -> float:
        if self.record.kind == "device_hours":
            return sum(record.device_s or 0.0 for record in trials)
        return sum(one.wall_s for one in self.record.rounds)

    def _keep(self, trials: Sequence[TrialRecord], **changes: object) -> None:
        self.record = self.record.model_copy(update=changes)
        self.record = self.record.model_copy(update={"spent_s": round(self._spent_s(trials), 3)})
        write_text_atomic(self._path, self.record.model_dump_json(indent=2) + "\n")


def expected_gain(dimensions: Dimensions, known: Results) -> float:
    """By how much another point is expected to be better than the best at most, by a Gaussian process over the results.

    The bound on the regret of Makarova et al. (arXiv 2104.08166), as Optuna has it. Pure.
    """
    distributions: dict[str, BaseDistribution] = distributions_of(dimensions)
    trials = [
        optuna.create_trial(params=params_of(dimensions, its.point), distributions=distributions, value=its.values[0])
        for _, its in sorted(known.items())
        if its.values
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ExperimentalWarning)
        evaluator = RegretBoundEvaluator(min_n_trials=ENOUGH_TO_STOP, seed=0)
        return float(evaluator.evaluate(trials, StudyDirection.MINIMIZE))
