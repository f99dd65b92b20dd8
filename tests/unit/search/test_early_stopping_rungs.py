import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from builders import make_plan
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from orchestrator.config.schema import RunConfig, SearchConfig, TrainConfig
from orchestrator.core.records import EvalPoint, TrialRecord
from orchestrator.plan import steps
from orchestrator.run.cluster import WorkerShape
from orchestrator.run.paths import RunDir
from orchestrator.search.early_stopping import SuccessiveHalving, held_at, make_scheduler, rung_steps
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.training.plan import TrainPlan, plan_training


def first_rung(plan: TrainPlan) -> int:
    return steps.first_rung(plan.max_steps, plan.eval_steps, plan.warmup_steps)


def plans() -> st.SearchStrategy[TrainPlan]:
    def build(max_steps: int, eval_steps: int | None, warmup: float) -> TrainPlan:
        config = RunConfig(train=TrainConfig(max_steps=max_steps, eval_steps=eval_steps, warmup_ratio=warmup))
        return plan_training(config, RunDir(Path("/r")), WorkerShape(1, 1.0, 0), num_samples=100)

    return st.builds(build, st.integers(1, 5000), st.none() | st.integers(1, 5000), st.floats(0, 0.99))


@given(plans())
def test_the_first_rung_is_an_evaluation_past_warm_up_and_a_tenth_of_the_budget(plan: TrainPlan) -> None:
    rung = first_rung(plan)
    assert rung == plan.max_steps or rung % plan.eval_steps == 0
    assert rung > plan.warmup_steps or rung == plan.max_steps
    assert rung >= math.ceil(0.1 * plan.max_steps)
    before = rung - plan.eval_steps
    assert before <= plan.warmup_steps or before < math.ceil(0.1 * plan.max_steps)


@given(plans(), st.integers(2, 9))
def test_rungs_are_evaluations_that_lie_the_reduction_factor_apart(plan: TrainPlan, factor: int) -> None:
    rungs = rung_steps(plan, factor)
    assert all(rung % plan.eval_steps == 0 and rung < plan.max_steps for rung in rungs)
    assert all(later == factor * earlier for earlier, later in itertools.pairwise(rungs))
    assert rungs[:1] in ((), (first_rung(plan),))


@pytest.mark.parametrize(
    ("warmup", "evals", "rung"), [(2, 6, 6), (2, 1, 6), (9, 6, 12), (2, 30, 30), (5, 6, 6), (6, 6, 12), (60, 6, 60)]
)
def test_the_first_rung(warmup: int, evals: int, rung: int) -> None:
    assert first_rung(make_plan(max_steps=60, eval_steps=evals, warmup_steps=warmup)) == rung


@pytest.mark.parametrize(
    ("steps", "evals", "factor", "rungs"),
    [
        (60, 6, 3, (6, 18)),  # 54 is too near to the end
        (60, 6, 2, (6, 12, 24)),
        (60, 6, 4, (6, 24)),
        (109, 11, 3, (11, 33)),
        (109, 10, 3, (20, 60)),  # step 10 is not yet a tenth
        (1000, 10, 3, (100, 300)),
        (60, 20, 3, (20,)),
        (60, 40, 3, ()),
        (1, 1, 3, ()),
    ],
)
def test_the_rungs(steps: int, evals: int, factor: int, rungs: tuple[int, ...]) -> None:
    assert rung_steps(make_plan(max_steps=steps, eval_steps=evals, warmup_steps=0), factor) == rungs


@given(plans(), st.integers(2, 9))
def test_a_scheduler_can_be_built_for_every_plan(plan: TrainPlan, factor: int) -> None:
    def built(scheduler: Literal["halving", "asha"]) -> TrialScheduler:
        return made(SearchConfig(scheduler=scheduler, reduction_factor=factor), plan)

    assert isinstance(built("halving"), SuccessiveHalving)
    assert isinstance(built("asha"), ASHAScheduler)


def made(search: SearchConfig, plan: TrainPlan, earlier: Sequence[TrialRecord] = ()) -> TrialScheduler:
    return make_scheduler(search, plan, Heard(earlier), num_trials=search.num_trials, group=4, answer=lambda *_: None)


def asha() -> TrialScheduler:
    search = SearchConfig(scheduler="asha", reduction_factor=3, keep=1)
    scheduler = made(search, make_plan(max_steps=60, eval_steps=6))
    assert scheduler.set_search_properties("eval_loss", "min")
    return scheduler


def trials_of(scheduler: TrialScheduler, number: int) -> list[Trial]:
    trials = [stub(each) for each in range(1, number + 1)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    return trials


def stub(number: int) -> Trial:
    trial = Trial("stub", stub=True, trial_name_creator=lambda _: f"trial-{number}")
    trial.set_config({HYPERPARAMETERS: {}})
    return trial


def decision(scheduler: TrialScheduler, trial: Trial, *, step: int, eval_loss: float, iteration: int = 1) -> str:
    result = {"training_iteration": iteration, "step": step, "eval_loss": eval_loss}
    return str(scheduler.on_trial_result(None, trial, result))


def test_asha_stops_a_trial_that_lags_behind_those_before_it_at_equal_steps() -> None:
    scheduler = asha()
    decisions = [
        decision(scheduler, trial, step=6, eval_loss=loss)
        for trial, loss in zip(trials_of(scheduler, 4), (1, 2, 3, 0.5), strict=True)
    ]
    assert decisions == [TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.STOP, TrialScheduler.CONTINUE]


def test_halving_is_the_default_and_alone_holds_trials_at_rungs() -> None:
    plan = make_plan(max_steps=60, eval_steps=6)
    assert isinstance(made(SearchConfig(), plan), SuccessiveHalving)
    assert held_at(SearchConfig(), plan) == (6, 18)
    assert held_at(SearchConfig(scheduler="asha"), plan) == held_at(SearchConfig(scheduler="none"), plan) == ()


def test_asha_stops_nothing_before_the_first_rung() -> None:
    scheduler = asha()
    for trial, loss in zip(trials_of(scheduler, 4), (1, 2, 3, 4), strict=True):
        assert decision(scheduler, trial, step=5, eval_loss=loss, iteration=50) == TrialScheduler.CONTINUE


def test_asha_counts_steps_and_not_the_reports_that_start_again_after_a_restart() -> None:
    scheduler = asha()
    good, bad = trials_of(scheduler, 2)
    assert decision(scheduler, good, step=18, eval_loss=0.1, iteration=3) == TrialScheduler.CONTINUE
    assert decision(scheduler, bad, step=18, eval_loss=9.0, iteration=1) == TrialScheduler.STOP


def test_at_its_last_step_a_trial_of_asha_ends_by_itself() -> None:
    scheduler = asha()
    (trial,) = trials_of(scheduler, 1)
    assert decision(scheduler, trial, step=60, eval_loss=0.1) == TrialScheduler.CONTINUE


def test_none_runs_every_trial_to_its_end() -> None:
    scheduler = made(SearchConfig(scheduler="none"), make_plan())
    (trial,) = trials_of(scheduler, 1)
    assert decision(scheduler, trial, step=60, eval_loss=9.0) == TrialScheduler.CONTINUE


def test_trials_of_an_earlier_part_count_for_asha_at_the_rungs_they_reached() -> None:
    """Alone, the later trial would be the best at its rung and go on."""
    search = SearchConfig(scheduler="asha", reduction_factor=3, keep=1, num_trials=4)
    curves = ([(6, 1.0), (60, 0.5)], [(6, 2.0)], [(6, 3.0)])
    earlier = [
        TrialRecord(
            trial_id=f"trial-{number}",
            status="stopped_early",
            hyperparameters={},
            curve=tuple(EvalPoint(step=step, eval_loss=loss) for step, loss in curve),
        )
        for number, curve in enumerate(curves, 1)
    ]
    told = []
    for records in ((), earlier):
        scheduler = made(search, make_plan(max_steps=60, eval_steps=6), records)
        assert scheduler.set_search_properties("eval_loss", "min")
        trial = stub(4)
        scheduler.on_trial_add(None, trial)
        told.append(decision(scheduler, trial, step=6, eval_loss=2.5))
    assert told == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
