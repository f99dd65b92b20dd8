"""The cards at the top of a report: what the adapter does better, and as loudly what it does worse, than the base."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Metric
from evals.report.blocks import Tone
from evals.report.told import FAILS, NOT_USED, TOLD, word_of
from evals.stats.ceiling import ceiling_text
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName

ALWAYS: tuple[tuple[MetricName, ...], ...] = (
    ("case_accuracy",),
    ("tool_call_validity",),
    ("tool_call_accuracy",),
    ("refusal_accuracy", "refusal_recall", "over_refusal_rate"),
    ("no_call_accuracy",),
)
"""A card for each of these questions, on the first figure that is scored."""

SIGNS: Mapping[str, str] = {
    "better": "\u2713",
    "worse": "\u2717",
    FAILS: "!",
    "may be chance": "\u2248",
    "no difference": "=",
    NOT_USED: "?",
}
"""What stands before the word, so that neither colour nor reading alone tells a gain from a loss."""
TONES: Mapping[str, Tone] = {"better": "good", "worse": "bad", FAILS: "bad"}


class Card(NamedTuple):
    """One figure of an adapter beside the base's; `against_base` has the adapter on the left."""

    metric: MetricName
    figure: Metric
    base: Metric | None
    against_base: Comparison | None
    sentence: str
    word: str
    """As `told.word_of` has it."""

    @property
    def tone(self) -> Tone:
        """Good, bad, or neither."""
        return TONES.get(self.word, "")

    @property
    def sign(self) -> str:
        """What stands before the word."""
        return SIGNS.get(self.word, "")


def labels_by_word(adapter: AdapterSummary, against_base: Sequence[Comparison]) -> dict[str, list[str]]:
    """In which figures an adapter is better, worse, and neither for sure: the labels of the figures by that word."""
    found: dict[str, list[str]] = {word: [] for word in SIGNS}
    for entry in against_base:
        word = word_of(entry.metric, adapter, entry) or "not compared"
        found.setdefault(word, []).append(METRICS[entry.metric].label)
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
    return Card(name, adapter.metrics[name], theirs, against, sentence, word_of(name, adapter, against))


def _sentences(name: MetricName, adapter: AdapterSummary, base: AdapterSummary | None) -> Iterator[str]:
    """A figure in words; refusal accuracy only as its two halves, which say more where both are known."""
    halves: tuple[MetricName, ...] = ("refusal_recall", "over_refusal_rate")
    if name == "refusal_accuracy" and all(_is_scored(adapter.metrics.get(half)) for half in halves):
        for half in halves:
            yield from _sentences(half, adapter, base)
        return
    told, figure, theirs = TOLD[name], adapter.metrics[name], base.metrics.get(name) if base else None
    beside = f"; {told.base_does(theirs, figure)}" if theirs is not None and _is_scored(theirs) else ""
    yield f"It {told.does(figure)}{beside}."
    if ceiling := adapter.ceilings.get(name):
        text = ceiling_text(name, ceiling)
        yield f"{text[0].upper()}{text[1:]}."
