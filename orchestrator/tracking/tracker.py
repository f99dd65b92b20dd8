"""What trackers hear while adapters train, from `train_one` and from both runners of a search.

Tracking decides nothing, and a tracker that raises never ends a training: it is named once and left out.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.core.progress import say
from orchestrator.core.records import StopReason


@dataclass(frozen=True)
class RunInfo:
    """A training or search as it starts: the run's folder, its trials, and the steps of a full trial.

    Of the `num_trials`, `num_ended` ended in an earlier session; nothing more is heard of them.
    """

    folder: Path
    num_trials: int
    max_steps: int
    num_ended: int = 0


class Tracker(Protocol):
    """Follows a run. Calls come one at a time, in the process of the job, in the order written here.

    A resumed run starts again, and so do its unfinished trials, under the same names.
    """

    def run_started(self, run: RunInfo) -> None:
        """Training begins."""

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        """A trial begins, at step 0 or where it was interrupted."""

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """A trial trained a step; heard about a second later, and before the evaluation after it.

        `values` are the metrics of `orchestrator.core.steps.StepRow`: `loss`, `learning_rate`, `grad_norm`,
        `token_accuracy`, `tokens`, `tokens_per_s`, `memory_bytes` and `epoch`; what is unknown is left out.
        """

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """A trial evaluated, for the first time at this step.

        `values` are `eval_loss` (NaN if it diverged) and, where known, `train_loss` and `tokens`.
        """

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        """A trial will report no more."""

    def run_ended(self) -> None:
        """Training is over, whatever ended it."""


class Trackers:
    """Passes each call on to all trackers, one at a time, from any thread; a `Tracker` itself."""

    def __init__(self, trackers: Sequence[Tracker] = ()) -> None:
        self._trackers = list(trackers)
        self._lock = threading.RLock()

    def run_started(self, run: RunInfo) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.run_started(run))

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.trial_started(trial, hyperparameters, step))

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.step(trial, step, values))

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.metrics(trial, step, values))

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.trial_ended(trial, reason))

    def run_ended(self) -> None:
        """See `Tracker`."""
        self._tell(lambda tracker: tracker.run_ended())

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        with self._lock:
            for tracker in tuple(self._trackers):
                try:
                    call(tracker)
                except Exception as error:  # noqa: BLE001 - a tracker must not end a training
                    self._trackers.remove(tracker)
                    name = getattr(tracker, "name", type(tracker).__name__)
                    say(f"The tracker {name} failed with {type(error).__name__}: {error}. Training goes on without it.")
