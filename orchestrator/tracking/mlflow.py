"""MLflow: a run for the whole search, each trial a child of it.

The server is that of MLFLOW_TRACKING_URI, else a database beside the runs, which `mlflow ui` opens.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_PARAMS_TAGS_PER_BATCH

from orchestrator.tracking.events import Measured, Run, Scored, TrialBegan, TrialEnded, tagged
from orchestrator.tracking.project import PROJECT, flat

KEY = "orchestrator.key"
"""The tag by which a resumed run finds what it began."""
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"


class MLflow:
    """Logs to an MLflow tracking server or store."""

    notice = ""

    def __init__(self, run: Run) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if uri is None:
            storage = run.folder.parent
            uri, artifacts = f"sqlite:///{storage / 'mlflow.db'}", (storage / "mlartifacts").as_uri()
        self._client = mlflow.MlflowClient(uri)
        self._run = run
        self._experiment = self._experiment_id(os.environ.get(EXPERIMENT, PROJECT), artifacts)
        self._runs: dict[str, str] = {}
        self._open: set[str] = set()
        self._parent = self._run_id(run.key, run.name, {})
        self._client.update_run(self._parent, status="RUNNING")
        self._log_params(self._parent, flat(run.config))

    def trial_began(self, event: TrialBegan) -> None:
        """Begin a child run, or go on with it."""
        run_id = self._trial(event.trial)
        self._client.update_run(run_id, status="RUNNING")
        self._open.add(run_id)
        self._log_params(run_id, {name: str(value) for name, value in event.hyperparameters.items()})

    def measured(self, event: Measured) -> None:
        """Log each value at its step."""
        self._log(self._trial(event.trial), tagged(event.values), event.step, at=event.at)

    def trial_ended(self, event: TrialEnded) -> None:
        """End the child run."""
        run_id = self._trial(event.trial)
        self._client.set_tag(run_id, "ended", event.reason)
        self._client.set_terminated(run_id, "FAILED" if event.reason == "failed" else "FINISHED")
        self._open.discard(run_id)

    def scored(self, event: Scored) -> None:
        """Log the scores with the child run; the base has one of its own."""
        run_id = self._trial(event.trial)
        self._log(run_id, event.tagged, event.step)
        self._client.set_terminated(run_id)

    def reported(self, files: Sequence[Path]) -> None:
        """Keep the files as artifacts of the parent."""
        for file in files:
            self._client.log_artifact(self._parent, str(file), "report")

    def close(self) -> None:
        """End the parent. A trial that has not ended was interrupted, and goes on when the run does."""
        for run_id in self._open:
            self._client.set_terminated(run_id, "KILLED")
        self._client.set_terminated(self._parent, "KILLED" if self._open else "FINISHED")

    def _experiment_id(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another run was faster
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _trial(self, trial: str) -> str:
        key = self._run.trial_key(trial)
        return self._run_id(key, f"{self._run.name}/{trial}", {MLFLOW_PARENT_RUN_ID: self._parent})

    def _run_id(self, key: str, name: str, tags: dict[str, str]) -> str:
        if key not in self._runs:
            found = self._client.search_runs([self._experiment], filter_string=f"tags.`{KEY}` = '{key}'")
            if found:
                self._runs[key] = found[0].info.run_id
            else:
                tags = {**tags, KEY: key, MLFLOW_RUN_NAME: name}
                self._runs[key] = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        return self._runs[key]

    def _log(self, run_id: str, values: dict[str, float], step: int, at: float | None = None) -> None:
        when = int(1000 * (time.time() if at is None else at))
        self._client.log_batch(run_id, metrics=[Metric(name, value, when, step) for name, value in values.items()])

    def _log_params(self, run_id: str, params: dict[str, str]) -> None:
        """Log those that the run does not have: MLflow lets none be changed."""
        known = self._client.get_run(run_id).data.params
        new = [Param(name, value[:MAX_PARAM_VAL_LENGTH]) for name, value in params.items() if name not in known]
        for start in range(0, len(new), MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(run_id, params=new[start : start + MAX_PARAMS_TAGS_PER_BATCH])
