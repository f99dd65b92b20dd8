"""The section `search` of the configuration: what is searched, by which rules."""

import itertools
import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.config.evaluation import Fraction, Positive, PositiveInt, Section, Seed
from orchestrator.config.objective import EVAL_LOSS, Bound, Objective, known_constraints, known_objective, reachable
from orchestrator.config.training import ServableRank
from orchestrator.core.records import MetricName

FURTHER = ("dropout", "weight_decay", "warmup_ratio", "epochs", "batch_size")
"""What a space may hold beside rank, alpha and learning rate."""
SHARED = ("batch_size",)
"""Of these, what one engine trains all of its trials with."""


TURN = 4
"""Trials of a cohort's turn."""


class RangeConfig(Section):
    """A log-uniform range."""

    min: Annotated[float, Field(gt=0.0)]
    """Lowest value."""
    max: Annotated[float, Field(gt=0.0)]
    """Highest value."""

    @model_validator(mode="after")
    def _ordered(self) -> "RangeConfig":
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} must be below max {self.max:g}")
        return self


def _further(**bounds: Any) -> Any:
    """A setting that a space leaves alone by default, and that then stands in no record."""
    return Field(default=None, min_length=1, exclude_if=lambda value: value is None, **bounds)


class SpaceConfig(Section):
    """What the search may choose. Defaults follow published sweeps (docs/decisions/0016-search-defaults.md)."""

    r: tuple[ServableRank, ...] = Field(default=(8, 16, 32, 64), min_length=1)
    """Ranks; doubling from one to the next makes the choice even on a log scale."""
    alpha: tuple[PositiveInt, ...] = Field(default=(16, 32, 64), min_length=1)
    """Alphas; a few are enough, for alpha and learning rate do nearly the same."""
    learning_rate: RangeConfig | Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """A log-uniform range `{min, max}`, or a list of values (the grid searcher needs a list). None is a range around
    the rate that is known to suit a base of this size at this batch size, from a fifth of it to five times it."""
    dropout: tuple[Fraction, ...] | None = _further()
    """Values of `lora.dropout`. None, here and below, leaves the setting as it is."""
    weight_decay: tuple[Annotated[float, Field(ge=0.0)], ...] | None = _further()
    """Values of `train.weight_decay`."""
    warmup_ratio: tuple[Fraction, ...] | None = _further()
    """Values of `train.warmup_ratio`."""
    epochs: tuple[Positive, ...] | None = _further()
    """Values of `train.epochs`, each a training of its own length; `train.max_steps` must be left out."""
    batch_size: tuple[PositiveInt, ...] | None = _further()
    """Values of `train.batch_size`. Trials that share an engine share it, so these form cohorts, which take turns of
    four trials each (docs/search.md)."""

    @property
    def further(self) -> dict[str, tuple[float, ...]]:
        """What may be chosen beside rank, alpha and learning rate, by setting."""
        given = {name: getattr(self, name) for name in FURTHER}
        return {name: values for name, values in given.items() if values is not None}

    @property
    def shared(self) -> dict[str, tuple[float, ...]]:
        """Of these, what trials that share an engine have in common."""
        return {name: tuple(dict.fromkeys(values)) for name, values in self.further.items() if name in SHARED}

    @property
    def cohorts(self) -> list[dict[str, float]]:
        """What each cohort of trials shares, in the order given; one that shares nothing where there is nothing."""
        return [dict(zip(self.shared, values, strict=True)) for values in itertools.product(*self.shared.values())]


class BudgetConfig(Section):
    """What a search may spend, by one of its keys."""

    device_hours: Positive | None = None
    """Hours of devices that train, all together."""
    cost: Positive | None = None
    """What `resources.price_per_hour` makes of the time that the search takes, in its currency."""
    wall: Positive | None = None
    """Hours by the clock."""

    @property
    def kind(self) -> Literal["device_hours", "cost", "wall"]:
        """The key that is given."""
        return "device_hours" if self.device_hours else "cost" if self.cost else "wall"

    @model_validator(mode="after")
    def _is_one(self) -> "BudgetConfig":
        if sum(amount is not None for amount in (self.device_hours, self.cost, self.wall)) != 1:
            raise ValueError("a budget is one of device_hours, cost and wall, such as {device_hours: 2}")
        return self


class SearchConfig(Section):
    """The search over rank, alpha, learning rate and whatever else the space holds."""

    num_trials: PositiveInt = 8
    """Adapters to train, the first at r 32, alpha 32 and the known learning rate, or in the middle of a space that
    lies elsewhere, the second at lora.r, lora.alpha and train.learning_rate if the space holds them; the grid searcher
    trains every combination up to this many."""
    budget: BudgetConfig | None = Field(default=None, exclude_if=lambda budget: budget is None)
    """What the search may spend, `{device_hours: 2}`, `{cost: 10}` or `{wall: 1.5}` (hours by the clock), in place of
    `num_trials`, which then says nothing. It trains rounds of eight trials until the rest buys no other, or until
    another is not expected to help (docs/search.md)."""
    space: SpaceConfig = SpaceConfig()
    """What may be chosen."""
    searcher: Literal["random", "grid", "optuna", "cmaes", "nsga2"] = "optuna"
    """`optuna` is its TPE sampler, for one objective or several. `cmaes` is CMA-ES, for one objective; it needs the
    package cmaes. `nsga2` is NSGA-II. All but `random` and `grid` learn from the trials of earlier batches of eight."""
    warm_start: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), exclude_if=lambda runs: not runs, examples=[["my-run"]]
    )
    """Earlier runs on the same base, by folder or by name beside this one, whose trials the searcher `optuna` knows
    from the beginning (docs/search.md)."""
    scheduler: Literal["halving", "asha", "none"] = "halving"
    """Which trials are stopped because their eval loss lags at equal steps. `halving`: the best of a trial's own group
    of eight and of those before it go on, the same whoever comes first. `asha`: each report is judged by those that
    came before it, without waiting for any (Ray's own, arXiv 1810.05934). `none` runs all to their end."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One trial in this many goes on at each rung, and rungs lie this factor of steps apart."""
    runner: Literal["auto", "multi_lora", "isolated"] = "auto"
    """`multi_lora` trains many trials at once on one frozen base, on each device. `isolated` trains each trial as its
    own Ray Train job, which may span several workers and GPUs. `auto` is `multi_lora` where a trial fits one device
    (one worker with at most one GPU) and the engine can train on the base, else `isolated`."""
    max_concurrent: PositiveInt | None = None
    """Trials at once, over all devices. None: with `multi_lora`, eight where they fit the memory, and more where that
    is measured to train faster; with `isolated`, as many as the cluster holds."""
    keep: PositiveInt = 2
    """Best adapters that go on to evaluation."""
    objective: Objective = Field(default=EVAL_LOSS, exclude_if=lambda value: value == EVAL_LOSS)
    """What is best: the lowest `eval_loss`, a share of cases such as `tool_call_accuracy`, or several with their
    weights, `{tool_call_accuracy: 2, no_call_accuracy: 1}`, or a list of several, none of which is to be paid with the
    others (their Pareto front). Shares of which lower is better count against it. They are
    of replies to cases made from the validation part, never from the held-out one (docs/search.md)."""
    constraints: dict[MetricName, Bound] = Field(default={}, exclude_if=lambda value: not value)
    """Metric name -> bounds on those cases. An adapter that misses one comes after all that miss none; a search in
    which every adapter misses one ends with exit code 2."""
    cases: PositiveInt = Field(default=64, exclude_if=lambda value: value == 64)
    """Validation cases, drawn evenly over kinds, that an adapter answers for the objective and the constraints; the
    best are asked four times as many at the end, where there are so many."""
    seed: Seed = 0
    """Seed of the searcher, and of the draw of these cases."""

    @field_validator("objective", mode="before")
    @classmethod
    def _known_objective(cls, objective: Any) -> Any:
        return known_objective(objective)

    @field_validator("constraints", mode="before")
    @classmethod
    def _known_constraints(cls, constraints: Any) -> Any:
        return known_constraints(constraints)

    @field_validator("constraints")
    @classmethod
    def _constraints_can_be_met(cls, constraints: dict[MetricName, Bound]) -> dict[MetricName, Bound]:
        reachable(constraints)
        return constraints

    @field_validator("runner", mode="before")
    @classmethod
    def _runner_has_another_name(cls, runner: Any) -> Any:
        if runner == "packed":
            raise ValueError("no runner is called 'packed'; its name is 'multi_lora'")
        return runner

    @property
    def wants_scores(self) -> bool:
        """Whether anything but the eval loss decides."""
        return self.objective != EVAL_LOSS or bool(self.constraints)

    @property
    def turn(self) -> int | None:
        """Trials of a turn of cohorts, None for a single one. A grid has all points of a cohort in one turn."""
        if len(self.space.cohorts) == 1:
            return None
        if self.searcher != "grid":
            return TURN
        rates = self.space.learning_rate
        assert isinstance(rates, tuple)  # refused otherwise
        own = [values for name, values in self.space.further.items() if name not in SHARED]
        return math.prod(map(len, (self.space.r, self.space.alpha, rates, *own)))

    @model_validator(mode="after")
    def _grid_is_finite(self) -> "SearchConfig":
        if self.searcher == "grid" and not isinstance(self.space.learning_rate, tuple):
            example = "[1e-4, 2e-4, 5e-4]"
            raise ValueError(f"searcher 'grid' needs space.learning_rate as a list of values, such as {example}")
        return self

    @model_validator(mode="after")
    def _warm_start_has_a_learner(self) -> "SearchConfig":
        if self.warm_start and self.searcher != "optuna":
            raise ValueError(
                f"searcher '{self.searcher}' learns nothing of warm_start: leave it out, or set searcher to 'optuna'"
            )
        if self.warm_start and isinstance(self.objective, tuple):
            raise ValueError("warm_start orders earlier trials by eval loss, and a list has several objectives")
        return self

    @model_validator(mode="after")
    def _grid_needs_no_budget(self) -> "SearchConfig":
        if self.searcher == "grid" and self.budget is not None:
            raise ValueError("searcher 'grid' trains every combination: leave budget out, or take another searcher")
        return self

    @model_validator(mode="after")
    def _cmaes_has_one_objective(self) -> "SearchConfig":
        if self.searcher == "cmaes" and isinstance(self.objective, tuple):
            raise ValueError("searcher 'cmaes' has one objective: give objective weights, or take 'optuna' or 'nsga2'")
        return self

    @model_validator(mode="after")
    def _each_cohort_has_a_turn(self) -> "SearchConfig":
        count = len(self.space.cohorts)
        if count > 1 and self.budget is None and self.searcher != "grid" and self.num_trials < count * TURN:
            raise ValueError(
                f"space.{' and space.'.join(self.space.shared)} make {count} cohorts, which take turns of {TURN} "
                f"trials: raise search.num_trials from {self.num_trials} to at least {count * TURN}, or give fewer "
                "values"
            )
        return self
