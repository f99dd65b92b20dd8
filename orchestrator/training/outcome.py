"""A training job's results on disk: its progress, its curve, its best checkpoint, and the trial's record."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import ray.train

from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.patience import Decision, decide
from orchestrator.core.records import EvalPoint, JsonObject, Record, StopReason, TrialRecord, TrialStatus
from orchestrator.models.adapters import keep_adapter
from orchestrator.models.base import base_folder, load_tokenizer
from orchestrator.run.paths import RunDir
from orchestrator.training.plan import TrainPlan

STATUS_OF: dict[StopReason, TrialStatus] = {
    "finished": "completed",
    "lagging": "stopped_early",
    "no_improvement": "stopped_early",
    "diverged": "diverged",
    "failed": "failed",
}
"""How a trial ended, by why."""


class Progress(Record):
    """How far a training job is: written by Ray's controller, read by whoever follows or collects the job.

    `tokens` are those trained on in the `step` steps, padding not counted. Ray Train itself forgets metrics that come
    without a checkpoint, and those of checkpoints it deletes.
    """

    step: int
    diverged: bool
    curve: tuple[EvalPoint, ...]
    tokens: int = 0


class RecordProgress(ray.train.UserCallback):  # type: ignore[misc]  # ray ships no types for it
    """Keeps the latest report of a job in `path`, whatever happens to the job afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_report(self, run_context: Any, metrics: list[JsonObject], checkpoint: Any) -> None:  # noqa: ARG002
        """Called by Ray's controller with one metrics object per worker; they agree on what is kept here."""
        content = {key: metrics[0][key] for key in ("step", "diverged", "curve", "tokens")}
        write_text_atomic(self._path, json.dumps(content) + "\n")


class TrainedTrial(NamedTuple):
    """What a training job left in its storage folder; `best` and its checkpoint are None when nothing was saved.

    `steps` and `tokens` are those of its last report.
    """

    curve: tuple[EvalPoint, ...]
    diverged: bool
    best: EvalPoint | None
    best_checkpoint: Path | None
    steps: int = 0
    tokens: int = 0


def read_trial(storage: Path, name: str) -> TrainedTrial:
    """What the job `name` reported, also when it was stopped or died."""
    path = progress_path(storage, name)
    if not path.is_file():
        return TrainedTrial((), diverged=False, best=None, best_checkpoint=None)
    progress = parse_line(path.read_text(encoding="utf-8"), Progress, where=str(path))
    best, folder = _best_checkpoint(storage / name)
    return TrainedTrial(progress.curve, progress.diverged, best, folder, progress.step, progress.tokens)


def _best_checkpoint(folder: Path) -> tuple[EvalPoint | None, Path | None]:
    if not (folder / "checkpoint_manager_snapshot.json").is_file():
        return None, None
    saved = ray.train.Result.from_path(str(folder)).best_checkpoints
    if not saved:
        return None, None
    checkpoint, metrics = min(saved, key=lambda pair: float(pair[1]["eval_loss"]))
    point = next(point for point in metrics["curve"] if point["step"] == metrics["step"])
    return EvalPoint.model_validate(point), Path(checkpoint.path)


def progress_path(storage: Path, name: str) -> Path:
    """Where the job `name` keeps its `Progress`."""
    return storage / name / "progress.json"


def keep_best(trial: TrainedTrial, run: RunDir, plan: TrainPlan, record: TrialRecord) -> TrialRecord:
    """Copy the trial's best adapter into the run, if it saved one. Returns the record with the adapter's id."""
    if record.best_step is None or trial.best_checkpoint is None:
        return record
    tokenizer = load_tokenizer(base_folder(plan.model), trust_remote_code=plan.model.trust_remote_code)
    adapter = keep_adapter(
        trial.best_checkpoint, run, record, base=plan.model.base, chat_template=str(tokenizer.chat_template)
    )
    return record.model_copy(update={"adapter_id": adapter.id})


def describe_trial(
    trial: TrainedTrial, plan: TrainPlan, *, trial_id: str, duration_s: float | None, error: str | None
) -> TrialRecord:
    """The line of `trials.jsonl` for a trial, before any adapter of it is kept. A diverged trial has no best."""
    reason = stop_reason(trial, plan, failed=error is not None)
    status = STATUS_OF[reason]
    usable = trial.best if status in ("completed", "stopped_early") else None
    return TrialRecord(
        trial_id=trial_id,
        status=status,
        hyperparameters=plan.hyperparameters,
        curve=trial.curve,
        best_eval_loss=usable.eval_loss if usable else None,
        best_step=usable.step if usable else None,
        adapter_id=None,
        duration_s=duration_s,
        error=error,
        steps=trial.steps,
        tokens=trial.tokens,
        device_s=None if duration_s is None else duration_s * plan.num_workers,
        stop_reason=reason,
    )


def stop_reason(trial: TrainedTrial, plan: TrainPlan, *, failed: bool) -> StopReason:
    """Why a trial ended. One that stopped before its last step without running out of patience was stopped for lagging.

    Args:
        trial: What the trial left.
        plan: What it was asked to do.
        failed: Whether an error ended it.
    """
    if trial.diverged:
        return "diverged"
    if failed:
        return "failed"
    if trial.curve and trial.curve[-1].step >= plan.max_steps:
        return "finished"
    losses = [point.eval_loss for point in trial.curve]
    if losses and decide(losses, plan.train.early_stopping_patience) is Decision.STOP:
        return "no_improvement"
    return "lagging"
