"""A tracker that remembers what it was told."""

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.core.records import StopReason
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training import trackers


class Watching:
    """Has every call in `calls`, as the method's name and its arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def run_started(self, run: RunInfo) -> None:
        self.calls.append(("run_started", run))

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        self.calls.append(("trial_started", trial, dict(hyperparameters), step))

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        self.calls.append(("step", trial, step, dict(values)))

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        self.calls.append(("metrics", trial, step, dict(values)))

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        self.calls.append(("trial_ended", trial, reason))

    def run_ended(self) -> None:
        self.calls.append(("run_ended",))

    def of(self, method: str) -> list[list[Any]]:
        """The arguments of all calls of one method."""
        return [arguments for name, *arguments in self.calls if name == method]


def watch(monkeypatch: pytest.MonkeyPatch) -> Watching:
    """One more tracker in the table."""
    watching = Watching()
    monkeypatch.setattr(trackers, "TRACKERS", (*trackers.TRACKERS, lambda: watching))
    return watching
