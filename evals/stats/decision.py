"""Which adapter to take, by rules that can be read in full here (why these: decision 12).

1. The one outcome that decides is `case_accuracy`: every case has it, so any two adapters can be paired on all cases.
2. The best adapter is the one with the highest score. Every other adapter is compared with it case by case; those that
   are not shown to be worse (p corrected for these comparisons below 0.05) are tied with it.
3. Every adapter is compared with the base, again with p corrected for these comparisons.
4. The leader is one of the tied adapters: those shown to be better than the base go before those above it, and these
   before the rest; then the lower eval loss leads, then the higher score, then the id.
5. The leader is the winner if it is shown to be better than the base and tied with no other adapter, adapters that give
   the same replies apart. Otherwise there is no winner, and the reason says how many cases would be needed.
6. There is no leader either if its score is not above the base's.
7. A leader shown to be worse than the base on one of `GUARDED` (p corrected over these) is named with a warning.

If `case_accuracy` is not known for every adapter and the base, nothing is compared and the lowest eval loss decides.

Not covered: cost and latency, and what another seed of training would give. The leader's figures are those of the best
of several on the same cases and flatter it a little; its comparison with the base is corrected, its score is not.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Scores, WinnerVerdict
from evals.report.text import METRICS, chance_text, difference_text, loss_text, metric_text, signed_text, value_text
from evals.stats.comparison import LEVEL, compare, pair_verdicts
from orchestrator.core.records import MetricName

PRIMARY: MetricName = "case_accuracy"
"""The outcome that decides, fixed before any adapter is scored."""

GUARDED: tuple[MetricName, ...] = ("over_refusal_rate", "refusal_recall", "tool_call_validity", "no_call_accuracy")
"""What a leader must not pay with: each is compared with the base, and a loss is told beside the verdict."""

Replies = Mapping[str, Mapping[str, str]]
"""Adapter id -> case id -> the reply's text."""


class _Field(NamedTuple):
    """What is known about the adapters, best first, before a leader is chosen."""

    ranked: list[AdapterSummary]
    base: AdapterSummary | None
    against_base: dict[str, Comparison]
    against_best: dict[str, Comparison]
    twins: frozenset[str]
    """Adapters whose every reply is the best one's."""

    def tied(self) -> list[AdapterSummary]:
        """The best adapter and all that are not shown to be worse."""
        others = self.ranked[1:]
        return [self.ranked[0], *(a for a in others if a.id in self.twins or not _is_shown(self.against_best[a.id]))]

    def leader(self) -> AdapterSummary:
        return min(self.tied(), key=self._order)

    def is_better_than_base(self, adapter: AdapterSummary) -> bool:
        return adapter.id in self.against_base and _is_shown(self.against_base[adapter.id])

    def is_above_base(self, adapter: AdapterSummary) -> bool:
        return adapter.id in self.against_base and (self.against_base[adapter.id].difference or 0.0) > 0

    def _order(self, adapter: AdapterSummary) -> tuple[bool, bool, float, int]:
        rank = self.ranked.index(adapter)
        return not self.is_better_than_base(adapter), not self.is_above_base(adapter), _eval_loss(adapter), rank


def decide_winner(
    adapters: Sequence[AdapterSummary],
    base: AdapterSummary | None,
    scores: Mapping[str, Scores],
    *,
    replies: Replies | None = None,
) -> tuple[WinnerVerdict, tuple[Comparison, ...]]:
    """Name the adapter to take among those of which at least one case was scored, or say why there is none.

    Args:
        adapters: The scored adapters, without the base.
        base: The base, or None where it was not scored.
        scores: What each of them scored, by adapter id.
        replies: The texts, which tell adapters that reply alike; without them no two adapters count as the same.

    Returns:
        The verdict, and the comparisons it rests on: each adapter with the base (left is the adapter), the best adapter
        (left) with each other one, and the leader with the base on every guarded metric that has cases.
    """
    if not adapters:
        return _nobody("No adapter was scored, so none can be recommended."), ()
    if not _primary_is_known(adapters, base):
        return _by_eval_loss(adapters), ()
    field = _compare_all(rank_adapters(adapters, base), base, scores, replies or {})
    leader = field.leader()
    has_leader = base is None or field.is_above_base(leader)
    guards = _guards(scores[leader.id], scores[base.id]) if base and has_leader else ()
    comparisons = (*field.against_base.values(), *field.against_best.values(), *guards)
    sentences = _verdict_sentences(field, leader)
    sentences += [*_twin_sentences(field, leader, replies or {}), *_guard_sentences(leader, guards)]
    is_winner = field.is_better_than_base(leader) and not _rivals(field)
    verdict = WinnerVerdict(
        winner=leader.id if is_winner else None,
        leader=leader.id if has_leader else None,
        reason=" ".join(sentences),
    )
    return verdict, comparisons


def rank_adapters(adapters: Sequence[AdapterSummary], base: AdapterSummary | None) -> list[AdapterSummary]:
    """Adapters by score, best first; equal scores by eval loss, then id.

    By eval loss alone where the score is not known for every adapter and the base.
    """
    is_known = _primary_is_known(adapters, base)
    return sorted(adapters, key=lambda a: (-_score(a) if is_known else 0.0, _eval_loss(a), a.id))


def _primary_is_known(adapters: Sequence[AdapterSummary], base: AdapterSummary | None) -> bool:
    everyone = [*adapters, base] if base else adapters
    return not any(math.isnan(_score(entry)) for entry in everyone)


def _score(entry: AdapterSummary) -> float:
    metric = entry.metrics.get(PRIMARY)
    return math.nan if metric is None or metric.value is None else metric.value


def _eval_loss(entry: AdapterSummary) -> float:
    return math.inf if entry.eval_loss is None else entry.eval_loss


def _is_shown(comparison: Comparison) -> bool:
    """Whether the left side is shown to be better."""
    p_value = comparison.p_adjusted
    return p_value is not None and p_value < LEVEL and comparison.gained > comparison.lost


def _compare_all(
    ranked: list[AdapterSummary], base: AdapterSummary | None, scores: Mapping[str, Scores], replies: Replies
) -> _Field:
    best = ranked[0]
    twins = frozenset(other.id for other in ranked[1:] if _reply_alike(replies, best.id, other.id))
    others = [other.id for other in ranked if other is not best and other.id not in twins]
    with_base = [adapter.id for adapter in ranked] if base else []
    base_pairs = [pair_verdicts(scores[name], scores[base.id], PRIMARY) for name in with_base if base]
    best_pairs = [pair_verdicts(scores[best.id], scores[name], PRIMARY) for name in others]
    return _Field(
        ranked=ranked,
        base=base,
        against_base=dict(zip(with_base, compare(base_pairs), strict=True)),
        against_best=dict(zip(others, compare(best_pairs), strict=True)),
        twins=twins,
    )


def _reply_alike(replies: Replies, one: str, other: str) -> bool:
    return one in replies and other in replies and replies[one] == replies[other]


def _rivals(field: _Field) -> list[AdapterSummary]:
    """Adapters tied with the best that are not the best one by another name."""
    return [a for a in field.tied()[1:] if a.id not in field.twins]


def _guards(leader: Scores, base: Scores) -> tuple[Comparison, ...]:
    pairs = [pair_verdicts(leader, base, name) for name in GUARDED]
    return compare([pair for pair in pairs if pair.case_ids])


def _nobody(reason: str) -> WinnerVerdict:
    return WinnerVerdict(winner=None, leader=None, reason=reason)


def _by_eval_loss(adapters: Sequence[AdapterSummary]) -> WinnerVerdict:
    best = min(adapters, key=lambda a: (_eval_loss(a), a.id))
    if best.eval_loss is None:
        return _nobody("No case was scored for every adapter and no eval loss is known, so none can be recommended.")
    reason = (
        "Cases are not scored for every adapter and the base, so eval loss decides: "
        f"adapter {best.id} has the lowest, {loss_text(best.eval_loss)}. "
        "The base has no eval loss, so an improvement over it is not shown."
    )
    return WinnerVerdict(winner=best.id, leader=best.id, reason=reason)


def _verdict_sentences(field: _Field, leader: AdapterSummary) -> list[str]:
    """The verdict, what it rests on, and what to do today."""
    against_base = field.against_base.get(leader.id)
    if against_base and not field.is_above_base(leader):
        return [_not_above_base(leader, against_base)]
    rivals = _rivals(field)
    if field.is_better_than_base(leader) and not rivals:
        return [f"Take adapter {leader.id}: {_figures(field, leader)}.", *_ahead_of_the_others(field)]
    sentences = []
    if field.base is None:
        sentences.append("No winner: the base was not scored, so an improvement over it is not shown.")
    if against_base and not field.is_better_than_base(leader):
        cause = f"adapter {leader.id} is not shown to be better than the base"
        sentences.append(f"No winner: {cause}{_evidence(against_base)}")
    if rivals:
        sentences += _tie_sentences(field, leader, rivals, is_first=not sentences)
    sentences.append(f"If one has to be taken today, take {leader.id}: {_why_today(field, leader, rivals)}.")
    return sentences


def _not_above_base(leader: AdapterSummary, against_base: Comparison) -> str:
    p_value = against_base.p_adjusted
    is_worse = p_value is not None and p_value < LEVEL
    claim = "is worse than the base" if is_worse else "does not score above the base"
    return f"No adapter is better than the base: the best, adapter {leader.id}, {claim}{_evidence(against_base)}"


def _figures(field: _Field, leader: AdapterSummary) -> str:
    text = f"it answers {metric_text(PRIMARY, leader.metrics[PRIMARY])} of the cases as asked"
    if field.base is None:
        return text
    base = metric_text(PRIMARY, field.base.metrics[PRIMARY])
    return f"{text}, the base {base}, a difference of {difference_text(field.against_base[leader.id])}"


def _ahead_of_the_others(field: _Field) -> list[str]:
    if not field.against_best:
        return []
    closest = max(field.against_best.values(), key=lambda comparison: comparison.p_adjusted or 0.0)
    num_others = len(field.against_best)
    others = "the other adapter," if num_others == 1 else f"all {num_others} other adapters, the closest being"
    return [f"It is also better than {others} {closest.right}: {difference_text(closest)}."]


def _tie_sentences(
    field: _Field, leader: AdapterSummary, rivals: Sequence[AdapterSummary], *, is_first: bool
) -> list[str]:
    best = field.ranked[0]
    rival = leader if leader in rivals else rivals[0]
    start = "No winner: the" if is_first else "The"
    claim = f"{start} best two, {best.id} and {rival.id}, cannot be told apart"
    sentences = [claim + _evidence(field.against_best[rival.id])]
    rest = [other.id for other in rivals if other is not rival]
    if rest:
        sentences.append(f"Nor can {_listed(rest)} be told apart from {best.id}.")
    return sentences


def _evidence(comparison: Comparison) -> str:
    """Counts, difference, p and the cases that would be needed: the end of a sentence, and perhaps one more."""
    if comparison.difference is None or comparison.low is None or comparison.high is None:
        return ": no case was scored for both."
    text = (
        f" with {comparison.n:,} cases: {comparison.gained} are answered as asked by {comparison.left} alone and "
        f"{comparison.lost} by {comparison.right} alone, a difference of {signed_text(comparison.difference)} "
        f"({signed_text(comparison.low)} to {signed_text(comparison.high)}), {chance_text(comparison)}."
    )
    if comparison.num_cases_needed is None:
        return text
    needed = f"about {_rounded(comparison.num_cases_needed):,} cases would be needed to show it (power 80 %)"
    return f"{text} If the difference is real, {needed}."


def _rounded(count: int) -> int:
    """Two significant digits: the count is an estimate from an estimate."""
    return int(float(f"{count:.2g}"))


def _why_today(field: _Field, leader: AdapterSummary, rivals: Sequence[AdapterSummary]) -> str:
    reasons = []
    if field.is_better_than_base(leader):
        reasons.append(f"it is shown to be better than the base ({difference_text(field.against_base[leader.id])})")
    elif field.is_above_base(leader):
        reasons.append("its score is above the base's")
    tied = [other for other in field.tied() if other is not leader]
    if rivals and _eval_loss(leader) < min(_eval_loss(other) for other in tied):
        losses = " and ".join(loss_text(other.eval_loss) for other in tied)
        reasons.append(f"it has the lowest eval loss of those ({loss_text(leader.eval_loss)} against {losses})")
    if len(field.ranked) > 1 and leader is field.ranked[0]:
        reasons.append(f"no adapter scores higher ({value_text(PRIMARY, _score(leader))})")
    return " and ".join(reasons) if reasons else f"it is the only one; {_figures(field, leader)}"


def _twin_sentences(field: _Field, leader: AdapterSummary, replies: Replies) -> list[str]:
    """Who replies exactly as another does, each adapter told once."""
    sentences, told = [], set[str]()
    base = [field.base] if field.base else []
    for one in [*base, leader, *field.ranked]:
        same = [a.id for a in field.ranked if a is not one and a.id not in told and _reply_alike(replies, one.id, a.id)]
        if same and one.id not in told:
            verb = "gives" if len(same) == 1 else "give"
            whose = "the base" if one is field.base else one.id
            sentences.append(f"{_listed(same)} {verb} the same reply as {whose} in every case.")
            told.update(same, [one.id])
    return sentences


def _guard_sentences(leader: AdapterSummary, guards: Sequence[Comparison]) -> list[str]:
    worse = [
        f"{METRICS[guard.metric].label.lower()} ({difference_text(guard)})"
        for guard in guards
        if guard.p_adjusted is not None and guard.p_adjusted < LEVEL and guard.lost > guard.gained
    ]
    return [f"Beware: {leader.id} is worse than the base in {_listed(worse)}."] if worse else []


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
