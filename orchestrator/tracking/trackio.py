"""trackio: a group for the whole search, each trial a run of it; `trackio show` opens them."""

import os
from collections.abc import Sequence
from contextvars import Context
from pathlib import Path
from typing import Any

import trackio

from orchestrator.core.records import JsonObject
from orchestrator.tracking.events import Measured, Run, Scored, TrialBegan, TrialEnded, tagged
from orchestrator.tracking.project import PROJECT, flat


class Trackio:
    """Logs to trackio's local store, or where its own variables (TRACKIO_SPACE_ID, TRACKIO_SERVER_URL) say."""

    notice = ""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._trials: dict[str, Any] = {}

    def trial_began(self, event: TrialBegan) -> None:
        """Begin the trial's run, or go on with it."""
        self._trials[event.trial] = self._open(event.trial, {**event.hyperparameters, **flat(self._run.config)})

    def measured(self, event: Measured) -> None:
        """Log the values."""
        self._trial(event.trial).log(tagged(event.values), step=event.step)

    def trial_ended(self, event: TrialEnded) -> None:
        """End the trial's run."""
        self._trial(event.trial).finish()
        del self._trials[event.trial]

    def scored(self, event: Scored) -> None:
        """Log the scores with the trial's run; the base has a run of its own."""
        run = self._open(event.trial, None)
        run.log(event.tagged, step=event.step)
        run.finish()

    def reported(self, files: Sequence[Path]) -> None:
        """Keep the files as artifacts."""
        run = self._open("report", None)
        for file in files:
            run.log_artifact(file, name=f"{self._run.trial_key('report')}-{file.stem}", type="report")
        run.finish()

    def close(self) -> None:
        """End what is open."""
        for run in self._trials.values():
            run.finish()

    def _trial(self, trial: str) -> Any:
        if trial not in self._trials:  # it began before a failure
            self._trials[trial] = self._open(trial, None)
        return self._trials[trial]

    def _open(self, trial: str, config: JsonObject | None) -> Any:
        # In one context a new run would end the one before it.
        return Context().run(
            trackio.init,
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{self._run.name}/{trial} {self._run.key}",
            group=self._run.name,
            config=config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
