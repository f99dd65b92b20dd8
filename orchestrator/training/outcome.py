"""A training job's results on disk: its progress, its curve, its best checkpoint, and the trial's record."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import ray.train

from orchestrator.chat.template import served_template
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.records import EvalPoint, Record, StopReason, TrialRecord, TrialStatus, reason_to_stop
from orchestrator.core.steps import read_steps
from orchestrator.models.adapters import keep_adapter
from orchestrator.models.base import BaseWeights, base_folder, base_tokenizer
from orchestrator.run.deaths import last_line, why_it_died
from orchestrator.run.happened import note
from orchestrator.run.paths import RunDir
from orchestrator.training.plan import TrainPlan

STATUS_OF: dict[StopReason, TrialStatus] = {
    "finished": "completed",
    "lagging": "stopped_early",
    "no_improvement": "stopped_early",
    "diverged": "diverged",
    "failed": "failed",
}
"""A trial's status, by its stop reason."""
PROGRESS = "progress.json"


class Progress(Record):
    """How far a training job is: written by Ray's controller, read by whoever follows or collects the job.

    `tokens` are those trained on so far, without padding; 0 where unknown. Ray Train itself forgets metrics reported
    without a checkpoint, and those of checkpoints it deletes.
    """

    step: int
    diverged: bool
    curve: tuple[EvalPoint, ...]
    tokens: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """The latest evaluation, as trackers hear of it."""
        if self.diverged or not self.curve:
            return {"eval_loss": math.nan}
        last = self.curve[-1]
        values = {"eval_loss": last.eval_loss, "train_loss": last.train_loss, "tokens": float(self.tokens) or None}
        return {name: value for name, value in values.items() if value is not None}


class RecordProgress(ray.train.UserCallback):  # type: ignore[misc]  # ray ships no types for it
    """Keeps the latest report of the job with this folder, whatever becomes of the job, and notes what befell it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Called by Ray's controller before it starts the workers again, or gives up."""
        before = read_progress(self._path.parent)
        step = before.step if before else 0
        for rank, error in sorted(worker_exceptions.items()):
            why = why_it_died(error) or last_line(error)
            since = f"after the evaluation of step {step}" if step else "before the first evaluation"
            note(self._path.parent, f"{self._path.parent.name}: worker {rank} ended {since} ({why}).")

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """Called by Ray's controller with one metrics object per worker; workers agree on what is kept here."""
        content = {key: metrics[0][key] for key in Progress.model_fields}
        write_text_atomic(self._path, json.dumps(content) + "\n")


class TrainedTrial(NamedTuple):
    """What a trial left on disk; `best` and its checkpoint are None when nothing was saved.

    `steps` and `tokens` are those of its last report. `device_s`: its share of a device that it shared with others.
    `memory_bytes` is the most that its process held.
    """

    curve: tuple[EvalPoint, ...]
    diverged: bool
    best: EvalPoint | None
    best_checkpoint: Path | None
    steps: int = 0
    tokens: int = 0
    device_s: float | None = None
    memory_bytes: int | None = None


def memory_of(folder: Path) -> int | None:
    """The most bytes that the process of the trial in this folder held, None where its steps do not say."""
    return max((row.memory_bytes for row in read_steps(folder)), default=None)


def read_trial(storage: Path, name: str) -> TrainedTrial:
    """What the job `name` reported, even if it was stopped or died."""
    progress = read_progress(storage / name)
    if progress is None:
        return TrainedTrial((), diverged=False, best=None, best_checkpoint=None)
    best, folder = _best_checkpoint(storage / name)
    memory = memory_of(storage / name)
    return TrainedTrial(
        progress.curve, progress.diverged, best, folder, progress.step, progress.tokens, memory_bytes=memory
    )


def _best_checkpoint(folder: Path) -> tuple[EvalPoint | None, Path | None]:
    if not (folder / "checkpoint_manager_snapshot.json").is_file():
        return None, None
    saved = ray.train.Result.from_path(str(folder)).best_checkpoints
    if not saved:
        return None, None
    checkpoint, metrics = min(saved, key=lambda pair: float(pair[1]["eval_loss"]))
    point = next(point for point in metrics["curve"] if point["step"] == metrics["step"])
    return EvalPoint.model_validate(point), Path(checkpoint.path)


def read_progress(folder: Path) -> Progress | None:
    """How far the job with this folder is, None before its first report."""
    path = folder / PROGRESS
    return parse_line(path.read_text(encoding="utf-8"), Progress, where=str(path)) if path.is_file() else None


def keep_best(trial: TrainedTrial, run: RunDir, plan: TrainPlan, record: TrialRecord) -> TrialRecord:
    """Copy the trial's best adapter, if any, into the run. Returns the record with the adapter's id."""
    if record.best_step is None or trial.best_checkpoint is None:
        return record
    folder = base_folder(plan.model)
    tokenizer = base_tokenizer(plan.model)
    tokenizer.chat_template = served_template(str(tokenizer.chat_template), thinking=plan.thinking)
    adapter = keep_adapter(
        trial.best_checkpoint,
        run,
        record,
        model=plan.model,
        tokenizer=tokenizer,
        base_parameters=BaseWeights(folder).num_parameters(),
    )
    return record.model_copy(update={"adapter_id": adapter.id})


def describe_trial(
    trial: TrainedTrial, plan: TrainPlan, *, trial_id: str, duration_s: float | None, error: str | None
) -> TrialRecord:
    """The trial's line of `trials.jsonl`, before any adapter of it is kept. A diverged trial has no best."""
    reason = stop_reason(trial, plan, failed=error is not None)
    status = STATUS_OF[reason]
    usable = trial.best if status in ("completed", "stopped_early") else None
    device_s = trial.device_s
    if device_s is None and duration_s is not None:
        device_s = duration_s * plan.num_workers
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
        device_s=device_s,
        stop_reason=reason,
        init_from=plan.started_from,
        memory_bytes=trial.memory_bytes,
    )


def stop_reason(trial: TrainedTrial, plan: TrainPlan, *, failed: bool) -> StopReason:
    """Why a trial ended: one that stopped early without running out of patience was stopped for lagging."""
    if trial.diverged:
        return "diverged"
    if failed:
        return "failed"
    if trial.curve and trial.curve[-1].step >= plan.max_steps:
        return "finished"
    losses = [point.eval_loss for point in trial.curve]
    return (losses and reason_to_stop(losses, plan.train.early_stopping_patience)) or "lagging"
