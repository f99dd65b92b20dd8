"""The trials of one engine: admitted to slots, trained together, evaluated, saved, and reported to their clients.

No processes here, and one lock for threads: `SlotScheduler.advance` runs in the thread that owns the engine, everything
else in the threads of callers.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from orchestrator.core.errors import TrainingError
from orchestrator.core.records import DIVERGED_LOSS, EvalPoint, StopReason, reason_to_stop
from orchestrator.core.steps import StepLog
from orchestrator.multi_lora import checkpoint
from orchestrator.multi_lora.engine import MultiLoraEngine, StepResult
from orchestrator.multi_lora.messages import EngineUse, Evaluation, TrialProgress
from orchestrator.multi_lora.sizing import OutOfMemory, attempt, too_large
from orchestrator.multi_lora.slots import SlotSpec, SlotState

AHEAD = 1
"""Evaluations that a trial may be ahead of its client: it trains on while the scheduler decides, but not further."""


@dataclass
class _Trial:
    """An attached trial. Its client may ask for what is `told`, has heard of step `asked`, and asked past `passed`."""

    name: str
    spec: SlotSpec
    folder: Path
    progress: TrialProgress
    steps: StepLog
    told: list[Evaluation] = field(default_factory=list)
    asked: int = 0
    passed: int = 0
    state: SlotState | None = None
    losses: list[float] = field(default_factory=list)

    @property
    def ahead(self) -> int:
        """Evaluations that the client has not heard of."""
        return sum(evaluation.step > self.asked for evaluation in self.told)


class Cadence(NamedTuple):
    """Evaluations of a trial, and what stays of them.

    `eval_steps` are the optimizer steps between two; after `patience` without a better loss the trial stops (None:
    never). The `keep_best` best checkpoints stay, the latest, and those of `kept_steps`. At `rungs` a trial is held
    until its client asks on.
    """

    eval_steps: int
    patience: int | None
    keep_best: int
    kept_steps: tuple[int, ...] = ()
    rungs: tuple[int, ...] = ()


class Occupancy:
    """Slot-seconds used and on offer since the first trial was let in."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] | None = None
        self.so_far = {"busy_slot_s": 0.0, "open_slot_s": 0.0}
        """Up to the last note, as fields of `EngineUse`."""

    def note(self, busy: int, on_offer: int) -> None:
        """From now on `busy` of `on_offer` slots are used."""
        now = time.monotonic()
        if self._last is not None:
            since, was_busy, was_open = self._last
            self.so_far["busy_slot_s"] += was_busy * (now - since)
            self.so_far["open_slot_s"] += was_open * (now - since)
        if busy or self._last is not None:
            self._last = (now, busy, on_offer)


class SlotScheduler:
    """Schedules trials onto the slots of one engine, which has none yet.

    `storage` holds a folder for each trial. `slots` train at once, halved when memory runs out.
    The first step waits until every slot has a trial, or none came for `gather_s` seconds: trials that begin together
    reach their rungs together, so the first ones are compared with more than each other.
    """

    def __init__(
        self,
        engine: MultiLoraEngine,
        storage: Path,
        *,
        slots: int,
        cadence: Cadence,
        gather_s: float = 0.0,
    ) -> None:
        self._engine, self._storage = engine, storage
        self.slots, self._cadence = slots, cadence
        self._trials: dict[str, _Trial] = {}
        self._waiting: deque[str] = deque()
        self._leaving: set[str] = set()
        self._changed = threading.Condition()
        self._failure: TrainingError | None = None
        self._use = EngineUse(slots=slots)
        self._occupancy = Occupancy()
        self._gather_s, self._is_gathering, self._last_came = gather_s, True, 0.0

    def attach(self, name: str, spec: SlotSpec) -> None:
        """Queue a trial for a slot unless it is here already. It resumes from its last evaluation on disk.

        Raises:
            TrainingError: If its checkpoint is damaged or of a trial with other settings.
        """
        with self._changed:
            if name in self._trials and name not in self._leaving:
                return
            while name in self._leaving and self._failure is None:
                self._changed.wait()
            folder = self._storage / name
            progress, state = checkpoint.resume(folder, spec)
            resumes_at = progress.curve[-1].step if progress.curve else 0
            trial = _Trial(
                name,
                spec,
                folder,
                progress,
                StepLog(folder, resumes_at if progress.stop_reason is None else progress.step),
            )
            self._remove_surplus(trial)  # left by an engine that died while it saved
            trial.state = state
            if trial.progress.curve or trial.progress.stop_reason is not None:
                trial.told.append(_evaluation(trial.progress))  # its client may not have heard of it
            self._trials[name] = trial
            if trial.progress.stop_reason is None:
                self._waiting.append(name)
            self._last_came = time.monotonic()
            self._changed.notify_all()

    def detach(self, name: str, *, wait: bool = False) -> None:
        """Free the trial's slot before the next step; with `wait`, return once nothing here touches its folder."""
        with self._changed:
            if name in self._trials:
                self._leaving.add(name)
                self._changed.notify_all()
            while wait and name in self._leaving and self._failure is None:
                self._changed.wait()

    def evaluation_after(self, name: str, step: int, *, patience_s: float) -> Evaluation | None:
        """Wait for the first evaluation of a trial past `step`, the last that its client has heard of.

        Returns:
            The evaluation; None if the trial is still without a slot after `patience_s` seconds.

        Raises:
            TrainingError: If the engine broke, or the trial was detached meanwhile.
        """
        with self._changed:
            gives_up = time.monotonic() + patience_s
            while True:
                if self._failure is not None:
                    raise self._failure
                if name not in self._trials or name in self._leaving:
                    raise TrainingError("the trial was detached while its client waited", where=name)
                trial = self._trials[name]
                trial.asked = max(trial.asked, step)
                if step > trial.passed:
                    trial.passed = step
                    self._changed.notify_all()
                found = next((evaluation for evaluation in trial.told if evaluation.step > step), None)
                if found is not None:
                    trial.asked = found.step
                    self._changed.notify_all()
                    return found
                if name not in self._waiting:
                    self._changed.wait()
                elif not self._changed.wait(max(0.0, gives_up - time.monotonic())):
                    return None

    def use(self) -> EngineUse:
        """Where the engine's time went."""
        with self._changed:
            return self._use

    def fail(self, error: TrainingError) -> None:
        """Raise this error in every client's call from now on."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def wait_for_work(self, timeout_s: float) -> None:
        """Sleep until something changes."""
        started = time.monotonic()
        with self._changed:
            if not self._leaving and (self._must_gather() or not self._enterable()):
                self._changed.wait(timeout_s)
        self._add(waiting_s=time.monotonic() - started)

    def advance(self) -> bool:
        """Free and fill slots, train one step of every slot and evaluate those due. False if nothing was to train.

        Raises:
            TrainingError: If a single row of a single slot does not fit the memory.
        """
        self._let_out()
        if self._must_gather():
            return False
        self._let_in()
        if not self._engine.slots:
            return False
        started = time.monotonic()
        results = attempt(self._engine.train_step)
        if not isinstance(results, OutOfMemory):
            self._count(results, time.monotonic() - started)
            self._evaluate(results)
        elif len(self._engine.slots) > 1:
            self._offer(len(self._engine.slots) // 2)
        else:
            self._halve_micro_batch(results)
        return True

    def _let_out(self) -> None:
        with self._changed:
            for name in self._leaving:
                trial = self._trials.pop(name)
                if name in self._engine.slots:
                    self._engine.evict(name)
                if name in self._waiting:
                    self._waiting.remove(name)
                trial.steps.flush()
                if trial.progress.step:
                    checkpoint.write_progress(trial.folder, trial.progress)
            if self._leaving:
                self._leaving.clear()
                self._changed.notify_all()

    def _let_in(self) -> None:
        self._occupancy.note(len(self._engine.slots), self.slots)
        while len(self._engine.slots) < self.slots:
            with self._changed:
                name = self._enterable()
                if name is None:
                    return
                trial = self._trials[name]
                admitted = attempt(partial(self._engine.admit, name, trial.spec, trial.state))
                if isinstance(admitted, OutOfMemory):
                    if not self._engine.slots:
                        raise too_large(admitted)
                    self._offer(len(self._engine.slots))
                    return
                trial.state = None
                self._waiting.remove(name)
                if not trial.progress.step:  # not one that was parked, or has come from another engine
                    so_far = {"starved_s": self._use.waiting_s, **self._occupancy.so_far}
                    self._use = self._use.model_copy(update=so_far)
            self._occupancy.note(len(self._engine.slots), self.slots)

    def _must_gather(self) -> bool:
        """Whether the first step still waits for more trials; once False, always False."""
        with self._changed:
            if self._is_gathering and self._waiting:
                nobody_for_s = time.monotonic() - self._last_came
                self._is_gathering = len(self._waiting) < self.slots and nobody_for_s < self._gather_s
            return self._is_gathering

    def _enterable(self) -> str | None:
        """The next trial in the queue that may train."""
        return next((name for name in self._waiting if self._may_train(self._trials[name])), None)

    def _may_train(self, trial: _Trial) -> bool:
        """Whether a trial is not too far ahead of its client, nor held at a rung that this has not asked past."""
        at = trial.progress.curve[-1].step if trial.progress.curve else 0
        is_held = at in self._cadence.rungs and trial.passed < at
        return trial.ahead <= AHEAD and not is_held

    def _park(self, name: str) -> None:
        """Take a trial out of its slot; it is the next to get one."""
        trial = self._trials[name]
        trial.state = self._engine.evict(name)
        self._waiting.appendleft(name)

    def _offer(self, slots: int) -> None:
        """Have at most so many slots from now on; the trials in the others wait, with nothing lost."""
        with self._changed:
            self.slots = slots
            for name in reversed(self._engine.slots[slots:]):
                self._park(name)
            self._use = self._use.model_copy(update={"slots": slots})

    def _halve_micro_batch(self, problem: OutOfMemory) -> None:
        if self._engine.micro_batch_size == 1:
            raise too_large(problem)
        self._engine.micro_batch_size //= 2

    def _count(self, results: dict[str, StepResult], seconds: float) -> None:
        total = sum(result.tokens for result in results.values())
        for name, result in results.items():
            trial = self._trials[name]
            trial.losses.append(result.loss)
            self._charge(trial, seconds * result.tokens / total, step=result.step, tokens=result.tokens)
            trial.steps.add(checkpoint.step_row(result, tokens=trial.progress.tokens, seconds=seconds))
        self._add(train_s=seconds, tokens=total, steps=1)

    def _charge(self, trial: _Trial, seconds: float, *, step: int, tokens: int = 0) -> None:
        spent = trial.progress
        trial.progress = spent.model_copy(
            update={"step": step, "tokens": spent.tokens + tokens, "device_s": spent.device_s + seconds}
        )

    def _evaluate(self, results: dict[str, StepResult]) -> None:
        """Evaluate the slots that are due, save them and tell their clients."""
        broken = [
            name for name, its in results.items() if not its.skipped and not math.isfinite(its.loss + its.grad_norm)
        ]
        due = [
            name
            for name, result in results.items()
            if name not in broken
            and (result.step % self._cadence.eval_steps == 0 or result.step >= self._trials[name].spec.max_steps)
        ]
        if not due and not broken:
            return
        started = time.monotonic()
        losses = self._eval_losses(due) if due else {}
        seconds = time.monotonic() - started
        self._add(eval_s=seconds)
        losses |= dict.fromkeys(broken, math.nan)
        for name, loss in losses.items():
            trial = self._trials[name]
            self._charge(trial, seconds / len(due) if name in due else 0.0, step=results[name].step)
            self._conclude(trial, loss)

    def _eval_losses(self, names: Sequence[str]) -> dict[str, float]:
        losses = attempt(partial(self._engine.eval_loss, names))
        if not isinstance(losses, OutOfMemory):
            return losses
        if len(names) == 1:
            self._halve_micro_batch(losses)
            return self._eval_losses(names)
        half = len(names) // 2
        return self._eval_losses(names[:half]) | self._eval_losses(names[half:])

    def _conclude(self, trial: _Trial, loss: float) -> None:
        """Save an evaluation, tell the client, and free the slot if the trial ends or is too far ahead."""
        trial.steps.flush()
        if math.isfinite(loss):
            trial.progress = self._with_point(trial, loss)
            started = time.monotonic()
            folder = checkpoint.step_folder(trial.folder, trial.progress.step)
            checkpoint.save_slot(folder, trial.spec, self._engine.export(trial.name))
            self._add(save_s=time.monotonic() - started)
        else:
            trial.progress = trial.progress.model_copy(update={"stop_reason": "diverged"})
        trial.losses = []
        checkpoint.write_progress(trial.folder, trial.progress)  # names the checkpoints that stay, before the others go
        self._remove_surplus(trial)
        with self._changed:
            trial.told.append(_evaluation(trial.progress))
            if trial.progress.stop_reason is not None:
                self._engine.evict(trial.name)
            elif not self._may_train(trial):
                self._park(trial.name)
            self._changed.notify_all()

    def _remove_surplus(self, trial: _Trial) -> None:
        its = self._cadence
        checkpoint.remove_surplus(trial.folder, trial.progress, limit=its.keep_best, kept_steps=its.kept_steps)

    def _with_point(self, trial: _Trial, loss: float) -> TrialProgress:
        """The trial's progress with this evaluation, and why the trial ends with it, if it does."""
        train_loss = sum(trial.losses) / max(1, len(trial.losses))
        point = EvalPoint(step=trial.progress.step, eval_loss=loss, train_loss=train_loss)
        curve = (*trial.progress.curve, point)
        best = min(curve, key=lambda point: point.eval_loss).step
        reason: StopReason | None = reason_to_stop([point.eval_loss for point in curve], self._cadence.patience)
        if point.step >= trial.spec.max_steps:
            reason = "finished"
        return trial.progress.model_copy(update={"curve": curve, "best_step": best, "stop_reason": reason})

    def _add(self, **amounts: float) -> None:
        with self._changed:
            totals = {key: getattr(self._use, key) + amount for key, amount in amounts.items()}
            self._use = self._use.model_copy(update=totals)


def _evaluation(progress: TrialProgress) -> Evaluation:
    """A trial's latest evaluation, or its divergence, as its client hears of it."""
    diverged = progress.stop_reason == "diverged"
    return Evaluation(
        step=progress.step if diverged else progress.curve[-1].step,
        eval_loss=DIVERGED_LOSS if diverged else progress.curve[-1].eval_loss,
        stop_reason=progress.stop_reason,
        curve=progress.curve,
    )
