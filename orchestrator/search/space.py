"""What a search may choose, in Ray Tune's words: the space, who proposes points in it, and the grid."""

import itertools
from typing import Any

import optuna
from ray import tune
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.search_algorithm import SearchAlgorithm

from orchestrator.config import RangeConfig, SearchConfig, SpaceConfig
from orchestrator.records import JsonObject

optuna.logging.set_verbosity(optuna.logging.WARNING)  # also for a study that is restored

HYPERPARAMETERS = "hyperparameters"
"""The one key of every trial's config; its value holds r, alpha and learning_rate."""


def param_space(search: SearchConfig) -> dict[str, Any]:
    """Ray Tune's `param_space`: a grid of whole points, or one distribution for each hyperparameter."""
    if search.searcher == "grid":
        return {HYPERPARAMETERS: tune.grid_search(grid_points(search))}
    space = search.space
    learning_rate = (
        tune.loguniform(space.learning_rate.min, space.learning_rate.max)
        if isinstance(space.learning_rate, RangeConfig)
        else tune.choice(list(space.learning_rate))
    )
    distributions = {"r": tune.choice(list(space.r)), "alpha": tune.choice(list(space.alpha))}
    return {HYPERPARAMETERS: {**distributions, "learning_rate": learning_rate}}


def grid_points(search: SearchConfig) -> list[JsonObject]:
    """Every combination, up to `num_trials`, in the order of the config; learning rate varies fastest."""
    space: SpaceConfig = search.space
    assert not isinstance(space.learning_rate, RangeConfig)  # SearchConfig refuses a range for a grid
    combinations = itertools.product(space.r, space.alpha, space.learning_rate)
    points = [{"r": r, "alpha": alpha, "learning_rate": rate} for r, alpha, rate in combinations]
    return points[: search.num_trials]


def num_trials(search: SearchConfig) -> int:
    """Trials that the search will run."""
    return len(grid_points(search)) if search.searcher == "grid" else search.num_trials


def make_searcher(search: SearchConfig, *, max_concurrent: int) -> Searcher | SearchAlgorithm:
    """Who proposes the points; seeded, so that the same config proposes the same ones (Optuna: given equal losses)."""
    if search.searcher == "optuna":
        return ConcurrencyLimiter(OptunaSearch(seed=search.seed), max_concurrent=max_concurrent)
    return BasicVariantGenerator(random_state=search.seed, max_concurrent=max_concurrent)
