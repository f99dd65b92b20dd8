from pathlib import Path

import pytest
from builders import make_plan
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from orchestrator.cluster import WorkerShape
from orchestrator.config import RunConfig, SearchConfig, TrainConfig
from orchestrator.runs import RunDir
from orchestrator.search.early_stop import first_rung, make_scheduler
from orchestrator.training.plan import TrainPlan, plan_training


def plans() -> st.SearchStrategy[TrainPlan]:
    def build(max_steps: int, eval_steps: int | None, warmup: float) -> TrainPlan:
        config = RunConfig(train=TrainConfig(max_steps=max_steps, eval_steps=eval_steps, warmup_ratio=warmup))
        return plan_training(config, RunDir(Path("/r")), WorkerShape(1, 1.0, 0), num_samples=100)

    return st.builds(build, st.integers(1, 5000), st.none() | st.integers(1, 5000), st.floats(0, 0.99))


@given(plans())
def test_the_first_rung_is_within_the_budget_and_past_warm_up_and_the_first_evaluation(plan: TrainPlan) -> None:
    rung = first_rung(plan)
    assert 1 <= rung <= plan.max_steps
    assert rung >= plan.eval_steps
    assert rung > plan.warmup_steps or rung == plan.max_steps
    assert rung >= round(0.1 * plan.max_steps)


@given(plans(), st.integers(2, 9))
def test_a_scheduler_can_be_built_for_every_plan(plan: TrainPlan, factor: int) -> None:
    assert isinstance(make_scheduler(SearchConfig(reduction_factor=factor), plan), ASHAScheduler)


@pytest.mark.parametrize(("warmup", "evals", "rung"), [(2, 6, 6), (2, 1, 6), (9, 6, 10), (2, 30, 30), (60, 6, 60)])
def test_the_first_rung(warmup: int, evals: int, rung: int) -> None:
    assert first_rung(make_plan(max_steps=60, eval_steps=evals, warmup_steps=warmup)) == rung


def asha(max_steps: int = 60) -> ASHAScheduler:
    scheduler = make_scheduler(SearchConfig(reduction_factor=3), make_plan(max_steps=max_steps, eval_steps=6))
    assert scheduler.set_search_properties("eval_loss", "min")
    return scheduler


def trials_of(scheduler: ASHAScheduler, number: int) -> list[Trial]:
    trials = [Trial("stub", stub=True, trial_id=str(each)) for each in range(number)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    return trials


def decision(scheduler: ASHAScheduler, trial: Trial, *, step: int, eval_loss: float, iteration: int = 1) -> str:
    result = {"training_iteration": iteration, "step": step, "eval_loss": eval_loss}
    return str(scheduler.on_trial_result(None, trial, result))


def test_a_trial_that_lags_at_equal_steps_is_stopped() -> None:
    scheduler = asha()
    trials = trials_of(scheduler, 4)
    decisions = [
        decision(scheduler, trial, step=6, eval_loss=loss) for trial, loss in zip(trials, (1, 2, 3, 0.5), strict=True)
    ]
    assert decisions == [TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.STOP, TrialScheduler.CONTINUE]


def test_nothing_is_stopped_before_the_first_rung() -> None:
    scheduler = asha()
    for trial, loss in zip(trials_of(scheduler, 4), (1, 2, 3, 4), strict=True):
        assert decision(scheduler, trial, step=5, eval_loss=loss, iteration=50) == TrialScheduler.CONTINUE


def test_steps_count_and_not_the_reports_that_start_again_after_a_restart() -> None:
    scheduler = asha()
    good, bad = trials_of(scheduler, 2)
    assert decision(scheduler, good, step=18, eval_loss=0.1, iteration=3) == TrialScheduler.CONTINUE
    assert decision(scheduler, bad, step=18, eval_loss=9.0, iteration=1) == TrialScheduler.STOP


def test_at_its_last_step_a_trial_ends_by_itself() -> None:
    scheduler = asha()
    (trial,) = trials_of(scheduler, 1)
    assert decision(scheduler, trial, step=60, eval_loss=0.1) == TrialScheduler.CONTINUE


def test_none_runs_every_trial_to_its_end() -> None:
    scheduler = make_scheduler(SearchConfig(scheduler="none"), make_plan())
    assert isinstance(scheduler, FIFOScheduler)
    assert scheduler.on_trial_result(None, None, {"step": 60, "eval_loss": 9.0}) == TrialScheduler.CONTINUE
