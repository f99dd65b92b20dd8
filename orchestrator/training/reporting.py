"""From the trainer's log to Ray Train: one report with a checkpoint per evaluation, and the decision to stop."""

import json
import math
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any

import ray.train
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from orchestrator.records import EvalPoint, JsonObject, Record
from orchestrator.runs import write_text_atomic

DIVERGED_LOSS = 1e9
"""Eval loss reported for a diverged trial: finite, because schedulers and samplers mishandle NaN, and never best."""


class Decision(Enum):
    """What to do after an evaluation."""

    CONTINUE = auto()
    STOP = auto()
    DIVERGED = auto()


def decide(eval_losses: Sequence[float], patience: int | None) -> Decision:
    """Stop after `patience` evaluations without a better eval loss (None: never), at once when it is not finite."""
    if not math.isfinite(eval_losses[-1]):
        return Decision.DIVERGED
    since_best = len(eval_losses) - 1 - eval_losses.index(min(eval_losses))
    return Decision.STOP if patience is not None and since_best >= patience else Decision.CONTINUE


def curve_of(log_history: Sequence[JsonObject]) -> list[EvalPoint]:
    """Eval losses by step, each with the latest training loss before it."""
    curve: list[EvalPoint] = []
    train_loss: float | None = None
    for entry in log_history:
        train_loss = entry.get("loss", train_loss)
        if "eval_loss" in entry:
            curve.append(EvalPoint(step=entry["step"], eval_loss=entry["eval_loss"], train_loss=train_loss))
    return curve


class Progress(Record):
    """How far a training job is: written by Ray's controller, read by whoever follows or collects the job.

    Ray Train itself forgets metrics that come without a checkpoint, and those of checkpoints it deletes.
    """

    step: int
    diverged: bool
    curve: tuple[EvalPoint, ...]


class RecordProgress(ray.train.UserCallback):  # type: ignore[misc]  # ray ships no types for it
    """Keeps the latest report of a job in `path`, whatever happens to the job afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def after_report(self, run_context: Any, metrics: list[JsonObject], checkpoint: Any) -> None:  # noqa: ARG002
        """Called by Ray's controller with one metrics object per worker; they agree on what is kept here."""
        content = {key: metrics[0][key] for key in ("step", "diverged", "curve")}
        write_text_atomic(self._path, json.dumps(content) + "\n")


class ReportToRay(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Reports each evaluation with its checkpoint; every rank calls `report` equally often, rank 0 uploads.

    All ranks see the same averaged losses, so they decide alike.
    """

    def __init__(self, *, patience: int | None) -> None:
        self._patience = patience
        self._diverged = False

    def on_step_end(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Evaluate and save the last step too, whatever the cadence."""
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = True
        return control

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: JsonObject, **_: Any
    ) -> TrainerControl:
        """Stop at once when the training loss is not finite."""
        if not math.isfinite(logs.get("loss", 0.0)) and not self._diverged:
            self._report_divergence(state)
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Report the evaluation that was just saved, and stop if it says so."""
        curve = curve_of(state.log_history)
        decision = decide([point.eval_loss for point in curve], self._patience)
        if decision is Decision.DIVERGED:
            self._report_divergence(state)
        else:
            metrics = {"step": state.global_step, "eval_loss": curve[-1].eval_loss, "diverged": False}
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._report(metrics, curve, folder)
        if decision is not Decision.CONTINUE:
            control.should_training_stop = True
        return control

    def _report_divergence(self, state: TrainerState) -> None:
        self._diverged = True
        curve = [point for point in curve_of(state.log_history) if math.isfinite(point.eval_loss)]
        self._report({"step": state.global_step, "eval_loss": DIVERGED_LOSS, "diverged": True}, curve, None)

    def _report(self, metrics: JsonObject, curve: list[EvalPoint], folder: Path | None) -> None:
        uploads = folder is not None and ray.train.get_context().get_world_rank() == 0
        ray.train.report(
            {**metrics, "curve": [point.model_dump() for point in curve]},
            checkpoint=ray.train.Checkpoint.from_directory(folder) if uploads else None,
        )
