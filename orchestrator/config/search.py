"""The section `search` of the configuration: what is searched, by which rules."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.config.evaluation import Positive, PositiveInt, Section, Seed
from orchestrator.config.objective import EVAL_LOSS, Bound, Objective, known_constraints, known_objective, reachable
from orchestrator.config.training import ServableRank
from orchestrator.core.records import MetricName


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


class SpaceConfig(Section):
    """What the search may choose. Defaults follow published sweeps (docs/decisions/0016-search-defaults.md)."""

    r: tuple[ServableRank, ...] = Field(default=(8, 16, 32, 64), min_length=1)
    """Ranks; doubling from one to the next makes the choice even on a log scale."""
    alpha: tuple[PositiveInt, ...] = Field(default=(16, 32, 64), min_length=1)
    """Alphas; a few are enough, for alpha and learning rate do nearly the same."""
    learning_rate: RangeConfig | Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """A log-uniform range `{min, max}`, or a list of values (the grid searcher needs a list). None is a range around
    the rate that is known to suit a base of this size at this batch size, from a fifth of it to five times it."""


class SearchConfig(Section):
    """The search over rank, alpha and learning rate."""

    num_trials: PositiveInt = 8
    """Adapters to train, the first at r 32, alpha 32 and the known learning rate, or in the middle of a space that
    lies elsewhere, the second at lora.r, lora.alpha and train.learning_rate if the space holds them; the grid searcher
    trains every combination up to this many."""
    space: SpaceConfig = SpaceConfig()
    """What may be chosen."""
    searcher: Literal["random", "grid", "optuna", "cmaes", "nsga2"] = "optuna"
    """`optuna` is its TPE sampler, for one objective or several. `cmaes` is CMA-ES, for one objective; it needs the
    package cmaes. `nsga2` is NSGA-II. All but `random` and `grid` learn from the trials of earlier batches of eight."""
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
    weights, `{tool_call_accuracy: 2, no_call_accuracy: 1}`. Shares of which lower is better count against it. They are
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

    @model_validator(mode="after")
    def _grid_is_finite(self) -> "SearchConfig":
        if self.searcher == "grid" and not isinstance(self.space.learning_rate, tuple):
            example = "[1e-4, 2e-4, 5e-4]"
            raise ValueError(f"searcher 'grid' needs space.learning_rate as a list of values, such as {example}")
        return self
