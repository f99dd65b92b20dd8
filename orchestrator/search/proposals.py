"""What proposes the points of a search, in Ray Tune's terms. A point follows from its number, the seed and results."""

import math
import random
from collections.abc import Callable, Mapping
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from ray.tune.search import Searcher, SearchGenerator

from orchestrator.config.schema import RangeConfig, SearchConfig
from orchestrator.core.records import JsonObject
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.search.space import ResolvedSpace, grid_points

optuna.logging.set_verbosity(optuna.logging.WARNING)

BATCH = 8
"""Trials whose points follow from the same results: those of all batches before theirs."""
ENOUGH_TO_LEARN = 10
"""Results from which on Optuna's TPE sampler draws otherwise than by chance; its own default."""


Results = Mapping[int, tuple[JsonObject, float]]
"""Points and losses of trials, by number."""


def point(search: SearchConfig, space: ResolvedSpace, number: int, known: Results) -> JsonObject:
    """The hyperparameters of the trial with this number, counted from 1. Pure.

    `known` are trials before it; only TPE uses them.
    """
    if search.searcher == "grid":
        return grid_points(search)[number - 1]
    if number <= len(space.first_points):
        return space.first_points[number - 1]
    if search.searcher == "optuna" and len(known) >= ENOUGH_TO_LEARN:
        return _by_tpe(search, space, number, known)
    rng, rates = random.Random(f"{search.seed}/{number}"), space.learning_rate
    r, alpha = rng.choice(space.r), rng.choice(space.alpha)
    if isinstance(rates, RangeConfig):
        rate = math.exp(rng.uniform(math.log(rates.min), math.log(rates.max)))
        return {"r": r, "alpha": alpha, "learning_rate": min(max(rate, rates.min), rates.max)}
    return {"r": r, "alpha": alpha, "learning_rate": rng.choice(rates)}


def _by_tpe(search: SearchConfig, space: ResolvedSpace, number: int, known: Results) -> JsonObject:
    rates = space.learning_rate
    distributions: dict[str, BaseDistribution] = {
        "r": CategoricalDistribution(space.r),
        "alpha": CategoricalDistribution(space.alpha),
        "learning_rate": FloatDistribution(rates.min, rates.max, log=True)
        if isinstance(rates, RangeConfig)
        else CategoricalDistribution(rates),
    }
    seed = random.Random(f"{search.seed}/{number}").getrandbits(31)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    for _, (params, loss) in sorted(known.items()):
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=loss))
    return dict(study.ask(distributions).params)


class _Points(Searcher):  # type: ignore[misc]  # ray ships no types for it
    """Asks for the point of the next trial, and keeps nothing that would have to be stored."""

    def __init__(self, propose: Callable[[], JsonObject | None]) -> None:
        super().__init__(metric="eval_loss", mode="min")
        self._propose = propose

    def suggest(self, trial_id: str) -> JsonObject | None:  # noqa: ARG002  # Tune's interface
        proposed = self._propose()
        return None if proposed is None else {HYPERPARAMETERS: proposed}

    def on_trial_complete(self, trial_id: str, result: JsonObject | None = None, error: bool = False) -> None:  # noqa: FBT001, FBT002  # Tune's interface
        """Nothing; the scheduler hears of ends."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: what matters follows from the trials that Tune stores."""

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Nothing, as nothing is stored."""


class Pace(NamedTuple):
    """When the next trial of a search is proposed.

    One waits until fewer than `max_concurrent` others train; those of which `is_held` says that they wait at a rung do
    not count. With `waits`, a point that follows from results waits for those of all batches before its own, at the
    first of the `rungs`, so that it is the same whoever comes first. Without it, it follows from what there is.
    """

    max_concurrent: int
    rungs: tuple[int, ...] = ()
    waits: bool = True
    is_held: Callable[[int], bool] | None = None


class NumberedSearch(SearchGenerator):  # type: ignore[misc]  # ray ships no types for it
    """Proposes trials in the order of their numbers, up to the `last`."""

    def __init__(self, search: SearchConfig, space: ResolvedSpace, heard: Heard, *, last: int, pace: Pace) -> None:
        super().__init__(_Points(self._next_point))
        self._search, self._space, self._heard, self._last, self._pace = search, space, heard, last, pace

    def is_finished(self) -> bool:
        """Whether every trial was made; after the driver's death those that Tune remembers count."""
        return len(self._heard.points) >= self._last

    def _next_point(self) -> JsonObject | None:
        if self._num_training() >= self._pace.max_concurrent:
            return None
        number = len(self._heard.points) + 1
        known: Results | None = {}
        if self._search.searcher == "optuna":
            known = self._known_before(number)
        return None if known is None else point(self._search, self._space, number, known)

    def _num_training(self) -> int:
        alive = [number for number in self._heard.points if number not in self._heard.ended]
        is_held = self._pace.is_held
        return len(alive) if is_held is None else sum(not is_held(number) for number in alive)

    def _known_before(self, number: int) -> Results | None:
        """The results that the point of a trial follows from; None while one of them is to come."""
        heard, waits = self._heard, self._pace.waits
        before = range(1, (number - 1) // BATCH * BATCH + 1 if waits else number)
        if len(before) < ENOUGH_TO_LEARN:
            return {}
        values = {each: heard.value(each, self._pace.rungs) for each in before}
        if waits and any(value is None and each not in heard.ended for each, value in values.items()):
            return None
        return {each: (heard.points[each], value) for each, value in values.items() if value is not None}
