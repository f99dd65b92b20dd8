"""Which of a search's adapters are kept: by the objective, under the constraints, paired; ties go by eval loss.

1. Adapters that meet every constraint come before those that miss one, and these before any without replies.
2. The best is the one with the highest objective among them (without one, the lowest eval loss); where none meets the
   constraints, the one that misses them by the least in all.
3. An adapter is behind where a paired test shows it to be worse than the best (p below 0.05, corrected by Holm over all
   tests made): in the objective, or in a constrained metric whose bound it misses and the best does not.
4. Those that are not behind are tied, and the lower eval loss goes first; the rest follow by objective.

With several objectives the best is taken from the Pareto front: of the adapters that miss the constraints by the least,
those that no other beats in one objective and at least equals in each. All of it comes before the rest.

At a rung, where adapters are half trained, a missed constraint alone counts for nothing: only who is behind goes last.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evals.records import Scores
from evals.stats.comparison import LEVEL, holm
from evals.stats.metrics import METRICS
from evals.stats.objective import Aim, Gap, Weights, compare_sides, front_of
from orchestrator.config.objective import Bound
from orchestrator.core.records import MetricName

RULE = (
    "Adapters that meet every constraint come first. Of these the highest objective is best, and whoever is not shown "
    "to be worse than it (paired test over conversations, p below 0.05 by Holm) is tied with it; ties go by eval loss."
)


PARETO_RULE = (
    "Adapters that meet every constraint come first, and of these the Pareto front: those that no other beats in one "
    "objective and at least equals in each. Of the front the highest sum of the objectives is best, and whoever is not "
    "shown to be worse than it in that (paired test over conversations, p below 0.05 by Holm) is tied with it; ties go "
    "by eval loss."
)


class Asked(NamedTuple):
    """An adapter with its eval loss and what it made of the cases; None where it gave no replies."""

    id: str
    eval_loss: float
    scores: Scores | None


class Standing(NamedTuple):
    """How adapters compare: the best, who is behind it and in what, and by how much each misses the constraints.

    `front` is the Pareto front of several objectives; empty where there is one.
    """

    best: str | None
    gaps: tuple[Gap, ...]
    missed: Mapping[str, Mapping[MetricName, float]]
    front: frozenset[str] = frozenset()

    @property
    def behind(self) -> frozenset[str]:
        """Who is shown to be worse than the best."""
        return frozenset(gap.left for gap in self.gaps if is_shown_worse(gap))


def is_shown_worse(gap: Gap) -> bool:
    """Whether the left side is shown to be worse."""
    return gap.difference < 0 and gap.p_adjusted is not None and gap.p_adjusted < LEVEL


def stand(aim: Aim, there: Sequence[Asked]) -> Standing:
    """Compare adapters on the cases that they share."""
    scored = {one.id: one.scores for one in there if one.scores is not None}
    missed = {name: aim.missed(scores) for name, scores in scored.items()}
    if not scored:
        return Standing(None, (), {})
    losses = {one.id: one.eval_loss for one in there}

    def rank(name: str) -> tuple[bool, float, float, float]:
        amount = sum(missed[name].values())
        value = aim.value(scored[name])
        return amount > 0, amount, -(value or 0.0), losses[name]

    best = min(scored, key=rank)
    gaps = list(_gaps(aim, scored, missed, best))
    adjusted = holm([gap.p_value for gap in gaps])
    return Standing(
        best,
        tuple(gap.model_copy(update={"p_adjusted": p}) for gap, p in zip(gaps, adjusted, strict=True)),
        missed,
        _front(aim, scored, missed) if aim.is_pareto else frozenset(),
    )


def _front(aim: Aim, scored: Mapping[str, Scores], missed: Mapping[str, Mapping[MetricName, float]]) -> frozenset[str]:
    """The front of those that miss the constraints by the least in all."""
    least = min(sum(amounts.values()) for amounts in missed.values())
    there = {name: aim.values(scores) for name, scores in scored.items() if sum(missed[name].values()) <= least}
    return front_of({name: values for name, values in there.items() if values is not None})


def _gaps(
    aim: Aim, scored: Mapping[str, Scores], missed: Mapping[str, Mapping[MetricName, float]], best: str
) -> Iterator[Gap]:
    for name, scores in scored.items():
        only_here = [metric for metric in missed[name] if metric not in missed[best]]
        wanted = [aim.weights] if aim.weights else []
        wanted += [_towards(aim.constraints[m], m, scores) for m in only_here if METRICS[m].of_reply is None]
        for weights in wanted if name != best else ():
            gap = compare_sides(weights, scores, scored[best])
            if gap is not None:
                yield gap


def _towards(bound: Bound, metric: MetricName, scores: Scores) -> Weights:
    """The metric that misses this bound, signed so that more is nearer to it."""
    value = scores.metrics[metric].value
    is_low = bound.min is not None and (value is None or value < bound.min)
    return {metric: 1.0 if is_low else -1.0}


def in_order(aim: Aim, there: Sequence[Asked], *, is_final: bool) -> list[Asked]:
    """The adapters, best first, in the order in which they were given where nothing else tells them apart."""
    standing = stand(aim, there)
    values = {one.id: (aim.value(one.scores) or 0.0) if one.scores else 0.0 for one in there}

    def rank(one: Asked) -> tuple[bool, float, bool, bool, float, float]:
        is_behind = one.id in standing.behind
        amount = sum(standing.missed.get(one.id, {}).values()) if is_final else 0.0
        is_beaten = is_final and aim.is_pareto and one.id not in standing.front
        value = -values[one.id] if is_behind else 0.0
        return is_final and one.scores is None, amount, is_beaten, is_behind, value, one.eval_loss

    return sorted(there, key=rank)
