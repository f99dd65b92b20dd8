"""What a search knows of its trials, by number: shared by what proposes them and what stops them."""

from collections.abc import Iterable, Sequence

from ray.tune.experiment import Trial

from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.search.budget import Clock
from orchestrator.search.cohorts import is_of
from orchestrator.search.names import HYPERPARAMETERS, number_of
from orchestrator.search.parts import losses_of
from orchestrator.search.samplers import Results

Losses = dict[int, float]
"""Eval loss by optimizer step."""


class Heard:
    """The trials of a search: their points, the losses that Tune was told, and which have ended.

    Of `earlier` trials that are not of the `cohort` nothing counts but that they were. The `clock` stops whoever
    reports after its time. `others` are results of earlier runs.
    """

    def __init__(
        self,
        earlier: Iterable[TrialRecord] = (),
        cohort: JsonObject | None = None,
        clock: Clock | None = None,
        others: Results | None = None,
    ) -> None:
        self.clock, self.others = clock or Clock(), others or {}
        self.points: dict[int, JsonObject] = {}
        self.losses: dict[int, Losses] = {}
        self.ended: set[int] = set()
        for record in earlier:
            number = number_of(record.trial_id)
            is_alike = is_of(cohort or {}, record.hyperparameters)
            self.points[number] = record.hyperparameters
            self.losses[number] = dict(losses_of(record)) if is_alike else {}
            self.ended.add(number)

    def add(self, trial: Trial) -> None:
        """A trial was made, restored after the driver's death, or begins again."""
        number = number_of(str(trial))
        self.points[number] = trial.config[HYPERPARAMETERS]
        self.hear(trial, trial.run_metadata.last_result)  # `trial.last_result` would ask the trial's actor
        (self.ended.add if trial.is_finished() else self.ended.discard)(number)

    def hear(self, trial: Trial, result: JsonObject) -> None:
        """A report of a trial; what was heard first of a step stands."""
        losses = self.losses.setdefault(number_of(str(trial)), {})
        for point in (*result.get("curve", ()), result):
            if "step" in point and "eval_loss" in point:
                losses.setdefault(point["step"], point["eval_loss"])

    def end(self, trial: Trial) -> None:
        """A trial ended."""
        self.ended.add(number_of(str(trial)))

    def last_step(self, number: int) -> int:
        """The last step at which a trial was evaluated, 0 before the first."""
        return max(self.losses.get(number, {}), default=0)

    def value(self, number: int, rungs: Sequence[int]) -> float | None:
        """What a trial is compared by: its loss at the first rung, or the last if it has ended; None before."""
        losses = self.losses.get(number, {})
        if rungs and rungs[0] in losses:
            return losses[rungs[0]]
        return losses[max(losses)] if number in self.ended and losses else None
