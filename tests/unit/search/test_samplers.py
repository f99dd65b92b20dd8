"""What is proposed follows from numbers, the seed and results, for every searcher, wherever a search is taken up."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial

from orchestrator.config.schema import RangeConfig, SearchConfig
from orchestrator.core.records import DIVERGED_LOSS, JsonObject
from orchestrator.models.adapters import Told
from orchestrator.run.methods import has_package
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.search.proposals import NumberedSearch, Pace, point, results_of
from orchestrator.search.samplers import BATCH, Dimensions, Result, Results, holds, sample
from orchestrator.search.space import BaseShape, resolve_space

SPACE = resolve_space(SearchConfig().space, BaseShape(1024, "qwen3"), 8)
DIMENSIONS = SPACE.dimensions
CMAES = pytest.param("cmaes", marks=pytest.mark.skipif(not has_package("cmaes"), reason="the package is an extra"))
LEARNERS = ["optuna", "nsga2", CMAES]


def loss_of(chosen: JsonObject) -> float:
    """Least at r 16, alpha 32 and a rate of 1e-4."""
    rate, rank = math.log10(chosen["learning_rate"] / 1e-4), math.log2(chosen["r"] / 16)
    return 1.0 + rate**2 + 0.1 * rank**2 + 0.05 * math.log2(chosen["alpha"] / 32) ** 2


def of(searcher: str, **more: object) -> SearchConfig:
    return SearchConfig.model_validate({"searcher": searcher, "num_trials": 40, **more})


def search_on(search: SearchConfig, points: Mapping[int, JsonObject], last: int) -> dict[int, JsonObject]:
    """Go on with a search in another process, which has these trials with what they reported."""
    heard = Heard()
    alg = NumberedSearch(search, SPACE, heard, last=last, pace=Pace(1, rungs=(10,)))
    made = dict(points)

    def hear(number: int) -> None:
        trial = Trial("stub", stub=True, trial_name_creator=lambda _: f"trial-{number}")
        trial.set_config({HYPERPARAMETERS: made[number]})
        heard.add(trial)
        loss = DIVERGED_LOSS if number % 7 == 3 else loss_of(made[number])
        if number % 11 != 5:  # those end without a result
            heard.hear(trial, {"step": 10, "eval_loss": loss})
        heard.end(trial)

    for number in points:
        hear(number)
    while not alg.is_finished():
        number = len(made) + 1
        made[number] = alg.searcher.suggest("any")[HYPERPARAMETERS]
        hear(number)
    return made


@pytest.mark.parametrize("searcher", ["random", *LEARNERS])
def test_a_search_taken_up_at_any_point_proposes_the_same(searcher: str) -> None:
    search = of(searcher)
    whole = search_on(search, {}, last=36)
    assert len({str(its) for its in whole.values()}) > BATCH
    for stop in (1, 7, 8, 9, 16, 17, 25, 31):
        assert search_on(search, {number: whole[number] for number in range(1, stop + 1)}, last=36) == whole


@pytest.mark.parametrize("searcher", LEARNERS)
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.floats(0.1, 10), min_size=24, max_size=24))
def test_every_point_lies_in_the_space_whatever_came_before(searcher: str, seed: int, losses: list[float]) -> None:
    search, known = of(searcher, seed=seed), dict[int, Result]()
    for number, loss in enumerate(losses, 1):
        before = {each: known[each] for each in range(1, (number - 1) // BATCH * BATCH + 1)}
        known[number] = Result(point(search, SPACE, number, before), (loss,))
        assert holds(DIMENSIONS, known[number].point)


@pytest.mark.parametrize("searcher", LEARNERS)
def test_samplers_learn(searcher: str) -> None:
    """The last of three batches lies nearer the best point than the first does, over seeds."""
    first, last = [], []
    for seed in range(6):
        search, known = of(searcher, seed=seed), dict[int, Result]()
        for number in range(1, 41):
            before = {each: known[each] for each in range(1, (number - 1) // BATCH * BATCH + 1)}
            made = point(search, SPACE, number, before)
            known[number] = Result(made, (loss_of(made),))
        first += [known[number].values[0] for number in range(3, 9)]
        last += [known[number].values[0] for number in range(33, 41)]
    assert sorted(last)[len(last) // 2] < sorted(first)[len(first) // 2]


def drawn_with(searcher: str, known: Results) -> list[float]:
    search = of(searcher)
    return sorted(point(search, SPACE, number, known)["learning_rate"] for number in range(41, 61))


def history(missed_above: float) -> dict[int, Result]:
    """Forty results that are the better the higher the rate, which misses a constraint above a bound."""
    found = dict[int, Result]()
    for number in range(1, 41):
        made = point(of("random"), SPACE, number, {})
        missed = {"over_refusal_rate": max(0.0, made["learning_rate"] - missed_above)}
        found[number] = Result(made, (-made["learning_rate"],), missed)
    return found


@pytest.mark.parametrize("searcher", LEARNERS)
def test_samplers_keep_to_constraints(searcher: str) -> None:
    free, bound = drawn_with(searcher, history(1.0)), drawn_with(searcher, history(1e-4))
    assert bound[len(bound) // 2] < free[len(free) // 2]


@pytest.mark.parametrize("searcher", ["optuna", "nsga2"])
def test_several_objectives_are_told_as_they_are(searcher: str) -> None:
    known = {number: Result(its.point, (its.values[0], -its.values[0])) for number, its in history(1.0).items()}
    assert len(set(drawn_with(searcher, known))) > 10


def test_scores_go_before_eval_loss_which_tells_equals_apart() -> None:
    points = {number: {"r": number} for number in range(1, 7)}
    losses = {1: 0.5, 2: 0.4, 3: 0.3, 4: DIVERGED_LOSS, 5: 0.1}
    told = {1: Told((-0.9,), {}), 2: Told((-0.2,), {"no_call_accuracy": 0.1}), 3: Told((-0.2,), {})}
    found = results_of(points, losses, told)
    assert {number: its.values for number, its in found.items()} == {
        1: (0.0,),
        3: (1.0,),
        2: (2.0,),
        4: (3.0,),  # it diverged, so nothing is worse
        5: (),  # the scorer was late
        6: (),
    }
    assert found[2].missed == {"no_call_accuracy": 0.1}
    assert {number: its.values for number, its in results_of(points, losses, {}).items() if its.values} == {
        number: (loss,) for number, loss in losses.items()
    }


def test_a_range_keeps_to_its_bounds_and_a_list_to_its_numbers() -> None:
    space: Dimensions = {"r": (64, 8), "alpha": (16,), "learning_rate": RangeConfig(min=1e-4, max=2e-4)}
    assert holds(space, {"r": 8, "alpha": 16, "learning_rate": 1e-4})
    assert not holds(space, {"r": 16, "alpha": 16, "learning_rate": 1e-4})
    assert not holds(space, {"r": 8, "alpha": 16, "learning_rate": 3e-4})
    assert not holds(space, {"r": 8, "alpha": 16})
    known = {number: Result({"r": 64, "alpha": 16, "learning_rate": 1.5e-4}, (1.0,)) for number in range(1, 12)}
    assert {sample("optuna", space, str(seed), known)["r"] for seed in range(20)} <= {8, 64}
