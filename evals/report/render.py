"""The report as text: report.md for a pull request, and the lines for a terminal.

In Markdown all text from data and model is escaped.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence

from evals.records import AdapterSummary, GateResult, Metric, Report
from evals.report.blocks import Block, Datum, Exhibit, Exhibits, Heading, Note, Scene, Section, Table
from evals.report.cards import Card
from evals.report.gates import ratio_text
from evals.report.text import (
    difference_text,
    markdown_cell,
    markdown_code,
    markdown_row,
    metric_text,
)
from evals.report.verdict import WARNING, headline
from evals.report.view import View
from evals.stats.ceiling import blind_metrics, ceiling_text
from evals.stats.metrics import METRICS, value_text
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted

MAX_EXHIBITS, MAX_CHARS, MAX_ROWS = 3, 400, 12
"""In Markdown: cases of one list, characters of one foreign text, rows of one table; the page and files hold more."""
SHOWN: tuple[MetricName, ...] = (
    "case_accuracy", "tool_call_validity", "tool_call_accuracy", "refusal_accuracy", "refusal_recall",
    "over_refusal_rate", "no_call_accuracy",
)  # fmt: skip
"""Figures in a terminal."""
MAX_VERDICT_LINES = 5
"""Most lines of the verdict in a terminal; the report has all of it."""


def render_markdown(view: View, sections: Sequence[Section]) -> str:
    """The whole document as GitHub-flavoured Markdown."""
    report = view.report
    run, base = markdown_cell(report.run["name"]), markdown_cell(report.run["base_model"])
    title = markdown_cell(headline(report.verdict))
    lines = [f"# {title}", "", f"Run {run} on base {base}. {markdown_cell(report.verdict.reason)}"]
    lines += ["", *map(_card, view.cards)] if view.cards else []
    serve = report.serve_command
    if serve is not None:
        note = f" {markdown_cell(serve.note)}" if serve.note else ""
        lines += ["", f"Serve {markdown_cell(serve.adapter_id)} as it was scored:{note}", "", f"    {serve.command}"]
    for section in sections:
        blocks = [line for block in section.blocks if not block.page_only for line in _block(block, view)]
        if blocks:
            lines += ["", f"## {markdown_cell(section.title)}", *blocks]
    return "\n".join(lines) + "\n"


def _card(card: Card) -> str:
    """One figure of the adapter beside the base's, as an item of a list."""
    mark = f"**{card.word}**" if card.tone == "bad" else card.word
    base = "" if card.base is None else f"; base {metric_text(card.metric, card.base)}"
    against = card.against_base
    difference = "" if against is None else f"; difference {difference_text(against)}"
    figures = f"{METRICS[card.metric].label} {metric_text(card.metric, card.figure)}{base}{difference}."
    return f"- {f'{card.sign} {mark}: ' if mark else ''}{markdown_cell(f'{figures} {card.sentence}')}"


def _block(block: Block, view: View) -> Iterator[str]:
    if isinstance(block, Heading):
        yield from ("", f"{'#' * block.level} {_with_note(markdown_cell(block.text), block.note)}")
    elif isinstance(block, Note):
        yield from ("", markdown_cell(block.text))
    elif isinstance(block, Table):
        yield from _table(block, view)
    elif isinstance(block, Exhibits):
        yield from _exhibits(block)


def _with_note(text: str, note: str) -> str:
    return f"{text} ({markdown_cell(note)})" if note else text


def _table(table: Table, view: View) -> Iterator[str]:
    if table.fold and table.look == "results":
        yield from ("", f"### {markdown_cell(table.fold)}")
    heads = [markdown_cell(name) + (f" ({view.chosen_word})" if name == view.chosen_id else "") for name in table.head]
    yield from ("", markdown_row(heads), markdown_row("---" for _ in heads))
    # What a row of figures is about is explained in the page.
    for first, *rest in table.data(MAX_ROWS if table.look == "" else len(table.rows)):
        label = first._replace(note="") if table.look == "results" else first
        yield markdown_row([_datum(label), *map(_datum, rest)])
    if table.look == "" and len(table.rows) > MAX_ROWS:
        yield from ("", f"{counted(len(table.rows) - MAX_ROWS, 'more row')}: see {table.where}.")


def _datum(datum: Datum) -> str:
    text = f"`{datum.text}`" if datum.look == "code" and datum.text else markdown_cell(datum.text, MAX_CHARS)
    badge = f"**{datum.badge}**" if datum.tone == "bad" else datum.badge
    return _with_note(": ".join(part for part in (badge, text) if part), datum.note)


def _exhibits(block: Exhibits) -> Iterator[str]:
    if block.adapter_id:
        yield from ("", f"### {_with_note(markdown_cell(block.adapter_id), block.note)}")
    for item in block.items[:MAX_EXHIBITS]:
        yield from _exhibit(item)
    if block.more or len(block.items) > MAX_EXHIBITS:
        yield from ("", "More of them are in report.html.")


def _exhibit(item: Exhibit) -> Iterator[str]:
    yield from ("", f"- Case {markdown_code(item.case_id, MAX_CHARS)}{': ' if item.badge else ''}{item.badge}")
    if item.why:
        yield f"  - {markdown_cell(item.why)}"
    scene = item.scene or Scene()
    for tool in scene.tools:
        yield f"  - Tool on offer: {markdown_code(tool.signature, MAX_CHARS)}"
    yield from (f"  - {text}" for text in (scene.more_tools, scene.more_turns) if text)
    for text in (*scene.turns, *item.texts, *item.beside):
        yield f"  - {markdown_cell(text.name)}: {markdown_code(text.shown.text, MAX_CHARS)}"


def gist_table(report: Report, width: int) -> list[tuple[str, ...]]:
    """What a terminal shows of the adapters: a head and rows of figures, the adapters as columns.

    With intervals where that fits `width`; without them as many adapters as fit, the base among them.
    """
    whole = _columns(report.adapters, with_bounds=True)
    if _width(whole) <= width:
        return whole
    shown = list(report.adapters)
    while len(shown) > 2 and _width(_columns(shown, with_bounds=False)) > width:
        del shown[-2 if shown[-1].is_base else -1]
    return _columns(shown, with_bounds=False)


def _width(table: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*table, strict=True)) - 2


def _columns(adapters: Sequence[AdapterSummary], *, with_bounds: bool) -> list[tuple[str, ...]]:
    names = dict.fromkeys(name for adapter in adapters for name in adapter.hyperparameters)
    settings = [
        (name.replace("_", " "), *(_setting(adapter.hyperparameters.get(name)) for adapter in adapters))
        for name in names
    ]
    figures = [
        (_label(name, adapters), *(_bounds(name, one.metrics.get(name), with_bounds=with_bounds) for one in adapters))
        for name in SHOWN
        if any(name in adapter.metrics for adapter in adapters)
    ]
    return [("", *(adapter.id for adapter in adapters)), *settings, *figures]


def _label(name: MetricName, adapters: Sequence[AdapterSummary]) -> str:
    """The metric, with its number of cases where that is the same for all."""
    counts = {adapter.metrics[name].n for adapter in adapters if name in adapter.metrics}
    return f"{METRICS[name].label} ({counts.pop():,})" if len(counts) == 1 else METRICS[name].label


def verdict_lines(report: Report, width: int) -> list[str]:
    """The verdict's whole sentences, as many as fit a few lines: its warnings are the last to be left out."""
    head, *rest = [f"{headline(report.verdict)}.", *re.split(r"(?<=[.!?]) ", report.verdict.reason)]
    by_need = sorted(range(len(rest)), key=lambda place: (not rest[place].startswith(WARNING), place))
    lines: list[str] = []
    for count in range(len(rest), -1, -1):
        kept = [rest[place] for place in sorted(by_need[:count])]
        more = [] if count == len(rest) else ["The report says more."]
        lines = textwrap.wrap(" ".join([head, *kept, *more]), width, break_on_hyphens=False)
        if len(lines) <= MAX_VERDICT_LINES:
            return lines
    return lines


def gist_lines(report: Report) -> Iterator[str]:
    """What could not be scored and why, the other run, the gates that are not met, and how to serve."""
    for failure in report.failed_adapters:
        yield f"Not scored: {failure.adapter_id}: {failure.error}: {failure.message}"
    for name, metric in report.adapters[0].metrics.items():
        if name in SHOWN and metric.why:
            yield f"{METRICS[name].label} is not scored: {metric.why}."
    ceilings = report.adapters[0].ceilings
    for name in blind_metrics(ceilings):
        yield f"{METRICS[name].label}: {ceiling_text(name, ceilings[name])}."
    if report.other_run is not None:
        yield f"Beside {report.other_run['run']['name']}: {report.other_run['note']}"
    for gate in report.gates:
        if not gate.passed:
            yield f"Gate not met: {gate.metric} {_reached(gate, report.verdict.leader)}, wanted {gate.bound}."
    if report.serve_command is not None:
        yield f"Serve {report.serve_command.adapter_id}: {report.serve_command.command}"
        if report.serve_command.note:
            yield report.serve_command.note


def _reached(gate: GateResult, leader: str | None) -> str:
    """What the adapter that a gate is held against has reached."""
    if leader is None:
        return "is held against no adapter, for none can be recommended"
    why = f" ({gate.why})" if gate.why else ""
    ratio = f", {shown}" if (shown := ratio_text(gate)) else ""
    return f"of {leader} is {value_text(gate.metric, gate.value)}{ratio}{why}"


def _setting(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _bounds(name: MetricName, metric: Metric | None, *, with_bounds: bool) -> str:
    if metric is None or metric.n == 0:
        return "not scored"
    figure = value_text(name, metric.value)
    return f"{figure} [{value_text(name, metric.low)}, {value_text(name, metric.high)}]" if with_bounds else figure
