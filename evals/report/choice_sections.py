"""The section on how the search chose its adapters: by what rule, on what, and whether eval loss was enough."""

from collections.abc import Iterator, Sequence

from evals.records import Metric
from evals.report import search_charts
from evals.report.blocks import Block, Datum, Heading, Note, Pictures, Table, Value, drawn, figure, number
from evals.report.text import loss_text, p_text, signed_text
from evals.report.view import View
from evals.stats.loss_enough import checkpoints_of, rank_correlation
from evals.stats.objective import Gap
from evals.stats.selected import CheckpointScore, Selection
from orchestrator.core.text import counted, duration_text


def choice_blocks(view: View) -> Iterator[Block]:
    """The rule and the cases, the finalists, and what eval loss alone would have taken."""
    selection, stored = view.inputs.selection, view.report.selection
    if selection is None or stored is None:
        return
    yield Note(_stated(selection, str(stored["decided_by"])), "")
    if selection.unmet:
        yield Note(selection.unmet, "")
    if selection.scoring_s and view.training_s:
        spent = (
            f"{duration_text(selection.scoring_s)} of engine time on scores, beside {duration_text(view.training_s)}"
        )
        yield Note(f"The search spent {spent} of device time on training.", "")
    for note in selection.notes:
        yield Note(f"{note[:1].upper()}{note[1:]}.", "")
    yield _finalists(selection)
    yield Heading("Was eval loss enough?")
    yield from (Note(text, "") for text in _against_loss(selection, stored))
    checkpoints = checkpoints_of(selection)
    yield from (Note(text, "") for text in _correlations(checkpoints, selection))
    pictures = [search_charts.front_picture(selection), search_charts.objective_picture(checkpoints, selection)]
    yield Pictures(drawn(pictures))


def _stated(selection: Selection, primary: str) -> str:
    bounds = f" under {', '.join(selection.constraints)}" if selection.constraints else ""
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in selection.cases.items())
    total = counted(sum(selection.cases.values()), "case")
    shared = selection.shared_prompts
    leak = f" Of its samples {shared:,} repeat a prompt of training, which flatters every adapter." if shared else ""
    return (
        f"Chosen by {selection.objective}{bounds}, on {total} of the validation part ({kinds}), of which the first "
        f"look and every rung ask {selection.num_first:,}; no held-out case had a say.{leak} {selection.rule} Among "
        f"the adapters kept {primary} on held-out cases decides, and who misses a constraint there wins only if all do."
    )


def _finalists(selection: Selection) -> Table:
    names = list(dict.fromkeys(name for one in selection.finalists for name in one.figures))
    rows: list[Sequence[Value]] = []
    for one in selection.finalists:
        missed = ", ".join(f"{name} by {amount:.2g}" for name, amount in one.missed.items())
        figures = [figure(name, one.figures.get(name)) for name in names]
        marks = (_fate(one, selection), "shown to be worse" if one.is_behind else "", missed)
        rows.append(
            [
                Datum(one.trial_id, "name"),
                one.step,
                Datum(loss_text(one.eval_loss), "num"),
                Datum(number(one.objective), "num"),
                *figures,
                *marks,
            ]
        )
    head = ("Trial", "Step", "Eval loss", "Objective", *names, "", "Against the best", "Misses")
    return Table(head, rows, where="selection/selection.json")


def _fate(one: CheckpointScore, selection: Selection) -> str:
    on_front = "on the Pareto front" if one.trial_id in selection.front else ""
    if one.trial_id in selection.kept:
        return f"kept, {on_front}" if on_front else "kept"
    if on_front:
        return on_front
    return "kept to be held against the others" if one.trial_id == selection.held_against else ""


def _against_loss(selection: Selection, stored: dict[str, object]) -> Iterator[str]:
    taken, by_loss = selection.kept[0], selection.by_loss[0]
    if taken == by_loss:
        yield f"Eval loss alone would have taken the same adapter, {taken}."
        return
    yield f"Eval loss alone would have taken {by_loss}; the search took {taken}."
    if selection.against_loss:
        yield _gap_text(selection.against_loss, "the validation cases that chose it, which flatters it")
    if stored.get("held_out"):
        yield _gap_text(Gap.model_validate(stored["held_out"]), "held-out cases")


def _gap_text(gap: Gap, where: str) -> str:
    interval = f"95 % interval {signed_text(gap.low)} to {signed_text(gap.high)}"
    return (
        f"In {gap.of}, {gap.left} less {gap.right}: {signed_text(gap.difference)} ({interval}; {p_text(gap.p_value)}; "
        f"{counted(gap.n, 'conversation')}) on {where}."
    )


def _correlations(checkpoints: Sequence[CheckpointScore], selection: Selection) -> Iterator[str]:
    ends = [one for one in selection.finalists if one.objective is not None]
    for found, what in ((checkpoints, "all scored checkpoints"), (ends, "the finalists at their best steps")):
        correlation = rank_correlation(found)
        if correlation is not None:
            yield f"Rank correlation of a lower eval loss with a higher objective: {_written(correlation)} over {what}."


def _written(correlation: Metric) -> str:
    value, low, high = correlation.value, correlation.low, correlation.high
    interval = "" if low is None or high is None else f" (95 % interval {low:.2f} to {high:.2f}, n={correlation.n})"
    return f"{value:.2f}{interval}"
