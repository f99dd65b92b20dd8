"""From the trainer's log to Ray Train: one report with a checkpoint per evaluation, and the decision to stop."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from orchestrator.core.files import write_text_atomic
from orchestrator.core.patience import DIVERGED_LOSS, Decision, decide
from orchestrator.core.records import EvalPoint, JsonObject, Record

TOKENS = "tokens"
"""Key of the trainer's log under which the tokens trained on so far stand."""


def curve_of(log_history: Sequence[JsonObject]) -> list[EvalPoint]:
    """Eval losses by step, each with the latest training loss before it."""
    curve: list[EvalPoint] = []
    train_loss: float | None = None
    for entry in log_history:
        train_loss = entry.get("loss", train_loss)
        if "eval_loss" in entry:
            curve.append(EvalPoint(step=entry["step"], eval_loss=entry["eval_loss"], train_loss=train_loss))
    return curve


def tokens_of(log_history: Sequence[JsonObject]) -> int:
    """Tokens trained on up to the latest entry that says so."""
    return next((entry[TOKENS] for entry in reversed(log_history) if TOKENS in entry), 0)


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


class ReportToRay(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Reports each evaluation with its checkpoint; every rank calls `report` equally often, rank 0 uploads.

    All ranks see the same averaged losses, so they decide alike.
    """

    def __init__(self, *, patience: int | None) -> None:
        self._patience = patience
        self._diverged = False
        self._tokens_before = 0

    def on_train_begin(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Go on counting tokens where the checkpoint, if the job goes on from one, left off."""
        self._tokens_before = tokens_of(state.log_history)
        return control

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
        """Count tokens, and stop at once when the training loss is not finite."""
        # TRL counts what it feeds the model without padding (its attention mask), but from 0 after every start.
        counted = logs.get("num_tokens", logs.get("eval_num_tokens"))
        if counted is not None:
            state.log_history[-1][TOKENS] = self._tokens_before + int(counted)
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
            self._report(metrics, curve, tokens_of(state.log_history), folder)
        if decision is not Decision.CONTINUE:
            control.should_training_stop = True
        return control

    def _report_divergence(self, state: TrainerState) -> None:
        self._diverged = True
        curve = [point for point in curve_of(state.log_history) if math.isfinite(point.eval_loss)]
        metrics = {"step": state.global_step, "eval_loss": DIVERGED_LOSS, "diverged": True}
        self._report(metrics, curve, tokens_of(state.log_history), None)

    def _report(self, metrics: JsonObject, curve: list[EvalPoint], tokens: int, folder: Path | None) -> None:
        uploads = folder is not None and ray.train.get_context().get_world_rank() == 0
        ray.train.report(
            {**metrics, "curve": [point.model_dump() for point in curve], "tokens": tokens},
            checkpoint=ray.train.Checkpoint.from_directory(folder) if uploads else None,
        )
