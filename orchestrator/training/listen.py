"""Follows trials where they train, and tells trackers: each step and each evaluation once, in order."""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from orchestrator.core.errors import DataError
from orchestrator.core.progress import say
from orchestrator.core.records import StopReason
from orchestrator.core.steps import INTERVAL_S, StepReader
from orchestrator.tracking.tracker import Trackers
from orchestrator.training.outcome import Progress


class Listener:
    """What happens in the trials of a run, as its trackers hear of it.

    While entered, a thread reads once a second what trials have noted of their steps. What a resumed trial does again
    is passed on once.
    """

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers
        self._lock = threading.Lock()
        self._steps: dict[str, StepReader] = {}
        self._running: set[str] = set()
        self._evaluated: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read_on, daemon=True)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int, folder: Path) -> None:
        """A trial was started or restarted at this step; it notes its steps in this folder."""
        self._evaluated[trial] = max(step, self._evaluated.get(trial, 0))
        self._trackers.trial_started(trial, hyperparameters, step)
        with self._lock:
            self._steps.setdefault(trial, StepReader(folder, step))
            self._running.add(trial)

    def evaluated(self, trial: str, progress: Progress) -> None:
        """A trial reported."""
        if progress.step > self._evaluated.get(trial, 0):
            self._evaluated[trial] = progress.step
            self._read(trial)
            self._trackers.metrics(trial, progress.step, progress.metrics)

    def ended(self, trial: str, reason: StopReason | None) -> None:
        """A trial ended; without a reason it will be gone on with by the next command, and its end is not told."""
        self._read(trial)
        with self._lock:
            self._running.discard(trial)
        if reason is not None:
            self._trackers.trial_ended(trial, reason)

    def _read_on(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            with self._lock:
                running = tuple(self._running)
            for trial in running:
                self._read(trial)

    def _read(self, trial: str) -> None:
        with self._lock:
            if trial not in self._running:
                return
            try:
                rows = self._steps[trial].new()
            except (OSError, DataError) as error:
                say(f"The steps of {trial} cannot be read: {error}. Its training is not affected.")
                self._running.discard(trial)
                return
            for row in rows:
                self._trackers.step(trial, row.step, row.metrics)
