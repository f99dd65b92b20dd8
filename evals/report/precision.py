"""What the quantised base costs: each model on it beside the same model on the full one, case by case."""

from collections.abc import Iterator, Mapping, Sequence

from evals.records import BaseWeightsAs, Comparison, Scores
from evals.report.blocks import Block, Datum, Heading, Note, Table
from evals.report.cards import compared_metrics
from evals.report.text import chance_text, difference_interval, difference_value
from evals.report.view import View
from evals.stats.comparison import compare, pair_verdicts
from evals.stats.metrics import METRICS
from orchestrator.core.records import BASE_ADAPTER_ID

ON_FULL = " on the full base"
"""Ends the name of a model there."""
HELD_AS: dict[BaseWeightsAs, str] = {
    "nf4": "the NF4 base that they were trained on, which vLLM loads by bitsandbytes",
    "dequantised_nf4": "the dequantised weights of the NF4 base that they were trained on",
    "dequantised_int8": "the dequantised weights of the 8-bit base that they were trained on",
}


def precision_gaps(scores: Mapping[str, Scores], in_full: Sequence[Scores]) -> tuple[Comparison, ...]:
    """Each model as it was trained (left) against itself on the full base (right), on every share of cases.

    Metric by metric, adapters before the base: the first rows of a long table have the main figures of all of them.
    """
    both = (full for full in in_full if full.adapter_id in scores)
    models = sorted(both, key=lambda full: full.adapter_id == BASE_ADAPTER_ID)
    pairs = [
        pair_verdicts(scores[full.adapter_id], full.model_copy(update={"adapter_id": full.adapter_id + ON_FULL}), name)
        for name in compared_metrics()
        for full in models
    ]
    return compare([pair for pair in pairs if pair.case_ids])


def precision_blocks(view: View) -> Iterator[Block]:
    """On which base adapters were scored where it was quantised, and what another precision makes of them."""
    held = {engine.base_weights for engine in view.engines.values() if engine.base_weights is not None}
    gaps = view.report.precisions
    if not held and not gaps:
        return
    yield Heading("The base's precision")
    for kind in sorted(held):
        yield Note(f"Base and adapters were scored on {HELD_AS[kind]}.")
    if gaps:
        head = ("Model", "Metric", "Cases", "Quantised minus full", "95 % interval", "Chance")
        yield Table(head, [gap_row(gap) for gap in gaps], where="full_base/evals/")


def gap_row(gap: Comparison) -> list[Datum]:
    """The left side, the metric, its cases, left minus right, the interval of that, and its chance."""
    return [
        Datum(gap.left, "id"),
        Datum(METRICS[gap.metric].label),
        Datum(f"{gap.n:,}", "num"),
        Datum(difference_value(gap), "num"),
        Datum(difference_interval(gap), "num"),
        Datum(chance_text(gap), "num"),
    ]
