"""Which cohort has a turn, and what its engines and trials are planned by."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.config.schema import RunConfig, SearchConfig
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.run.cluster import WorkerShape
from orchestrator.run.paths import RunDir
from orchestrator.search.cohorts import cohort_of, is_of, plan_of
from orchestrator.search.heard import Heard
from orchestrator.search.parts import Part, parts_of
from orchestrator.search.slot_trial import slot_spec
from orchestrator.search.space import BaseShape, grid_points, resolve_space
from orchestrator.training.plan import TrainPlan, plan_training

TWO = [{"batch_size": 8}, {"batch_size": 16}]
USUAL = {"r": 16, "alpha": 16, "learning_rate": 2e-4}


def record(number: int, loss: float | None, **more: float) -> TrialRecord:
    return TrialRecord(
        trial_id=f"trial-{number}", status="completed", hyperparameters={**USUAL, **more}, curve=(), best_eval_loss=loss
    )


def plan_for(space: JsonObject, **train: object) -> tuple[RunConfig, TrainPlan]:
    config = RunConfig.model_validate({"search": {"num_trials": 40, "space": space}, "train": train})
    varied = tuple(config.search.space.further)
    return config, plan_training(config, RunDir(Path("run")), WorkerShape(1, 1, 0), num_samples=100, varied=varied)


def test_each_cohort_has_a_turn_and_the_best_all_others() -> None:
    assert [cohort_of(turn, TWO, []) for turn in (0, 1)] == TWO
    before = [record(1, 0.5, batch_size=8), record(5, 0.4, batch_size=16), record(6, None, batch_size=8)]
    assert cohort_of(2, TWO, before) == {"batch_size": 16}
    assert cohort_of(2, TWO, [record(1, None, batch_size=8)]) == {"batch_size": 8}
    assert cohort_of(9, [{}], []) == {}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_parts_never_hold_two_turns_however_a_search_was_extended(first: int, more: int, turn: int) -> None:
    storage = Path("nowhere")
    parts = parts_of(storage, first, turn=turn)
    for part in parts:
        assert (part.first - 1) // turn == (part.last - 1) // turn
    assert [number for part in parts for number in range(part.first, part.last + 1)] == list(range(1, first + 1))
    assert parts_of(storage, first + more)[:1] == [Part(1, first + more)]


def test_trials_of_another_cohort_count_for_their_numbers_alone() -> None:
    curve = [{"step": 5, "eval_loss": 0.5}]
    earlier = [
        record(1, 0.5, batch_size=8).model_copy(update={"curve": ()}),
        TrialRecord.model_validate({**record(2, 0.5, batch_size=16).model_dump(), "curve": curve}),
        TrialRecord.model_validate({**record(3, 0.5, batch_size=8).model_dump(), "curve": curve}),
    ]
    heard = Heard(earlier, {"batch_size": 8})
    assert set(heard.points) == heard.ended == {1, 2, 3}
    assert heard.losses == {1: {}, 2: {}, 3: {5: 0.5}}
    assert Heard(earlier).losses[2] == {5: 0.5}


def test_trials_are_trained_with_what_was_chosen_for_them() -> None:
    space = {"dropout": [0.0, 0.1], "weight_decay": [0.0, 0.01], "warmup_ratio": [0.0, 0.1], "epochs": [1, 3]}
    _, plan = plan_for(space)
    chosen = {**USUAL, "dropout": 0.1, "weight_decay": 0.01, "warmup_ratio": 0.1, "epochs": 3}
    made = plan.with_hyperparameters(chosen)
    assert made.hyperparameters == chosen
    assert made.with_hyperparameters(plan.hyperparameters) == plan
    spec = slot_spec(made)
    assert (spec.max_steps, spec.warmup_steps, spec.dropout, spec.weight_decay) == (38, 4, 0.1, 0.01)
    assert slot_spec(plan).max_steps == 13


def test_engines_are_planned_by_the_longest_trial_and_evaluate_for_the_shortest() -> None:
    config, plan = plan_for({"epochs": [4, 1], "batch_size": [10, 20]}, micro_batch_size=2, batch_size=10)
    (ten, twenty) = (plan_of(cohort, plan, config.search.space) for cohort in config.search.space.cohorts)
    assert (ten.train.batch_size, ten.max_steps, ten.eval_steps) == (10, 40, 1)
    assert (twenty.train.batch_size, twenty.max_steps, twenty.eval_steps) == (20, 20, 1)
    plain, same = plan_for({})
    assert plan_of({}, same, plain.search.space) == same
    assert same.varied == ()
    assert "varied" not in same.model_dump()
    assert "dropout" not in plain.search.model_dump()["space"]


def test_a_cohort_fixes_its_settings_and_begins_at_the_usual_ones() -> None:
    space = SearchConfig.model_validate({"num_trials": 8, "space": {"batch_size": [8, 16], "epochs": [1, 2]}}).space
    recipe = {**USUAL, "epochs": 2, "batch_size": 8}
    shape = BaseShape(1024, "qwen3")
    own, other = (resolve_space(space, shape, size, recipe, {"batch_size": size}) for size in (8, 16))
    assert own.dimensions["batch_size"] == (8,)
    assert own.default["epochs"] == other.default["epochs"] == 2
    assert own.recipe == recipe
    assert (other.default["batch_size"], other.recipe) == (16, None)


def test_a_grid_holds_every_setting_and_the_points_of_a_cohort_follow_each_other() -> None:
    space = {"r": [8], "alpha": [16], "learning_rate": [1e-4, 1e-3], "epochs": [1, 2], "batch_size": [8, 16]}
    search = SearchConfig.model_validate({"searcher": "grid", "num_trials": 99, "space": space})
    points = grid_points(search)
    assert len(points) == len({str(point) for point in points}) == 8
    assert search.turn == 4
    assert [is_of({"batch_size": 8}, point) for point in points] == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("space.batch_size 9 must be", {"search": {"num_trials": 8, "space": {"batch_size": [8, 9]}}}),
        (
            "space.epochs decides nothing while train.max_steps is 10",
            {"search": {"space": {"epochs": [1, 2]}}, "train": {"max_steps": 10}},
        ),
        ("make 3 cohorts, which take turns of 4 trials: raise search.num_trials from 8 to at least 12",
         {"search": {"space": {"batch_size": [8, 16, 32]}}}),
        ("too_short", {"search": {"space": {"dropout": []}}}),
    ],
)  # fmt: skip
def test_spaces_that_cannot_be_searched_are_refused(what: str, content: JsonObject) -> None:
    with pytest.raises(ValidationError) as refused:
        RunConfig.model_validate(content)
    assert what in str(refused.value)
