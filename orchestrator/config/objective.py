"""What a search looks for: an objective, and constraints on the figures that it is measured by."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from orchestrator.config.evaluation import Positive, Section
from orchestrator.core.records import METRIC_NAMES, MetricName

EVAL_LOSS: Literal["eval_loss"] = "eval_loss"
Objective = Literal["eval_loss"] | MetricName | dict[MetricName, Positive] | tuple[MetricName, ...]

NEEDS_TIMED_REPLIES = ("latency_", "peak_memory_")
"""How metrics begin whose replies are asked for one at a time, which a search does not do."""

MEAN_OF_REPLIES: MetricName = "output_tokens_mean"
"""The metric that is neither timed nor a share of cases."""


class Bound(Section):
    """What a metric may be on the validation cases."""

    min: float | None = None
    """Lowest value that is allowed."""
    max: float | None = None
    """Highest value that is allowed."""

    @model_validator(mode="after")
    def _bounds_something(self) -> "Bound":
        if self.min is None and self.max is None:
            raise ValueError("a constraint needs min, max or both, such as {max: 0.05}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: no value can meet it")
        return self


def known_objective(objective: Any) -> Any:
    """An objective as it stands in a configuration, with the names in it checked.

    Raises:
        ValueError: With what would be allowed, where a metric is unknown or no share of cases.
    """
    if objective == EVAL_LOSS:
        return objective
    if isinstance(objective, list | tuple):
        if len(objective) < 2 or len(set(map(str, objective))) < len(objective):
            raise ValueError("a list holds two or more different shares; one share is given by its name alone")
        if EVAL_LOSS in objective:
            raise ValueError("eval_loss is no share of cases, so it is on no front; ties go by it in any case")
    if isinstance(objective, Mapping):
        if not objective:
            raise ValueError("an empty mapping weighs nothing: give {metric: weight}, such as {tool_call_accuracy: 2}")
        if EVAL_LOSS in objective:
            raise ValueError(
                "eval_loss is no share of cases, so it has no weight beside any; ties go by it in any case"
            )
    named = (objective,) if isinstance(objective, str) else objective
    for name in named if isinstance(named, Mapping | list | tuple) else ():
        _require_scored(str(name), allowed=(EVAL_LOSS,) if isinstance(objective, str) else ())
        if name == MEAN_OF_REPLIES:
            raise ValueError(f"{name} is no share of cases; bound it in search.constraints")
    return objective


def known_constraints(constraints: Any) -> Any:
    """Constraints as they stand in a configuration, with the metrics' names checked; raises as `known_objective`."""
    for name in constraints if isinstance(constraints, Mapping) else ():
        _require_scored(str(name))
    return constraints


def reachable(constraints: Mapping[MetricName, Bound]) -> None:
    """Refuse, with a ValueError, a bound on a share that no adapter can meet."""
    for name, bound in constraints.items():
        if name == MEAN_OF_REPLIES:
            continue
        wrong = bound.min if bound.min is not None and bound.min > 1 else None
        wrong = bound.max if bound.max is not None and bound.max < 0 else wrong
        if wrong is not None:
            raise ValueError(f"no adapter can meet {wrong:g} in {name}: shares run from 0 to 1")


def _require_scored(name: str, *, allowed: tuple[str, ...] = ()) -> None:
    if name not in METRIC_NAMES:
        raise ValueError(f"no metric is called {name!r}; known are {', '.join((*allowed, *METRIC_NAMES))}")
    if name.startswith(NEEDS_TIMED_REPLIES):
        raise ValueError(f"{name} needs replies that are timed one at a time, after the search: set a gate on it")
