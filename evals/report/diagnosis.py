"""What most often fails, and how much of the data teaches it: is another search or other data the cure?"""

from collections import Counter
from collections.abc import Iterator

from evals.records import CellName, Metric
from evals.report.text import REASONS
from evals.report.view import View
from evals.stats.metrics import CELLS
from orchestrator.core.text import counted
from orchestrator.data.card import DataCard

LEAST_FAILED, MOSTLY = 5, 0.5
"""Fewer failed cases, or a smaller share of a demand's cases, are no pattern."""


def diagnosis(view: View) -> Iterator[str]:
    """A few sentences for each demand that the adapter of the report mostly fails."""
    shown = next(adapter for adapter in view.report.adapters if adapter.id == view.shown_id)
    card = view.inputs.data.card
    if shown.is_base or card is None:
        return
    for name, found in shown.cells.items():
        if _fails(found):
            yield " ".join([_failed(view, name, found), _taught(card, name), _others(view, name)]).strip()


def _fails(found: Metric | None) -> bool:
    if found is None or found.value is None:
        return False
    return 1 - found.value >= MOSTLY and found.n * (1 - found.value) >= LEAST_FAILED


def _failed(view: View, name: CellName, found: Metric) -> str:
    scores = next(one.scores for one in view.inputs.scored if one.scores.adapter_id == view.shown_id)
    outcome = CELLS[name].outcome
    reasons = Counter(v.reason for v in scores.verdicts if outcome(v) is False and v.reason is not None)
    failed = round(found.n * (1 - (found.value or 0.0)))
    why = ""
    if reasons:
        (reason, times), *_ = reasons.most_common(1)
        why = f", {'all' if times == failed else f'{times:,} of them'} because it {REASONS[reason]}"
    cases = counted(found.n, "case")
    return f"{CELLS[name].label}: {view.shown_id} fails in {failed:,} of {cases} (it should {CELLS[name].wanted}){why}."


def _taught(card: DataCard, name: CellName) -> str:
    count = card.tags.get(name, 0)
    if not count:
        return "No conversation of the data is tagged so, so nothing teaches it: add some."
    return f"{count / card.samples:.0%} of the conversations teach it ({count:,} of {card.samples:,})."


def _others(view: View, name: CellName) -> str:
    """Whether other adapters and the base do better, and what that says."""
    others = [one for one in view.report.adapters if not one.is_base and one.id != view.shown_id]
    base = view.base.cells.get(name) if view.base else None
    if base is not None and base.value is not None and not _fails(base):
        return "The base does it, so training has it unlearned: more of them, or a shorter training, keep it."
    if others and all(_fails(one.cells.get(name)) for one in others):
        return (
            "Every other adapter scored here fails likewise, so more or clearer conversations of that kind are a "
            "likelier cure than another rank or rate."
        )
    return ""
