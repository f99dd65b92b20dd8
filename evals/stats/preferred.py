"""Whether an adapter that learned preferences takes the place of the one that it was made from.

Both are compared case by case, with p corrected over all figures of `COMPARED`: what preferences may be for, and what
must not be paid for it. The made one is kept if it is shown to be better in one of them and worse in none, and if it
gets at most `MOST_LOST` fewer of the calls right, even where that may be chance. Which of the two goes on is settled
before any other adapter is looked at, so none competes with its own earlier state.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Scores
from evals.stats.ceiling import blind_metrics
from evals.stats.comparison import LEVEL, compare, pair_verdicts
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName

CALLS: MetricName = "tool_call_accuracy"
MOST_LOST = 0.02
"""Share of calls that may be lost."""
COMPARED: tuple[MetricName, ...] = (
    *("case_accuracy", CALLS, "tool_call_validity", "refusal_accuracy", "refusal_recall", "over_refusal_rate"),
    *("clarification_accuracy", "no_tool_accuracy", "no_call_accuracy"),
)


class Preferred(NamedTuple):
    """An adapter made by preferences against the one that it was made from, on each figure that has cases."""

    made: str
    start: str
    comparisons: tuple[Comparison, ...]

    @property
    def better(self) -> list[Comparison]:
        """In what the made one is shown to be better."""
        return [one for one in self.comparisons if _is_shown(one) and one.gained > one.lost]

    @property
    def worse(self) -> list[Comparison]:
        """In what it is shown to be worse, or loses more calls than it may."""
        return [one for one in self.comparisons if (_is_shown(one) and one.lost > one.gained) or _loses_calls(one)]

    @property
    def is_kept(self) -> bool:
        """Whether it takes the place of the one that it was made from."""
        return bool(self.better) and not self.worse

    @property
    def set_aside(self) -> str:
        """The one of the two that is not looked at further."""
        return self.start if self.is_kept else self.made


def against_starts(adapters: Sequence[AdapterSummary], scores: Mapping[str, Scores]) -> tuple[Preferred, ...]:
    """Every adapter made by preferences whose start was scored too; without that it is an adapter like any other."""
    made = [(one.id, str(one.init_from)) for one in adapters if one.pairs is not None]
    both = [(name, start) for name, start in made if start in scores]
    return tuple(Preferred(name, start, _compared(scores[name], scores[start])) for name, start in both)


def _compared(made: Scores, start: Scores) -> tuple[Comparison, ...]:
    blind = blind_metrics(made.ceilings)
    pairs = [pair_verdicts(made, start, name) for name in COMPARED if name not in blind]
    return compare([pair for pair in pairs if pair.case_ids])


def _is_shown(comparison: Comparison) -> bool:
    return comparison.p_adjusted is not None and comparison.p_adjusted < LEVEL


def _loses_calls(comparison: Comparison) -> bool:
    return comparison.metric == CALLS and (comparison.difference or 0.0) < -MOST_LOST


def preferred_text(one: Preferred) -> str:
    """What came of preferences, as a sentence."""
    made = f"{one.made}, {one.start} after preferences,"
    if one.is_kept:
        return f"{made} takes its place: better in {_told(one.better)}, worse in nothing that counts."
    if one.worse:
        gained = f", though better in {_told(one.better)}" if one.better else ""
        return f"{made} is set aside: worse in {_told(one.worse)}{gained}."
    return f"{made} is set aside: nothing shows that it is better in anything."


def _told(comparisons: Sequence[Comparison]) -> str:
    texts = [f"{METRICS[one.metric].label.lower()} ({one.difference or 0.0:+.2f})" for one in comparisons]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
