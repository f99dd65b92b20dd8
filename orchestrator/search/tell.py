"""What trackers hear of a search: what Tune hears from its trials, whichever runner trains them."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.core.records import JsonObject, StopReason
from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.tracking.tracker import Trackers
from orchestrator.training.outcome import Progress, TrainedTrial, stop_reason
from orchestrator.training.plan import TrainPlan


class TellTrackers(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Passes on each start, evaluation and end of a trial. What a resumed trial reports again is passed on once."""

    def __init__(self, trackers: Trackers, plan: TrainPlan) -> None:
        self._trackers, self._plan = trackers, plan
        self._told: dict[str, int] = {}

    def __reduce__(self) -> tuple[type["TellTrackers"], tuple[Trackers, TrainPlan]]:
        # Tune stores its callbacks with the experiment; a terminal cannot be stored.
        return TellTrackers, (Trackers(), self._plan)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial was started or restarted."""
        step = int(trial.last_result.get("step", 0))
        self._told[str(trial)] = max(step, self._told.get(str(trial), 0))
        self._trackers.trial_started(str(trial), trial.config[HYPERPARAMETERS], step)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: JsonObject, **_: Any) -> None:
        """A trial evaluated."""
        progress = _progress_in(result)
        if progress is not None and progress.step > self._told.get(str(trial), 0):
            self._told[str(trial)] = progress.step
            self._trackers.metrics(str(trial), progress.step, progress.metrics)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial ended by itself or was stopped."""
        progress = _progress_in(trial.last_result)
        reason: StopReason = "failed"
        if progress is not None:
            reason = stop_reason(TrainedTrial(progress.curve, progress.diverged, None, None), self._plan, failed=False)
        self._trackers.trial_ended(str(trial), reason)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial failed."""
        self._trackers.trial_ended(str(trial), "failed")


def _progress_in(result: JsonObject) -> Progress | None:
    """What a report says of the training; None for a report of Tune's own."""
    if "step" not in result:
        return None
    return Progress.model_validate({key: result[key] for key in Progress.model_fields if key in result})
