import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Experiment

from orchestrator.config import RangeConfig, SearchConfig, SpaceConfig
from orchestrator.records import JsonObject
from orchestrator.search.space import HYPERPARAMETERS, grid_points, make_searcher, num_trials, param_space

GRID = SpaceConfig(r=(8, 16), alpha=(16, 32, 64), learning_rate=(1e-4, 1e-3))


def grid(limit: int) -> SearchConfig:
    return SearchConfig(searcher="grid", num_trials=limit, space=GRID)


def proposals(search: SearchConfig, folder: Path) -> list[JsonObject]:
    """The configs of a search's trials, from the searcher itself."""
    space = param_space(search)
    if search.searcher == "optuna":
        searcher: Any = make_searcher(search, max_concurrent=10_000)
        assert searcher.set_search_properties("eval_loss", "min", space)
        found = []
        for number in range(search.num_trials):
            found.append(searcher.suggest(str(number)))
            searcher.on_trial_complete(str(number), {"eval_loss": 1.0 / (number + 1)})
    else:
        searcher = make_searcher(search, max_concurrent=10_000)
        samples = 1 if search.searcher == "grid" else search.num_trials
        spec = Experiment("e", lambda _config: None, config=space, num_samples=samples, storage_path=str(folder))
        searcher.add_configurations([spec])
        found = [trial.config for trial in iter(searcher.next_trial, None)]
    assert all(set(config) == {HYPERPARAMETERS} for config in found)
    return [config[HYPERPARAMETERS] for config in found]


def test_a_grid_is_every_combination_with_the_learning_rate_fastest() -> None:
    points = grid_points(grid(100))
    assert [(point["r"], point["alpha"], point["learning_rate"]) for point in points[:4]] == [
        (8, 16, 1e-4),
        (8, 16, 1e-3),
        (8, 32, 1e-4),
        (8, 32, 1e-3),
    ]
    assert len(points) == 12
    assert points[-1] == {"r": 16, "alpha": 64, "learning_rate": 1e-3}


@given(st.integers(1, 20))
def test_a_grid_ends_at_the_number_of_trials(limit: int) -> None:
    assert grid_points(grid(limit)) == grid_points(grid(100))[:limit]
    assert num_trials(grid(limit)) == min(limit, 12)


def test_other_searchers_run_as_many_trials_as_asked_for() -> None:
    assert num_trials(SearchConfig(num_trials=5)) == 5
    assert num_trials(SearchConfig(num_trials=5, searcher="random")) == 5


def test_tune_tries_the_grid_in_its_order(tmp_path: Path) -> None:
    assert proposals(grid(7), tmp_path) == grid_points(grid(7))


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_the_same_seed_proposes_the_same_points_and_another_others(searcher: str, tmp_path: Path) -> None:
    def points(seed: int) -> list[JsonObject]:
        search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 12, "seed": seed})
        return proposals(search, tmp_path)

    once = points(1)
    assert len(once) == 12
    assert points(1) == once
    assert points(2) != once


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_every_point_lies_in_the_space(searcher: str, tmp_path: Path) -> None:
    space = SpaceConfig(r=(4, 8), alpha=(8, 16), learning_rate=RangeConfig(min=1e-5, max=1e-2))
    search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 40, "space": space})
    points = proposals(search, tmp_path)
    assert {point["r"] for point in points} == {4, 8}
    assert {point["alpha"] for point in points} == {8, 16}
    rates = [point["learning_rate"] for point in points]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert all(set(point) == {"r", "alpha", "learning_rate"} for point in points)


def test_learning_rates_are_drawn_on_a_log_scale(tmp_path: Path) -> None:
    space = SpaceConfig(learning_rate=RangeConfig(min=1e-5, max=1e-1))
    points = proposals(SearchConfig(searcher="random", num_trials=200, space=space), tmp_path)
    logs = sorted(math.log10(point["learning_rate"]) for point in points)
    assert logs[100] == pytest.approx(-3, abs=0.5)


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_list_of_learning_rates_is_a_choice(searcher: str, tmp_path: Path) -> None:
    search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 40, "space": GRID})
    points = {tuple(point.values()) for point in proposals(search, tmp_path)}
    every = {(r, a, rate) for r, a, rate in itertools.product(GRID.r, GRID.alpha, (1e-4, 1e-3))}
    assert len(points) > 6
    assert points <= every


def test_the_grid_and_random_searchers_hold_back_what_does_not_fit(tmp_path: Path) -> None:
    # Ray Tune applies TuneConfig.max_concurrent_trials to other searchers only.
    searcher: Any = make_searcher(grid(6), max_concurrent=2)
    space = param_space(grid(6))
    searcher.add_configurations([Experiment("e", lambda _config: None, config=space, storage_path=str(tmp_path))])
    started = [searcher.next_trial() for _ in range(3)]
    assert [trial is None for trial in started] == [False, False, True]
    searcher.on_trial_complete(started[0].trial_id)
    assert searcher.next_trial() is not None
