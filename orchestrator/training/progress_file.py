"""Keeps `progress.json` of a run true while its trials train."""

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.core.records import EvalPoint, StopReason
from orchestrator.run.paths import RunDir
from orchestrator.run.progress import TrialState, note_progress
from orchestrator.tracking.tracker import RunInfo

SHOWN = ("epoch", "loss", "learning_rate", "grad_norm", "token_accuracy", "tokens_per_s", "memory_bytes")
"""Metrics of a step that a trial's state has."""


class ProgressFile:
    """A tracker of the run's state: at most one write a second, but for beginnings and ends."""

    def run_started(self, run: RunInfo) -> None:
        """Begin with no trials."""
        self._run, self._info = RunDir(run.folder), run
        self._trials: dict[str, TrialState] = {}
        self._write(at_once=True)

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        """Add the trial, or have it run again."""
        known = self._trials.get(trial) or TrialState(
            trial=trial, status="running", hyperparameters=dict(hyperparameters), step=step
        )
        self._change(known, at_once=True, status="running")

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Note the step."""
        shown: dict[str, Any] = {name: _finite(values[name]) for name in SHOWN if name in values}
        self._change(self._trials[trial], step=step, **shown)

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Note the evaluation."""
        known, loss = self._trials[trial], _finite(values["eval_loss"])
        curve = known.curve
        if loss is not None:
            curve = (*curve, EvalPoint(step=step, eval_loss=loss, train_loss=_finite(values.get("train_loss"))))
        self._change(known, step=max(step, known.step), curve=curve)

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        """Note why."""
        self._change(self._trials[trial], at_once=True, status=reason)

    def run_ended(self) -> None:
        """Leave the latest state."""
        self._write(at_once=True)

    def _change(self, trial: TrialState, *, at_once: bool = False, **changes: Any) -> None:
        self._trials[trial.trial] = trial.model_copy(update=changes)
        self._write(at_once=at_once)

    def _write(self, *, at_once: bool) -> None:
        trials = tuple(self._trials.values())
        total = self._info.num_trials * self._info.max_steps
        ended = self._info.num_ended + sum(trial.status != "running" for trial in trials)
        running = [trial for trial in trials if trial.status == "running"]
        done = ended * self._info.max_steps + sum(trial.step for trial in running)
        furthest = max(running or trials, key=lambda trial: trial.step, default=None)
        note_progress(
            self._run,
            at_once=at_once,
            step=self._info.num_ended * self._info.max_steps + sum(trial.step for trial in trials),
            total=total,
            fraction=min(1.0, done / total) if total else None,
            loss=furthest and furthest.loss,
            epoch=furthest and furthest.epoch,
            num_trials=self._info.num_trials,
            trials=trials,
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
