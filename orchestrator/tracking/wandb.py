"""Weights & Biases: a group for the whole search, each trial a run of it.

Without a key in WANDB_API_KEY (or from `wandb login`), and without WANDB_MODE, runs are written offline.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from orchestrator.core.records import JsonObject
from orchestrator.run.paths import RunDir
from orchestrator.tracking.events import Measured, Run, Scored, TrialBegan, TrialEnded, tagged
from orchestrator.tracking.project import PROJECT

STEP = "step"
"""The axis of all curves. W&B's own step refuses to go back, as a trial does that resumes."""
REPORT = "report"


class WeightsAndBiases:
    """Logs to W&B, or to `tracking/wandb` in the run's folder for `wandb sync`."""

    notice = ""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._trials: dict[str, Any] = {}
        self._folder = RunDir(run.folder).tracking
        self._is_online = "WANDB_MODE" in os.environ or wandb.login(prompt=False, verify=False)
        if not self._is_online:
            self.notice = (
                f"W&B has no key in WANDB_API_KEY: its runs are written to {self._folder / 'wandb'}, for `wandb sync`."
            )

    def trial_began(self, event: TrialBegan) -> None:
        """Begin the trial's run, or go on with it."""
        self._trials[event.trial] = self._open(event.trial, {**event.hyperparameters, "run": self._run.config})

    def measured(self, event: Measured) -> None:
        """Log the values."""
        self._trial(event.trial).log({**tagged(event.values), STEP: event.step, "_timestamp": event.at})

    def trial_ended(self, event: TrialEnded) -> None:
        """End the trial's run."""
        run = self._trial(event.trial)
        del self._trials[event.trial]
        run.summary["ended"] = event.reason
        run.finish(exit_code=int(event.reason == "failed"))

    def scored(self, event: Scored) -> None:
        """Put the scores into the summary of the trial's run; the base has a run of its own."""
        run = self._open(event.trial, None)
        run.summary.update(event.tagged)
        run.finish()

    def reported(self, files: Sequence[Path]) -> None:
        """Keep the files as an artifact."""
        run = self._open(REPORT, None)
        artifact = wandb.Artifact(f"report-{self._run.key}", type=REPORT)
        for file in files:
            artifact.add_file(str(file))
        run.log_artifact(artifact)
        run.finish()

    def close(self) -> None:
        """End what is open, as interrupted."""
        for run in self._trials.values():
            run.finish(exit_code=1)

    def _trial(self, trial: str) -> Any:
        if trial not in self._trials:  # it began before a failure
            self._trials[trial] = self._open(trial, None)
        return self._trials[trial]

    def _open(self, trial: str, config: JsonObject | None) -> Any:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self._run.trial_key(trial),
            name=f"{self._run.name}/{trial}",
            group=f"{self._run.name}-{self._run.key}",
            config=config,
            mode=None if self._is_online else "offline",
            resume="allow" if self._is_online else None,
            reinit="create_new",
            settings=wandb.Settings(
                root_dir=str(self._folder), console="off", silent=True, disable_git=True, x_disable_stats=True
            ),
        )
        run.define_metric("*", step_metric=STEP)
        return run
