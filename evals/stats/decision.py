"""Which adapter to take, by rules that can be read in full here (why these: decision 12).

What comes out are facts; `evals.report.verdict` puts them into sentences.

1. One outcome decides. It is `case_accuracy`, which every case has, so any two adapters can be paired on all cases;
   in a run whose search looked for one share of cases of which more is better, it is that.
2. The best adapter is the one with the highest score. Every other adapter is compared with it case by case; those that
   are not shown to be worse (p corrected for these comparisons below 0.05) are tied with it.
3. Every adapter is compared with the base, again with p corrected for these comparisons.
4. The leader is one of the tied adapters: those shown to be better than the base go before those above it, and these
   before the rest; then the lower eval loss leads, then the higher score, then the id.
5. The leader is the winner if it is shown to be better than the base and tied with no other adapter (adapters that give
   the same replies as it does not counted). Otherwise there is no winner; how many cases would be needed is estimated.
6. There is no leader either if its score is not above the base's.
7. A leader shown to be worse than the base on one of `GUARDED` (p corrected over these) is named with a warning.
   Metrics whose ceiling is too low are left out (`ceiling`).

Before all this, of an adapter that learned preferences and the one it was made from, one is set aside (`preferred`).

If that outcome is not known for every adapter and the base, nothing is compared and the lowest eval loss decides.

Not covered: cost and latency, and what another seed of training would give. The leader's figures are those of the best
of several on the same cases and flatter it a little; its comparison with the base is corrected, its score is not.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Scores
from evals.stats.ceiling import blind_metrics
from evals.stats.comparison import LEVEL, compare, pair_verdicts
from evals.stats.metrics import METRICS
from evals.stats.preferred import Preferred, against_starts
from orchestrator.core.records import MetricName

PRIMARY: MetricName = "case_accuracy"
"""The outcome that decides unless the search had another, fixed before any adapter is scored."""

GUARDED: tuple[MetricName, ...] = tuple(name for name, row in METRICS.items() if row.guarded)
"""What a leader must not pay with: it is compared with the base on each."""

MIN_OFTEN, MIN_OFTEN_SHARE = 3, 0.05
"""Something has to befall so many replies, and this share of them, before it is said in the verdict."""

Replies = Mapping[str, Mapping[str, str]]
"""Adapter id -> case id -> the reply's text."""


class Outcome(Enum):
    """What the comparison of adapters came to; where several hold, the first of them in this order."""

    NO_ADAPTER_SCORED = auto()
    NOTHING_KNOWN = auto()
    """Neither a score for every adapter nor any eval loss."""
    BY_EVAL_LOSS = auto()
    """Scores are missing, so the lowest eval loss wins."""
    NOT_ABOVE_BASE = auto()
    WINNER = auto()
    BASE_NOT_SCORED = auto()
    NOT_SHOWN_BETTER = auto()
    """The leader's lead over the base may be chance."""
    TIED = auto()
    """The leader is better than the base but cannot be told apart from others."""


@dataclass(frozen=True)
class Field:
    """The adapters, best first, and how they compare; adapters whose every reply is the best one's are its `twins`.

    `primary` is the outcome that decides.
    """

    ranked: tuple[AdapterSummary, ...]
    base: AdapterSummary | None
    against_base: Mapping[str, Comparison]
    against_best: Mapping[str, Comparison]
    twins: frozenset[str]
    primary: MetricName = PRIMARY

    def tied(self) -> list[AdapterSummary]:
        """The best adapter and all that are not shown to be worse."""
        others = self.ranked[1:]
        return [self.ranked[0], *(a for a in others if a.id in self.twins or not _is_shown(self.against_best[a.id]))]

    def rivals(self) -> list[AdapterSummary]:
        """Adapters tied with the best that do not merely repeat its replies."""
        return [a for a in self.tied()[1:] if a.id not in self.twins]

    def is_better_than_base(self, adapter: AdapterSummary) -> bool:
        """Whether an adapter is shown to be better than the base."""
        return adapter.id in self.against_base and _is_shown(self.against_base[adapter.id])

    def is_above_base(self, adapter: AdapterSummary) -> bool:
        """Whether an adapter scores higher than the base, be it by chance."""
        return adapter.id in self.against_base and (self.against_base[adapter.id].difference or 0.0) > 0

    def order(self, adapter: AdapterSummary) -> tuple[bool, bool, float, int]:
        """The rule by which one of the tied adapters leads: the smallest does."""
        rank = self.ranked.index(adapter)
        return not self.is_better_than_base(adapter), not self.is_above_base(adapter), loss_or_inf(adapter), rank


@dataclass(frozen=True)
class Decision:
    """Which adapter to take, as facts. Produced by `decide_winner`, put into sentences by the report.

    Args:
        outcome: What the comparison came to.
        subject: The adapter that the outcome is about: the winner, the leader, or the best of those that are not above
            the base; None where there is none.
        field: All adapters with their comparisons; None where nothing was compared.
        same_replies: Id of an adapter or the base -> ids of the adapters that give the same reply in every case.
        guards: The leader against the base on every guarded metric that has cases.
        preferred: Adapters made by preferences against those that they were made from; one of each two is set aside.
    """

    outcome: Outcome
    subject: AdapterSummary | None = None
    field: Field | None = None
    same_replies: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    guards: tuple[Comparison, ...] = ()
    preferred: tuple[Preferred, ...] = ()

    @property
    def winner(self) -> str | None:
        """The adapter to take, if one is shown to be the best or only eval loss is known."""
        has_won = self.outcome in (Outcome.WINNER, Outcome.BY_EVAL_LOSS)
        return self.subject.id if self.subject and has_won else None

    @property
    def leader(self) -> str | None:
        """The adapter to take if one has to be taken."""
        return self.subject.id if self.subject and self.outcome is not Outcome.NOT_ABOVE_BASE else None

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Each adapter with the base (left is the adapter), the best with each other one (left is the best), guards.

        Then what preferences made with what they were made from.
        """
        made = [comparison for one in self.preferred for comparison in one.comparisons]
        if self.field is None:
            return tuple(made)
        return (*self.field.against_base.values(), *self.field.against_best.values(), *self.guards, *made)

    @property
    def guards_worse(self) -> list[Comparison]:
        """The guarded metrics on which the leader is shown to be worse than the base."""
        return [guard for guard in self.guards if is_significant(guard) and guard.lost > guard.gained]


def decide_winner(
    adapters: Sequence[AdapterSummary],
    base: AdapterSummary | None,
    scores: Mapping[str, Scores],
    *,
    replies: Replies | None = None,
    primary: MetricName = PRIMARY,
) -> Decision:
    """Decide which adapter to take among those (the base not counted) of which at least one case was scored.

    `base` is None where it was not scored; `scores` are by adapter id; `primary` is the outcome that decides. Without
    `replies` no two adapters are known to reply alike.
    """
    preferred = against_starts(adapters, scores)
    set_aside = {one.set_aside for one in preferred}
    finalists = [adapter for adapter in adapters if adapter.id not in set_aside]
    return dataclasses.replace(_decide(finalists, base, scores, replies, primary), preferred=preferred)


def _decide(
    adapters: Sequence[AdapterSummary],
    base: AdapterSummary | None,
    scores: Mapping[str, Scores],
    replies: Replies | None,
    primary: MetricName,
) -> Decision:
    if not adapters:
        return Decision(Outcome.NO_ADAPTER_SCORED)
    ranked = rank_adapters(adapters, base, primary)
    if not _primary_is_known(adapters, base, primary):
        best = ranked[0]
        known = best.eval_loss is not None
        return Decision(Outcome.BY_EVAL_LOSS, best) if known else Decision(Outcome.NOTHING_KNOWN)
    texts = replies or {}
    field = _compare_all(ranked, base, scores, texts, primary)
    leader = min(field.tied(), key=field.order)
    outcome = _outcome(field, leader)
    has_guards = base is not None and outcome is not Outcome.NOT_ABOVE_BASE
    return Decision(
        outcome=outcome,
        subject=ranked[0] if outcome is Outcome.NOT_ABOVE_BASE else leader,
        field=field,
        same_replies=_same_replies(field, leader, texts),
        guards=_guards(scores[leader.id], scores[base.id]) if base and has_guards else (),
    )


class CutOff(NamedTuple):
    """An adapter, or the base, and how many of its replies the token limit ended."""

    adapter: AdapterSummary
    num_cut_off: int
    num_replies: int


def often_cut_off(entries: Iterable[AdapterSummary]) -> list[CutOff]:
    """Those of whose replies more than a few were cut off, so that their figures are of the limit as well."""
    found = [(entry, entry.metrics["truncated_rate"]) for entry in entries if "truncated_rate" in entry.metrics]
    counts = [CutOff(entry, round((metric.value or 0.0) * metric.n), metric.n) for entry, metric in found]
    return [one for one in counts if is_often(one.num_cut_off, one.num_replies)]


def is_often(count: int, num_replies: int) -> bool:
    """Whether so many of an adapter's replies are enough to be told in the verdict."""
    return count >= max(MIN_OFTEN, MIN_OFTEN_SHARE * num_replies)


def _outcome(field: Field, leader: AdapterSummary) -> Outcome:
    if field.base is None:
        return Outcome.BASE_NOT_SCORED
    if not field.is_above_base(leader):
        return Outcome.NOT_ABOVE_BASE
    if not field.is_better_than_base(leader):
        return Outcome.NOT_SHOWN_BETTER
    return Outcome.TIED if field.rivals() else Outcome.WINNER


def rank_adapters(
    adapters: Sequence[AdapterSummary], base: AdapterSummary | None, primary: MetricName = PRIMARY
) -> list[AdapterSummary]:
    """Adapters by score, best first; equal scores by eval loss, then id.

    By eval loss alone where the score is not known for every adapter and the base.
    """
    is_known = _primary_is_known(adapters, base, primary)
    return sorted(adapters, key=lambda a: (-_score(a, primary) if is_known else 0.0, loss_or_inf(a), a.id))


def is_significant(comparison: Comparison) -> bool:
    """Whether the corrected p is below the level."""
    return comparison.p_adjusted is not None and comparison.p_adjusted < LEVEL


def loss_or_inf(adapter: AdapterSummary) -> float:
    """The eval loss, infinite where it is not known."""
    return math.inf if adapter.eval_loss is None else adapter.eval_loss


def _primary_is_known(adapters: Sequence[AdapterSummary], base: AdapterSummary | None, primary: MetricName) -> bool:
    everyone = [*adapters, base] if base else adapters
    return not any(math.isnan(_score(entry, primary)) for entry in everyone)


def _score(entry: AdapterSummary, primary: MetricName) -> float:
    metric = entry.metrics.get(primary)
    return math.nan if metric is None or metric.value is None else metric.value


def _is_shown(comparison: Comparison) -> bool:
    """Whether the left side is shown to be better."""
    return is_significant(comparison) and comparison.gained > comparison.lost


def _compare_all(
    ranked: list[AdapterSummary],
    base: AdapterSummary | None,
    scores: Mapping[str, Scores],
    replies: Replies,
    primary: MetricName,
) -> Field:
    best = ranked[0]
    twins = frozenset(other.id for other in ranked[1:] if _reply_alike(replies, best.id, other.id))
    others = [other.id for other in ranked if other is not best and other.id not in twins]
    with_base = [adapter.id for adapter in ranked] if base else []
    base_pairs = [pair_verdicts(scores[name], scores[base.id], primary) for name in with_base if base]
    best_pairs = [pair_verdicts(scores[best.id], scores[name], primary) for name in others]
    return Field(
        ranked=tuple(ranked),
        base=base,
        against_base=dict(zip(with_base, compare(base_pairs), strict=True)),
        against_best=dict(zip(others, compare(best_pairs), strict=True)),
        twins=twins,
        primary=primary,
    )


def _reply_alike(replies: Replies, one: str, other: str) -> bool:
    return one in replies and other in replies and replies[one] == replies[other]


def _guards(leader: Scores, base: Scores) -> tuple[Comparison, ...]:
    blind = blind_metrics(leader.ceilings)
    pairs = [pair_verdicts(leader, base, name) for name in GUARDED if name not in blind]
    return compare([pair for pair in pairs if pair.case_ids])


def _same_replies(field: Field, leader: AdapterSummary, replies: Replies) -> dict[str, tuple[str, ...]]:
    """Who replies exactly as another does, each adapter named once."""
    found, named = {}, set[str]()
    base = [field.base] if field.base else []
    ids = [adapter.id for adapter in field.ranked]
    for one in [entry.id for entry in (*base, leader, *field.ranked)]:
        same = tuple(id_ for id_ in ids if id_ not in {one, *named} and _reply_alike(replies, one, id_))
        if same and one not in named:
            found[one] = same
            named.update(same, [one])
    return found
