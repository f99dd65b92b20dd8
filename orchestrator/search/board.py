"""The search's trials on a progress board."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.core.progress import TrialBoard
from orchestrator.core.records import JsonObject
from orchestrator.search.names import HYPERPARAMETERS, trial_name


class ShowTrials(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Shows on a board what Tune hears from its trials."""

    def __init__(self, board: TrialBoard | None) -> None:
        self._board = board

    def __reduce__(self) -> tuple[type["ShowTrials"], tuple[None]]:
        # Tune stores its callbacks with the experiment; a terminal cannot be stored.
        return ShowTrials, (None,)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial was started, for the first time or again."""
        self._show(trial, trial.last_result, "running")

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: JsonObject,
        **_: Any,
    ) -> None:
        """A trial evaluated."""
        self._show(trial, result, "diverged" if result.get("diverged") else "running")

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial ended by itself or was stopped."""
        self._show(trial, trial.last_result, "diverged" if trial.last_result.get("diverged") else "ended")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial failed."""
        self._show(trial, trial.last_result, "failed")

    def _show(self, trial: Trial, result: JsonObject, status: str) -> None:
        if self._board is None:
            return
        self._board.update(
            trial_name(trial.trial_id),
            hyperparameters=trial.config[HYPERPARAMETERS],
            step=int(result.get("step", 0)),
            eval_loss=None if result.get("diverged") else result.get("eval_loss"),
            status=status,
        )
