"""Points that a sampler of Optuna's draws from results, by ask and tell. Pure: a study is made anew for every point."""

import math
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, TPESampler

from orchestrator.config.schema import RangeConfig
from orchestrator.core.records import JsonObject

optuna.logging.set_verbosity(optuna.logging.ERROR)

Learner = Literal["optuna", "cmaes", "nsga2"]
Dimensions = Mapping[str, RangeConfig | tuple[Any, ...]]
"""What may be chosen, by setting: a log-uniform range, or numbers."""

BATCH = 8
"""Trials whose points follow from the same results: those of all batches before theirs."""
GENERATION = {"cmaes": "cma:generation", "nsga2": "NSGAIISampler:generation"}
"""Under which name these samplers keep a trial's generation in Optuna's study."""
ENOUGH_FOR_TPE = 10
"""Results from which on Optuna's TPE sampler draws otherwise than by chance; its own default."""


class Result(NamedTuple):
    """What came of a point: figures of which lower is better, and by how much it misses each constraint that it misses.

    A point without figures came to nothing.
    """

    point: JsonObject
    values: tuple[float, ...]
    missed: Mapping[str, float] = {}


Results = Mapping[int, Result]
"""By number of trial."""


def can_learn(searcher: Learner, known: Results) -> bool:
    """Whether the results are enough for a sampler to draw otherwise than by chance."""
    return sum(bool(its.values) for its in known.values()) >= (ENOUGH_FOR_TPE if searcher == "optuna" else 1)


def sample(searcher: Learner, dimensions: Dimensions, seed: str, known: Results) -> JsonObject:
    """The next point after these results, the same for the same seed and results."""
    number = random.Random(seed).getrandbits(31)
    if searcher == "cmaes":
        known = _by_rank(known)
    directions = ["minimize"] * next(len(its.values) for its in known.values() if its.values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=ExperimentalWarning)
        study = optuna.create_study(sampler=_sampler(searcher, number), directions=directions)
        bounds = sorted({name for its in known.values() for name in its.missed})
        known = {number: its._replace(missed=_amounts(its, bounds)) for number, its in known.items()}
        if searcher == "optuna":
            _add(study, dimensions, known, {})
        else:
            _replay(study, dimensions, known, GENERATION[searcher])
        drawn = study.ask(distributions_of(dimensions)).params
    return {name: _value(options, drawn[name]) for name, options in dimensions.items()}


def _sampler(searcher: Learner, seed: int) -> BaseSampler:
    match searcher:
        case "optuna":
            return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=ENOUGH_FOR_TPE)
        case "cmaes":
            return CmaEsSampler(seed=seed, popsize=BATCH, warn_independent_sampling=False)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=BATCH)


def _replay(study: optuna.Study, dimensions: Dimensions, known: Results, generation: str) -> None:
    """Tell a sampler of its trials batch by batch; it keeps its generation and state in what it asks for."""
    last = max(known)
    for first in range(1, last + 1, BATCH):
        state: JsonObject = {generation: 0}
        if first > 1:
            asked = study.ask(distributions_of(dimensions))
            state = study.get_trials()[asked.number].system_attrs
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        batch = {number: known[number] for number in range(first, min(first + BATCH, last + 1)) if number in known}
        _add(study, dimensions, batch, state)


def _add(study: optuna.Study, dimensions: Dimensions, known: Results, state: JsonObject) -> None:
    distributions = distributions_of(dimensions)
    for _, its in sorted(known.items()):
        if its.values:
            made = optuna.create_trial(
                params=params_of(dimensions, its.point),
                distributions=distributions,
                values=list(its.values),
                constraints=dict(its.missed) or None,
                system_attrs=dict(state),
            )
            study.add_trial(made)


def _amounts(its: Result, bounds: Sequence[str]) -> dict[str, float]:
    """By how much each constraint is missed; Optuna takes one that it is not told of for missed."""
    return {name: its.missed.get(name, 0.0) for name in bounds}


def _by_rank(known: Results) -> Results:
    """One value each, with constraints in it, for a sampler that knows none: who misses none comes first."""
    there = [number for number, its in known.items() if its.values]

    def rank(number: int) -> tuple[float, tuple[float, ...], int]:
        return sum(known[number].missed.values()), known[number].values, number

    places = {number: float(place) for place, number in enumerate(sorted(there, key=rank))}
    return {number: Result(its.point, (places[number],) if its.values else ()) for number, its in known.items()}


def distributions_of(dimensions: Dimensions) -> dict[str, BaseDistribution]:
    """What may be chosen, as Optuna sees it."""
    return {
        name: FloatDistribution(options.min, options.max, log=True)
        if isinstance(options, RangeConfig)
        else IntDistribution(0, len(set(options)) - 1)
        for name, options in dimensions.items()
    }


def holds(dimensions: Dimensions, point: JsonObject) -> bool:
    """Whether a point has every setting, within what may be chosen."""
    return all(
        name in point
        and (options.min <= point[name] <= options.max if isinstance(options, RangeConfig) else point[name] in options)
        for name, options in dimensions.items()
    )


def by_chance(dimensions: Dimensions, seed: str) -> JsonObject:
    """A point drawn evenly, each setting by itself."""
    rng = random.Random(seed)

    def draw(options: RangeConfig | tuple[Any, ...]) -> Any:
        if not isinstance(options, RangeConfig):
            return rng.choice(options)
        drawn = math.exp(rng.uniform(math.log(options.min), math.log(options.max)))
        return min(max(drawn, options.min), options.max)

    return {name: draw(options) for name, options in dimensions.items()}


def params_of(dimensions: Dimensions, point: JsonObject) -> JsonObject:
    """A point as Optuna sees it."""
    return {name: _place(options, point[name]) for name, options in dimensions.items()}


def _place(options: RangeConfig | tuple[Any, ...], value: Any) -> Any:
    """A value as samplers see it: numbers of a list by their place in it, from the lowest."""
    return value if isinstance(options, RangeConfig) else sorted(set(options)).index(value)


def _value(options: RangeConfig | tuple[Any, ...], drawn: Any) -> Any:
    return drawn if isinstance(options, RangeConfig) else sorted(set(options))[drawn]
