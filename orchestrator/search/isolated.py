"""One trial as its own Ray Train job, driven from inside a Ray Tune trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.run.cluster import WorkerShape
from orchestrator.search.names import HYPERPARAMETERS, name_of_storage, storage_of_trial
from orchestrator.training.launch import build_trainer, fit
from orchestrator.training.outcome import TrainedTrial, describe_trial, read_trial
from orchestrator.training.plan import TrainPlan

DRIVER_RESOURCES = {"memory": 1024 * 1024}
"""What the trial's driver reserves beside its workers: no share of a CPU, or trials whose workers fill the CPUs would
wait for each other; not nothing either, which Ray Tune refuses."""


def isolated_trainable(plan: TrainPlan, storage: Path) -> Any:
    """The Tune trainable: trains `plan` with the trial's hyperparameters as the Ray Train job of that trial's name."""

    def train_trial(config: JsonObject) -> None:
        chosen = plan.with_hyperparameters(config[HYPERPARAMETERS])
        name = storage_of_trial(tune.get_context().get_trial_id(), chosen.hyperparameters)
        fit(build_trainer(chosen, name=name, storage=storage, callbacks=(TuneReportCallback(),)))

    trainable: Callable[[JsonObject], None] = train_trial
    return tune.with_resources(trainable, PlacementGroupFactory([DRIVER_RESOURCES]))


def read_isolated_trial(
    storage: Path, name: str, plan: TrainPlan, *, duration_s: float | None, error: str | None
) -> tuple[TrainedTrial, TrialRecord]:
    """What the training job of a trial left."""
    trained = read_trial(storage, name)
    return trained, describe_trial(trained, plan, trial_id=name_of_storage(name), duration_s=duration_s, error=error)


ROUNDING = 1e-9
"""Ten shares of 0.1 CPU fit one CPU, whatever floating point says."""


def concurrent_trials(wanted: int | None, shape: WorkerShape, capacity: dict[str, float]) -> int:
    """How many trials' workers fit the cluster side by side, at least one and at most `wanted`."""
    fits = [int(capacity.get(key, 0) / shape.total(key) + ROUNDING) for key in ("CPU", "GPU") if shape.total(key)]
    return max(1, min(fits + ([wanted] if wanted else [])))
