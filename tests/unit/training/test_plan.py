import math
import pickle
from pathlib import Path

import pytest
from builders import make_config, make_plan
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.schema import LoraConfig, ResourcesConfig, RunConfig, TrainConfig
from orchestrator.config.training import EVALUATIONS_PER_RUN
from orchestrator.run.cluster import WorkerShape
from orchestrator.run.paths import RunDir
from orchestrator.training.plan import TrainPlan, plan_training

ONE_WORKER = WorkerShape(1, 1.0, 0)


def planned(num_samples: int, **train: float | int) -> TrainPlan:
    config = RunConfig(train=TrainConfig.model_validate(train))
    return plan_training(config, RunDir(Path("/r")), ONE_WORKER, num_samples=num_samples)


def test_a_plan_holds_the_config_the_places_and_the_shape(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, base="tiny", lora=LoraConfig(r=32), train=TrainConfig(max_steps=50, warmup_ratio=0.1)
    )
    plan = plan_training(config, RunDir(Path("/r")), WorkerShape(4, 2.0, 1), num_samples=100)
    assert (plan.model, plan.lora, plan.train) == (config.model, config.lora, config.train)
    assert (plan.train_tokens, plan.val_tokens) == ("/r/data/tokens/train", "/r/data/tokens/val")
    assert (plan.num_workers, plan.cpus_per_worker, plan.gpus_per_worker) == (4, 2.0, 1)
    assert (plan.max_steps, plan.eval_steps, plan.warmup_steps) == (50, 5, 5)
    assert plan.accumulation_steps == 1


@pytest.mark.parametrize(
    ("epochs", "num_samples", "steps"), [(1.0, 80, 10), (1.0, 81, 11), (2.5, 80, 25), (0.01, 8, 1), (1.0, 1, 1)]
)
def test_epochs_become_whole_steps(epochs: float, num_samples: int, steps: int) -> None:
    assert planned(num_samples, epochs=epochs).max_steps == steps


def test_max_steps_goes_before_epochs() -> None:
    assert planned(1000, epochs=3, max_steps=7).max_steps == 7


@given(
    st.integers(1, 5000),
    st.integers(1, 10_000),
    st.none() | st.integers(1, 10_000),
    st.floats(0, 0.99),
)
def test_every_plan_evaluates_at_least_once_and_warms_up_within_its_steps(
    num_samples: int, max_steps: int, eval_steps: int | None, warmup: float
) -> None:
    config = RunConfig(train=TrainConfig(max_steps=max_steps, eval_steps=eval_steps, warmup_ratio=warmup))
    plan = plan_training(config, RunDir(Path("/r")), ONE_WORKER, num_samples=num_samples)
    assert 1 <= plan.eval_steps <= plan.max_steps == max_steps
    assert 0 <= plan.warmup_steps <= plan.max_steps
    if eval_steps is None:
        assert math.ceil(max_steps / plan.eval_steps) <= EVALUATIONS_PER_RUN
        assert max_steps // plan.eval_steps >= min(max_steps, EVALUATIONS_PER_RUN) / 2


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8))
def test_a_step_always_sees_the_whole_batch(accumulation: int, micro: int, workers: int) -> None:
    batch = accumulation * micro * workers
    config = RunConfig(
        train=TrainConfig(batch_size=batch, micro_batch_size=micro), resources=ResourcesConfig(num_workers=workers)
    )
    plan = plan_training(config, RunDir(Path("/r")), WorkerShape(workers, 1.0, 0), num_samples=10)
    assert plan.accumulation_steps == accumulation
    assert plan.max_steps == math.ceil(10 / batch)


def test_hyperparameters_replace_r_alpha_and_learning_rate_alone() -> None:
    plan = make_plan()
    chosen = {"r": 64, "alpha": 128, "learning_rate": 5e-3}
    other = plan.with_hyperparameters(chosen)
    assert plan.hyperparameters == {"r": 16, "alpha": 32, "learning_rate": 2e-4}
    assert other.hyperparameters == chosen
    assert other.with_hyperparameters(plan.hyperparameters) == plan
    assert (other.lora.dropout, other.train.batch_size) == (plan.lora.dropout, plan.train.batch_size)


def test_a_plan_survives_json_and_pickling() -> None:
    plan = make_plan()
    assert TrainPlan.model_validate(plan.model_dump(mode="json")) == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
