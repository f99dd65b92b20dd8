"""A trial that is a Ray Train job of its own, as Ray Tune runs it."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.core import gate
from orchestrator.core.records import DIVERGED_LOSS, JsonObject, reason_to_stop
from orchestrator.search.names import HYPERPARAMETERS, storage_name
from orchestrator.training.launch import build_trainer, fit
from orchestrator.training.outcome import Progress, read_progress
from orchestrator.training.plan import TrainPlan


def isolated_trainable(plan: TrainPlan, storage: Path, *, concurrent: int, rungs: tuple[int, ...]) -> Any:
    """The Tune trainable that trains `plan` with the trial's hyperparameters.

    `concurrent` such jobs run side by side. One that is held at one of the `rungs` for long ends there, which frees its
    devices, and goes on from its checkpoint once it may.
    """

    def train_trial(config: JsonObject) -> None:
        chosen = plan.with_hyperparameters(config[HYPERPARAMETERS])
        name = storage_name(tune.get_context().get_trial_name(), chosen.hyperparameters)
        folder = storage / name
        if (before := read_progress(folder)) is not None:
            tune.report(_as_reported(before))  # the search may have lost it with its driver
        while goes_on(folder, chosen, rungs):
            tell = (TuneReportCallback(),)
            fit(build_trainer(chosen, name=name, storage=storage, callbacks=tell, beside=concurrent, rungs=rungs))
            if (now := read_progress(folder)) is None or now.step not in rungs:
                break

    return train_trial


def goes_on(folder: Path, plan: TrainPlan, rungs: tuple[int, ...]) -> bool:
    """Whether there is something left to train; a trial that is held at a rung waits here for the answer."""
    progress = read_progress(folder)
    if progress is None or progress.step == 0:
        return True
    losses = [point.eval_loss for point in progress.curve]
    is_over = progress.diverged or progress.step >= plan.max_steps
    if is_over or reason_to_stop(losses, plan.train.early_stopping_patience) is not None:
        return False
    return progress.step not in rungs or gate.wait_for_answer(folder, progress.step) is True


def _as_reported(progress: Progress) -> JsonObject:
    loss = DIVERGED_LOSS if progress.diverged or not progress.curve else progress.curve[-1].eval_loss
    return {**progress.model_dump(mode="json"), "eval_loss": loss}
