"""The trackers of a training or search: those of every run, and those that its configuration names."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestrator.config.schema import TrackerName
from orchestrator.core.board import RUNNING, TrialBoard
from orchestrator.core.records import StopReason
from orchestrator.tracking.follow import followers
from orchestrator.tracking.tracker import RunInfo, Tracker, Trackers
from orchestrator.training.health.tracker import Health
from orchestrator.training.progress_file import ProgressFile


class ProgressBoard:
    """The progress display: a live table on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._board = TrialBoard(0, 0)
        self._started: dict[str, Mapping[str, float | int]] = {}
        self._latest: dict[str, tuple[int, float | None]] = {}

    def run_started(self, run: RunInfo) -> None:
        """Show an empty board."""
        self._board = TrialBoard(run.num_trials, run.max_steps, run.num_ended).__enter__()

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        """Add a row, or show its trial running again."""
        self._started[trial] = hyperparameters
        self._latest.setdefault(trial, (step, None))
        self._show(trial, RUNNING)

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Update the trial's row between evaluations."""
        self._board.step(trial, step, values)

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Update the trial's row."""
        loss = values["eval_loss"]
        self._latest[trial] = (step, loss if math.isfinite(loss) else None)
        self._show(trial, RUNNING)

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        """Show how the trial ended."""
        self._show(trial, reason.replace("_", " "))

    def run_ended(self) -> None:
        """Leave the board as it is."""
        self._board.__exit__(None, None, None)

    def _show(self, trial: str, status: str) -> None:
        step, loss = self._latest[trial]
        self._board.update(trial, hyperparameters=self._started[trial], step=step, eval_loss=loss, status=status)


TRACKERS: tuple[Callable[[], Tracker], ...] = (
    ProgressBoard,
    ProgressFile,
    Health,
)  # fmt: skip
"""One of each is made for every training on samples."""
OF_PAIRS: tuple[Callable[[], Tracker], ...] = (ProgressBoard, ProgressFile)
"""Those of a training on pairs, whose loss tells of health in other ways."""


@contextmanager
def tracked(
    run: RunInfo, names: Sequence[TrackerName], makers: Sequence[Callable[[], Tracker]] | None = None
) -> Iterator[Trackers]:
    """All trackers, from the start of a run to its end."""
    trackers = Trackers([*(make() for make in (TRACKERS if makers is None else makers)), *followers(names)])
    trackers.run_started(run)
    try:
        yield trackers
    finally:
        trackers.run_ended()
