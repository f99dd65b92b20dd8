"""What a worker tells of its training: each step in the trial's file, each evaluation to Ray Train."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from orchestrator.core import gate
from orchestrator.core.records import DIVERGED_LOSS, EvalPoint, JsonObject, reason_to_stop
from orchestrator.core.steps import StepLog, StepRow
from orchestrator.core.watchdog import Watchdog
from orchestrator.models.memory import memory_peak
from orchestrator.run.happened import note

HOLD_S = 60.0
"""Seconds at a rung after which a job ends to free its devices; it goes on from its checkpoint."""
TOKENS = "tokens"
"""Key in the trainer's log for the tokens trained on so far."""


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


class Hold:
    """The rungs of a trial, at which all ranks wait until the search has said at its gate whether it goes on."""

    def __init__(self, folder: Path, rungs: tuple[int, ...]) -> None:
        self._folder, self._rungs = folder, rungs

    def is_at(self, step: int) -> bool:
        """Whether nothing trains past this step before the search says so."""
        return step in self._rungs

    def ends(self, step: int) -> bool:
        """Whether the job ends here: it is stopped, or held for so long that others should have its devices."""
        first = ray.train.get_context().get_world_rank() == 0
        said = gate.wait_for_answer(self._folder, step, patience_s=HOLD_S) if first else None
        return ray.train.collective.broadcast_from_rank_zero(said) is not True


class ReportToRay(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Notes each step in `folder`, and reports each evaluation with its checkpoint.

    Every rank calls `report` equally often, rank 0 uploads, and it alone has a folder. All ranks see the same averaged
    losses, so they decide alike. At the rungs of `hold` they wait for the search.
    """

    def __init__(self, folder: Path | None, *, patience: int | None, hold: Hold | None = None) -> None:
        self._folder, self._patience, self._hold = folder, patience, hold
        self._log: StepLog | None = None
        self._diverged = False
        self._tokens_before = 0
        self._losses: list[float] = []
        self._began = 0.0
        self._watchdog: Watchdog | None = None

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Go on counting steps and tokens where the checkpoint, if there is one, left off."""
        self._tokens_before = tokens_of(state.log_history)
        if self._folder is not None:
            self._log = StepLog(self._folder, state.global_step)
        if self._hold is not None and self._hold.is_at(state.global_step):
            curve = curve_of(state.log_history)
            self._tell(state, curve[-1].eval_loss, curve, diverged=False)  # the last process may have died unheard
            control.should_training_stop |= self._hold.ends(state.global_step)

    def on_step_begin(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Start the step's clock."""
        self._began = time.monotonic()
        self._is_alive()

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        """A batch was evaluated."""
        self._is_alive()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Nothing more is expected of this process."""
        if self._watchdog is not None:
            self._watchdog.rest()

    def _is_alive(self) -> None:
        if self._watchdog is None:
            self._watchdog = Watchdog(self._hung)
        self._watchdog.beat()

    def _hung(self, silent_s: float) -> None:
        if self._folder is not None:
            note(
                self._folder,
                f"{self._folder.name}: a worker hung, with no step ended for {silent_s:.0f} s. It was ended.",
            )

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate and save the last step too, whatever the cadence."""
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = True

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: JsonObject, **_: Any
    ) -> None:
        """Count tokens, note the step, and stop at once when the training loss is not finite."""
        entry = state.log_history[-1]
        # TRL counts what it feeds the model without padding (its attention mask), but from 0 after every start.
        counted = logs.get("num_tokens", logs.get("eval_num_tokens"))
        before = tokens_of(state.log_history)
        if counted is not None:
            entry[TOKENS] = self._tokens_before + int(counted)
        if "eval_loss" in logs and self._losses:
            entry["loss"] = sum(self._losses) / len(self._losses)
            self._losses = []
        if "loss" not in logs:
            return
        self._losses.append(logs["loss"])
        if _is_step(state.log_history[-2:-1]):  # the trainer's state is saved with every checkpoint
            del state.log_history[-2]
        if self._log is not None:
            self._log.add(
                _row(state, logs, tokens=entry[TOKENS], before=before, seconds=time.monotonic() - self._began)
            )
        if not math.isfinite(logs["loss"]) and not self._diverged:
            self._report_divergence(state)
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report the evaluation that was just saved, and stop if it says so."""
        curve = curve_of(state.log_history)
        reason = reason_to_stop([point.eval_loss for point in curve], self._patience)
        if reason == "diverged":
            self._report_divergence(state)
        else:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._report(state, curve[-1].eval_loss, curve, folder)
        control.should_training_stop |= reason is not None
        if reason is None and self._hold is not None and self._hold.is_at(state.global_step):
            self.on_train_end()  # it may wait for as long as it takes
            control.should_training_stop |= self._hold.ends(state.global_step)

    def _report_divergence(self, state: TrainerState) -> None:
        self._diverged = True
        curve = [point for point in curve_of(state.log_history) if math.isfinite(point.eval_loss)]
        self._report(state, DIVERGED_LOSS, curve, None)

    def _report(self, state: TrainerState, eval_loss: float, curve: list[EvalPoint], folder: Path | None) -> None:
        if self._log is not None:
            self._log.flush()
        self._tell(state, eval_loss, curve, diverged=folder is None, folder=folder)

    def _tell(
        self,
        state: TrainerState,
        eval_loss: float,
        curve: list[EvalPoint],
        *,
        diverged: bool,
        folder: Path | None = None,
    ) -> None:
        uploads = folder is not None and ray.train.get_context().get_world_rank() == 0
        metrics = {
            "step": state.global_step,
            "eval_loss": eval_loss,
            "diverged": diverged,
            "curve": [point.model_dump() for point in curve],
            "tokens": tokens_of(state.log_history),
        }
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder) if uploads else None)


def _is_step(entries: Sequence[JsonObject]) -> bool:
    return any("loss" in entry and "eval_loss" not in entry for entry in entries)


def _row(state: TrainerState, logs: JsonObject, *, tokens: int, before: int, seconds: float) -> StepRow:
    return StepRow(
        step=state.global_step,
        at=time.time(),
        loss=logs["loss"],
        learning_rate=logs["learning_rate"],
        grad_norm=logs.get("grad_norm"),
        token_accuracy=logs.get("mean_token_accuracy"),
        tokens=tokens,
        tokens_per_s=(tokens - before) / max(seconds, 1e-6),  # a clock may not have moved
        memory_bytes=memory_peak(),
        epoch=state.epoch,
    )
