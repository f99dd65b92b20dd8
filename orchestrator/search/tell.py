"""What trackers hear of a search: what Tune hears from its trials, whichever runner trains them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.core.records import JsonObject, StopReason
from orchestrator.run.deaths import last_line, why_it_died
from orchestrator.run.happened import note
from orchestrator.search.names import HYPERPARAMETERS, storage_name
from orchestrator.tracking.tracker import Trackers
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import Progress, TrainedTrial, stop_reason
from orchestrator.training.plan import TrainPlan


class TellTrackers(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Passes on each start, evaluation and end of a trial; `trials` is the folder of what they train.

    What befalls a trial is noted in the folder of the `run`.
    """

    def __init__(self, listener: Listener, plan: TrainPlan, trials: Path, run: Path) -> None:
        self._listener, self._plan, self._trials, self._run = listener, plan, trials, run

    def __reduce__(self) -> tuple[Callable[[TrainPlan, Path, Path], "TellTrackers"], tuple[TrainPlan, Path, Path]]:
        # Tune stores its callbacks with the experiment; a terminal cannot be stored.
        return _tell_nobody, (self._plan, self._trials, self._run)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial was started or restarted."""
        chosen = self._plan.with_hyperparameters(trial.config[HYPERPARAMETERS]).hyperparameters
        folder = self._trials / storage_name(str(trial), chosen)
        self._listener.started(str(trial), chosen, int(trial.last_result.get("step", 0)), folder)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: JsonObject, **_: Any) -> None:
        """A trial evaluated."""
        progress = _progress_in(result)
        if progress is not None:
            self._listener.evaluated(str(trial), progress)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial ended by itself or was stopped."""
        progress = _progress_in(trial.last_result)
        reason: StopReason = "failed"
        if progress is not None:
            plan = self._plan.with_hyperparameters(trial.config[HYPERPARAMETERS])
            reason = stop_reason(TrainedTrial(progress.curve, progress.diverged, None, None), plan, failed=False)
        self._listener.ended(str(trial), reason)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial's process died, and the trial is tried again."""
        note(self._run, f"{trial}: {_what_befell(trial)}. It was started again and went on from its last evaluation.")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial failed."""
        note(self._run, f"{trial} failed for good: {_what_befell(trial)}.")
        self._listener.ended(str(trial), "failed")


def _progress_in(result: JsonObject) -> Progress | None:
    """What a report says of the training; None for a report of Tune's own."""
    if "step" not in result:
        return None
    return Progress.model_validate({key: result[key] for key in Progress.model_fields if key in result})


def _what_befell(trial: Trial) -> str:
    """Why a trial's process ended, and how far the search had heard of it."""
    error = trial.get_pickled_error() or trial.get_error()
    why = "its process died" if error is None else why_it_died(error) or last_line(error)
    step = trial.run_metadata.last_result.get("step")
    return f"{why}, {f'after step {step}' if step else 'before its first evaluation'}"


def _tell_nobody(plan: TrainPlan, trials: Path, run: Path) -> TellTrackers:
    return TellTrackers(Listener(Trackers()), plan, trials, run)
