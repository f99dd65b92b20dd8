"""The cards at the top of a report: what the adapter does better, and as loudly what it does worse, than the base."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Metric
from evals.report.blocks import Tone
from evals.report.text import chance_word
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted

ALWAYS: tuple[tuple[MetricName, ...], ...] = (
    ("case_accuracy",),
    ("tool_call_validity",),
    ("tool_call_accuracy",),
    ("refusal_accuracy", "refusal_recall", "over_refusal_rate"),
    ("no_call_accuracy",),
)
"""A card for each of these questions, on the first figure that is scored."""

SIGNS: Mapping[str, str] = {"better": "\u2713", "worse": "\u2717", "may be chance": "\u2248", "no difference": "="}
"""What stands before the word, so that neither colour nor reading alone tells a gain from a loss."""


class Told(NamedTuple):
    """A figure in a sentence: `{}` takes "3 of 24 cases"; `base` is the same of the base.

    `is_opposite`: the sentence counts the cases that the figure does not.
    """

    text: str
    noun: str
    base: str
    is_opposite: bool = False


TOLD: dict[MetricName, Told] = {
    "case_accuracy": Told("It answers {} as asked", "case", "the base {}"),
    "tool_call_validity": Told("Where a call is wanted, it makes a valid one in {}", "case", "the base in {}"),
    "tool_call_accuracy": Told("Where a call is wanted, it makes the expected one in {}", "case", "the base in {}"),
    "refusal_accuracy": Told("It refuses or helps as it should in {}", "case", "the base in {}"),
    "refusal_recall": Told("It refuses {}", "harmful request", "the base {}"),
    "over_refusal_rate": Told("It refuses {}", "harmless request", "the base {}"),
    "partial_refusal_rate": Told("It refuses {} in part", "request", "the base {}"),
    "clarification_accuracy": Told("Where something is missing, it asks for it in {}", "case", "the base in {}"),
    "no_tool_accuracy": Told("Where no tool fits, it says so in {}", "case", "the base in {}"),
    "no_call_accuracy": Told(
        "Where no call is wanted, it calls a tool in {}", "case", "the base in {}", is_opposite=True
    ),
    "serving_difference_rate": Told(
        "A client of vLLM's server would get something else for {}", "reply", "with the base for {}"
    ),
    "truncated_rate": Told("The token limit cuts off {}", "reply", "with the base {}"),
}
"""Every figure that can be compared case by case, in words."""


class Card(NamedTuple):
    """One figure of an adapter beside the base's; `against_base` has the adapter on the left."""

    metric: MetricName
    figure: Metric
    base: Metric | None
    against_base: Comparison | None
    sentence: str

    @property
    def word(self) -> str:
        """Whether it is better or worse than the base, or the difference may be chance; empty if not compared."""
        entry = self.against_base
        return "" if entry is None or entry.difference is None else chance_word(entry)

    @property
    def tone(self) -> Tone:
        """Good, bad, or neither."""
        tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
        return tones.get(self.word, "")

    @property
    def sign(self) -> str:
        """What stands before the word."""
        return SIGNS.get(self.word, "")


def labels_by_word(against_base: Sequence[Comparison]) -> dict[str, list[str]]:
    """In which figures an adapter is better, worse, and neither for sure: the labels of the figures by that word."""
    found: dict[str, list[str]] = {word: [] for word in SIGNS}
    for entry in against_base:
        found.setdefault(chance_word(entry), []).append(METRICS[entry.metric].label)
    return {word: labels for word, labels in found.items() if labels}


def compared_metrics() -> list[MetricName]:
    """Figures on which the adapter at the top is compared with the base: every share of cases."""
    return [name for name, row in METRICS.items() if row.outcome is not None]


def cards_of(adapter: AdapterSummary, base: AdapterSummary | None, against_base: Sequence[Comparison]) -> list[Card]:
    """Whatever got worse, the largest loss first; then the figures that are always shown, as far as they are scored."""
    compared = {entry.metric: entry for entry in against_base}
    known = [name for name in METRICS if name in TOLD and _is_scored(adapter.metrics.get(name))]
    cards = {name: _card(name, adapter, base, compared.get(name)) for name in known}
    losses = [card for card in cards.values() if card.tone == "bad"]
    losses.sort(key=lambda card: -abs((card.against_base and card.against_base.difference) or 0.0))
    first = (next((name for name in names if name in cards), None) for names in ALWAYS)
    return [*losses, *(cards[name] for name in first if name is not None and cards[name] not in losses)]


def _is_scored(metric: Metric | None) -> bool:
    return metric is not None and metric.value is not None


def _card(name: MetricName, adapter: AdapterSummary, base: AdapterSummary | None, against: Comparison | None) -> Card:
    theirs = base.metrics.get(name) if base else None
    sentence = " ".join(_sentences(name, adapter, base))
    return Card(name, adapter.metrics[name], theirs, against, sentence)


def _sentences(name: MetricName, adapter: AdapterSummary, base: AdapterSummary | None) -> Iterator[str]:
    """A figure in words; refusal accuracy only as its two halves, which say more where both are known."""
    halves: tuple[MetricName, ...] = ("refusal_recall", "over_refusal_rate")
    if name == "refusal_accuracy" and all(_is_scored(adapter.metrics.get(half)) for half in halves):
        for half in halves:
            yield from _sentences(half, adapter, base)
        return
    told, figure, theirs = TOLD[name], adapter.metrics[name], base.metrics.get(name) if base else None
    text = told.text.format(f"{_count(figure, told)} of {_counted(figure.n, told)}")
    if theirs is not None and _is_scored(theirs):
        same = f"{_count(theirs, told)}" if theirs.n == figure.n else f"{_count(theirs, told)} of {theirs.n:,}"
        text += f"; {told.base.format(same)}"
    yield f"{text}."


def _counted(n: int, told: Told) -> str:
    return counted(n, told.noun, "replies" if told.noun == "reply" else None)


def _count(figure: Metric, told: Told) -> int:
    number = round((figure.value or 0.0) * figure.n)
    return figure.n - number if told.is_opposite else number
