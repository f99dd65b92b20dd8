"""A search's objective and constraints, as figures of an adapter and as paired tests between two.

An objective is one share of cases or several with weights: the sum of weight times figure, where a metric of which
lower is better counts negative. Two adapters are compared on the cases that both were scored on. Conversations are the
unit, as in `comparison`: p is of a randomisation test that exchanges the two sides of whole conversations (exact up to
`EXACT` that differ, else drawn with a fixed seed), the interval a percentile bootstrap over conversations to which one
gained and one lost are added.
"""

import math
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evals.records import Metric, Scores
from evals.stats.comparison import conversation_of
from evals.stats.metrics import METRICS
from orchestrator.config.objective import EVAL_LOSS, Bound
from orchestrator.config.schema import SearchConfig
from orchestrator.core.records import MetricName, Record

EXACT = 12
"""Conversations that differ, up to which every exchange is tried."""
_SEED, _DRAWS, _CLOSE = 0, 4999, 1e-12

Numbers = NDArray[np.float64]
Weights = Mapping[MetricName, float]


class Gap(Record):
    """One objective, or one constrained metric, of two adapters on the same cases.

    `difference` is left minus right, with a 95 % interval, over `n` conversations; positive is better on the left.
    `p_adjusted` is corrected for the comparisons made beside it (Holm).
    """

    left: str
    right: str
    of: str
    n: int
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float | None = None


class Aim(NamedTuple):
    """What a search looks for. `weights` are empty where that is the lowest eval loss; negative: lower is better.

    With `is_pareto` each is an objective of its own, and their sum only tells those of the front apart.
    """

    weights: Weights
    constraints: Mapping[MetricName, Bound]
    is_pareto: bool = False

    @classmethod
    def of(cls, search: SearchConfig) -> "Aim":
        """That of a configuration."""
        objective = search.objective
        if objective == EVAL_LOSS:
            return cls({}, search.constraints)
        given = objective if isinstance(objective, dict) else dict.fromkeys(named(objective), 1.0)
        weights = {name: weight * sign_of(name) for name, weight in given.items()}
        return cls(weights, search.constraints, isinstance(objective, tuple))

    @property
    def metrics(self) -> tuple[MetricName, ...]:
        """Everything that an adapter is measured by."""
        return tuple(dict.fromkeys((*self.weights, *self.constraints)))

    @property
    def text(self) -> str:
        """The objective in words."""
        if self.is_pareto:
            return "the Pareto front of " + " and ".join(self.weights)
        return weights_text(self.weights) if self.weights else EVAL_LOSS

    def value(self, scores: Scores) -> float | None:
        """An adapter's objective, higher is better; None where it is the eval loss or a share has no case."""
        shares = [(weight, scores.metrics[name].value) for name, weight in self.weights.items()]
        known = [weight * share for weight, share in shares if share is not None]
        return sum(known) if shares and len(known) == len(shares) else None

    def values(self, scores: Scores) -> tuple[float, ...] | None:
        """Each share of the objective, higher is better; None where it is the eval loss or a share has no case."""
        return signed_values(self.weights, scores.metrics)

    def missed(self, scores: Scores) -> dict[MetricName, float]:
        """By how much each constraint is missed that is missed; all of its range where a share has no case."""
        found = {name: missed_by(bound, scores.metrics[name].value) for name, bound in self.constraints.items()}
        return {name: amount for name, amount in found.items() if amount > 0}

    def unseen(self, own: Scores) -> dict[str, str]:
        """What no case can show, by its key in the configuration: why; `own` are the scores of the data's own replies.

        What vLLM's parser reads of a reply is not known before there is one.
        """
        lacking = [name for name in self.metrics if own.metrics[name].n == 0 and name != "serving_difference_rate"]
        return {
            f"search.constraints.{name}" if name in self.constraints else "search.objective": (
                f"{name} says nothing about any adapter: {own.metrics[name].why} in the validation part"
            )
            for name in lacking
        }


def named(objective: MetricName | tuple[MetricName, ...]) -> tuple[MetricName, ...]:
    """The shares of an objective without weights."""
    return objective if isinstance(objective, tuple) else (objective,)


def signed_values(weights: Weights, figures: Mapping[MetricName, Metric]) -> tuple[float, ...] | None:
    """The figures of an objective's shares, higher is better; None where there are no weights or one is unknown."""
    shares = [(weight, figures[name].value if name in figures else None) for name, weight in weights.items()]
    known = [math.copysign(share, weight) for weight, share in shares if share is not None]
    return tuple(known) if shares and len(known) == len(shares) else None


def front_of(values: Mapping[str, tuple[float, ...]]) -> frozenset[str]:
    """Whoever no other beats in one objective and at least equals in each, higher is better."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other, strict=True))

    return frozenset(name for name, own in values.items() if not any(beats(other, own) for other in values.values()))


ADD_CASES = "Raise data.split.val, give conversations of that kind, or choose another metric"
"""What to do where no case shows what is wanted."""


def sign_of(name: MetricName) -> int:
    """1 for a metric of which higher is better, else -1."""
    return 1 if METRICS[name].higher_is_better else -1


def weights_text(weights: Weights) -> str:
    """A weighted sum as people write it: `2 tool_call_accuracy - over_refusal_rate`."""
    if len(weights) == 1:
        return next(iter(weights))
    terms = [f"{'-' if w < 0 else '+'} {'' if abs(w) == 1 else f'{abs(w):g} '}{name}" for name, w in weights.items()]
    return " ".join(terms).removeprefix("+ ")


def missed_by(bound: Bound, value: float | None) -> float:
    """How far a value is outside of a bound; 0 where it is within, 1 where it is unknown."""
    if value is None:
        return 1.0
    below = bound.min - value if bound.min is not None else 0.0
    above = value - bound.max if bound.max is not None else 0.0
    return max(0.0, below, above)


def bound_text(name: MetricName, bound: Bound) -> str:
    """A constraint in words: `over_refusal_rate at most 0.05`."""
    bounds = (("at least", bound.min), ("at most", bound.max))
    return f"{name} {' and '.join(f'{word} {value:g}' for word, value in bounds if value is not None)}"


def compare_sides(weights: Weights, left: Scores, right: Scores) -> Gap | None:
    """The weighted sum of two adapters on the cases that both were scored on; None where a share has no such case."""
    table = _table(weights, left, right)
    if not len(table) or not table[..., 1].sum(axis=0).all():
        return None
    factors = np.array(list(weights.values()), dtype=np.float64)
    low, high = _interval(table, factors)
    return Gap(
        left=left.adapter_id,
        right=right.adapter_id,
        of=weights_text(weights),
        n=len(table),
        difference=float(_difference(table.sum(axis=0), factors)),
        low=low,
        high=high,
        p_value=_p_value(table, factors),
    )


def _table(weights: Weights, left: Scores, right: Scores) -> Numbers:
    """By conversation and metric: part and whole on the left, part and whole on the right."""
    rows: dict[str, int] = {}
    entries: list[tuple[int, int, tuple[int, int, int, int]]] = []
    for column, name in enumerate(weights):
        of_case = METRICS[name].part_and_whole
        theirs = {verdict.case_id: of_case(verdict) for verdict in right.verdicts}
        for verdict in left.verdicts:
            ours, other = of_case(verdict), theirs.get(verdict.case_id)
            if ours is not None and other is not None:
                row = rows.setdefault(conversation_of(verdict.case_id), len(rows))
                entries.append((row, column, (*ours, *other)))
    table = np.zeros((len(rows), len(weights), 4))
    for row, column, values in entries:
        table[row, column] += values
    return table


def _difference(sums: Numbers, factors: Numbers) -> Numbers:
    """The left side's weighted sum minus the right's, from sums of shape (..., metrics, 4)."""
    wholes = np.maximum(sums[..., [1, 3]], 1.0)
    shares = sums[..., [0, 2]] / wholes
    return np.asarray((shares[..., 0] - shares[..., 1]) @ factors)


def _p_value(table: Numbers, factors: Numbers) -> float:
    change = table[..., [2, 3, 0, 1]] - table
    change = change[change.any(axis=(1, 2))]
    if not len(change):
        return 1.0
    is_exact = len(change) <= EXACT
    if is_exact:
        exchanged = np.array(list(product((0.0, 1.0), repeat=len(change))))
    else:
        exchanged = np.random.default_rng(_SEED).integers(0, 2, (_DRAWS, len(change))).astype(np.float64)
    sums = table.sum(axis=0) + np.tensordot(exchanged, change, axes=1)
    seen = abs(float(_difference(table.sum(axis=0), factors)))
    as_far = int((np.abs(_difference(sums, factors)) >= seen - _CLOSE).sum())
    return as_far / len(exchanged) if is_exact else (as_far + 1) / (len(exchanged) + 1)


def _interval(table: Numbers, factors: Numbers) -> tuple[float, float]:
    gained, lost = (np.tile(row, (1, table.shape[1], 1)) for row in ([1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]))
    rows = np.concatenate([table, gained, lost])
    counts = np.random.default_rng(_SEED).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), _DRAWS)
    drawn = _difference(np.tensordot(counts.astype(np.float64), rows, axes=1), factors)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
