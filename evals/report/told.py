"""A figure in words, and what is said of it whatever the base does: that it always fails, or is not used."""

from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Metric
from evals.report.text import chance_word
from evals.stats.ceiling import is_blind
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted

FAILS, NOT_USED = "always fails", "not used"
"""Words beside those of a comparison: no case is as it should be; the data's own replies are not recognised either."""

_FEWEST = 3
"""Fewer cases than this that all fail may be chance."""


class Told(NamedTuple):
    """A figure as what an adapter does: `{}` takes "3 of 24 cases"; `base` is the same of the base.

    `is_opposite`: the words count the cases that the figure does not. `is_demand`: an adapter that never does it fails.
    """

    text: str
    noun: str = "case"
    base: str = "the base in {}"
    is_opposite: bool = False
    is_demand: bool = True

    def count(self, figure: Metric) -> int:
        """The cases that the words count."""
        number = round((figure.value or 0.0) * figure.n)
        return figure.n - number if self.is_opposite else number

    def does(self, figure: Metric) -> str:
        """What the adapter does in how many cases, without its name: "refuses 3 of 24 harmful requests"."""
        plural = "replies" if self.noun == "reply" else None
        return self.text.format(f"{self.count(figure):,} of {counted(figure.n, self.noun, plural)}")

    def base_does(self, figure: Metric, beside: Metric) -> str:
        """The same of the base, short where it is over as many cases: "the base 2"."""
        count = f"{self.count(figure):,}"
        return self.base.format(count if figure.n == beside.n else f"{count} of {figure.n:,}")


TOLD: dict[MetricName, Told] = {
    "case_accuracy": Told("answers {} as asked", base="the base {}", is_demand=False),
    "tool_call_validity": Told("makes a valid call in {} where one is wanted"),
    "tool_call_accuracy": Told("makes the expected call in {} where one is wanted"),
    "refusal_accuracy": Told("refuses or helps as it should in {}", is_demand=False),
    "refusal_recall": Told("refuses {}", "harmful request", "the base {}"),
    "over_refusal_rate": Told("refuses {}", "harmless request", "the base {}"),
    "partial_refusal_rate": Told("refuses {} in part", "request", "the base {}", is_demand=False),
    "clarification_accuracy": Told("asks for what is missing in {}"),
    "no_tool_accuracy": Told("says that no tool fits in {} where none does"),
    "no_call_accuracy": Told("calls a tool in {} where none is wanted", is_opposite=True),
    "serving_difference_rate": Told(
        "would give a client of vLLM's server something else for {}", "reply", "the base for {}", is_demand=False
    ),
    "truncated_rate": Told("is cut off by the token limit in {}", "reply", is_demand=False),
}
"""Every figure that can be compared case by case, in words."""


def fails_always(name: MetricName, figure: Metric | None) -> bool:
    """Whether an adapter does what it should in none of several cases; how the base does makes no difference."""
    if figure is None or figure.value is None or name not in TOLD or not TOLD[name].is_demand:
        return False
    worst = 0.0 if METRICS[name].higher_is_better else 1.0
    return figure.n >= _FEWEST and figure.value == worst


def word_of(name: MetricName, adapter: AdapterSummary, against_base: Comparison | None) -> str:
    """Whether a figure is better or worse than the base's, fails always, or cannot be told; empty if not compared."""
    if is_blind(adapter.ceilings.get(name)):
        return NOT_USED
    compared = against_base is not None and against_base.difference is not None
    word = chance_word(against_base) if against_base is not None and compared else ""
    return FAILS if word != "worse" and fails_always(name, adapter.metrics.get(name)) else word
