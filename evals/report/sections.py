"""The sections of a report: what is shown of a run, in which order and words, for the page and Markdown alike."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from evals.generate.other_run import best_adapter
from evals.records import AdapterSummary, Comparison, Metric
from evals.report import charts
from evals.report.blocks import (
    Block,
    Datum,
    Exhibit,
    Exhibits,
    Heading,
    Note,
    Pictures,
    Section,
    Table,
    Tone,
    Value,
    drawn,
    figure,
    number,
    numbers,
)
from evals.report.choice_sections import choice_blocks
from evals.report.diagnosis import diagnosis
from evals.report.examples import flip_blocks
from evals.report.gates import ratio_text
from evals.report.preferences import preference_blocks
from evals.report.run_sections import data_blocks, engine_blocks, run_blocks, search_blocks
from evals.report.runs import OtherRun
from evals.report.text import (
    REASONS,
    chance_text,
    chance_word,
    difference_interval,
    difference_value,
    loss_text,
    shorten,
)
from evals.report.verdict import headline
from evals.report.view import View, opinion_text, serving_text
from evals.stats.ceiling import blind_metrics, ceiling_text
from evals.stats.metrics import CELLS, METRICS
from orchestrator.core.records import MetricName, SampleKind
from orchestrator.core.text import counted

DRAWN: tuple[MetricName, ...] = (
    "case_accuracy",
    "tool_call_validity",
    "tool_call_accuracy",
    "refusal_accuracy",
    "clarification_accuracy",
    "no_tool_accuracy",
    "no_call_accuracy",
)
"""Metrics with a picture; the table has all."""
VERBS: dict[SampleKind, str] = {"refusal": "refuse", "clarification": "ask"}
"""What the reply does to a case of a kind, for the kinds that can be inferred from words."""


def sections_of(view: View) -> list[Section]:
    """The whole report below its head, in reading order; a section without blocks is left out."""
    found = (
        Section("gates", "Gates", list(_gates(view)), f"{view.num_met} of {len(view.report.gates)} met"),
        Section("other-run", f"Beside run {view.other.run['name'] if view.other else ''}", list(_other_run(view))),
        Section("adapters", "Base against adapters", list(_adapters(view))),
        Section("preferences", "Preferences", list(preference_blocks(view))),
        Section("suites", "By suite", list(_suites(view))),
        Section("demands", "Beside tool calls: four demands", list(_demands(view))),
        Section("flips", "What changed, case by case", list(_flips(view))),
        Section("failures", "Failures", list(_failures(view))),
        Section("serving", "As vLLM's own server would read it", list(_serving(view))),
        Section("opinions", "Second opinions of a judge model", list(_opinions(view))),
        Section("choice", "How the search chose", list(choice_blocks(view))),
        Section("search", "Search", list(search_blocks(view))),
        Section("engine", "Proof and cost", list(engine_blocks(view))),
        Section("data", "Data", list(data_blocks(view))),
        Section("run", "Run", list(run_blocks(view))),
    )
    return [section for section in found if section.blocks]


def _gates(view: View) -> Iterator[Block]:
    report, chosen = view.report, view.chosen
    if not report.gates:
        return
    if not report.verdict.winner:
        held = f" the gates are held against {chosen.id}, the leader" if chosen else " or a leader no gate can be met"
        yield Note(f"Without a winner{held}.")
    rows = []
    for gate in report.gates:
        value = figure(gate.metric, chosen.metrics.get(gate.metric) if chosen else None)
        ratio = ratio_text(gate)
        met = Datum(ratio, badge="met", tone="good") if gate.passed else Datum(ratio, badge="not met", tone="bad")
        rows.append((METRICS[gate.metric].label, gate.bound, value, met))
    yield Table(("Metric", "Bound", view.chosen_word.capitalize(), ""), rows)


def _figures(name: MetricName, metrics: Iterable[Metric | None], ceiling: Metric | None = None) -> list[Datum]:
    row = METRICS[name]
    direction = "higher" if row.higher_is_better else "lower"
    note = "" if ceiling is None else f"; {ceiling_text(name, ceiling)}"
    label = Datum(row.label, "", f"of {row.over}; {direction} is better{note}")
    return [label, *(figure(name, found) for found in metrics)]


def _adapters(view: View) -> Iterator[Block]:
    report, adapters = view.report, view.report.adapters
    colour = f"; the {view.chosen_word} is blue" if view.chosen else ""
    yield Note(f"A dot is the figure, the line its 95 % interval{colour}.", page_only=True)
    pictures = [charts.metric_picture(adapters, name, view.chosen_id) for name in DRAWN]
    yield Pictures(drawn([*pictures, charts.difference_picture(view.against_base)]))
    if report.comparisons:
        yield Heading("Case by case")
        yield _comparisons(report.comparisons, fold=counted(len(report.comparisons), "paired comparison"))
    yield Heading("All figures", "each with its 95 % interval and number of cases, where it has them")
    ceilings = adapters[0].ceilings
    rows = [
        _figures(name, [adapter.metrics.get(name) for adapter in adapters], ceilings.get(name)) for name in view.metrics
    ]
    rows.append(numbers("Cases without a reply", [str(view.unscored[adapter.id]) for adapter in adapters]))
    losses = ["" if a.is_base else "-" if a.eval_loss is None else loss_text(a.eval_loss) for a in adapters]
    rows.append(numbers("Eval loss", losses))
    for key in dict.fromkeys(key for adapter in adapters for key in adapter.hyperparameters):
        values = [(adapter, adapter.hyperparameters.get(key)) for adapter in adapters]
        rows.append(numbers(key, ["-" if adapter.source and not value else number(value) for adapter, value in values]))
    if any(adapter.source for adapter in adapters):
        rows.append(numbers("Made elsewhere", [adapter.source or "" for adapter in adapters]))
    if any(adapter.init_from for adapter in adapters):
        rows.append(numbers("Trained on from", [adapter.init_from or "" for adapter in adapters]))
    yield Table(("", *(adapter.id for adapter in adapters)), rows, "results")
    for name in blind_metrics(ceilings):
        yield Note(f"{METRICS[name].label}: {ceiling_text(name, ceilings[name])}.")
    yield from _inferred(adapters)
    if report.failed_adapters:
        yield Heading("Adapters that could not be scored", str(len(report.failed_adapters)))
        failed = [
            (Datum(f.adapter_id, "id"), Datum(f.error, "text"), Datum(f.message, "text"))
            for f in report.failed_adapters
        ]
        yield Table(("Adapter", "Error", "Message"), failed)


def _inferred(adapters: Sequence[AdapterSummary]) -> Iterator[Note]:
    """What is said apart of cases whose kind is no label."""
    for kind, verb in VERBS.items():
        found = [(adapter.id, adapter.inferred_kinds[kind]) for adapter in adapters if kind in adapter.inferred_kinds]
        if found:
            most = max(metric.n for _, metric in found)
            did = ", ".join(f"{name} {round((metric.value or 0) * metric.n)} of {metric.n}" for name, metric in found)
            yield Note(
                f"{counted(most, 'case')} of kind {kind} not counted above: that kind was inferred from the words of "
                f"the data's reply, by the classifier that also reads the replies. Replies that {verb}: {did}."
            )


def _comparisons(comparisons: Sequence[Comparison], fold: str = "") -> Table:
    rows = []
    tones: dict[str, Tone] = {"better": "good", "worse": "bad"}
    for entry in comparisons:
        needed = f"; about {counted(entry.num_cases_needed, 'case')} would show it" if entry.num_cases_needed else ""
        word = chance_word(entry)
        difference = Datum(difference_value(entry), "num", difference_interval(entry))
        chance = Datum(chance_text(entry), "", entry.method + needed, word, tones.get(word, ""))
        sides = (Datum(entry.left, "id"), Datum(entry.right, "id"))
        rows.append((METRICS[entry.metric].label, *sides, difference, entry.gained, entry.lost, entry.n, chance))
    head = ("Metric", "Left", "Right", "Difference", "Left alone", "Right alone", "Cases", "Chance")
    return Table(head, rows, "pairs", fold=fold)


def _suites(view: View) -> Iterator[Block]:
    if len(view.suites) < 2:
        return
    rows = []
    for suite in view.suites:
        if view.chosen:
            rows.append(charts.share_row(suite, view.suite_metric(view.chosen.id, suite, "case_accuracy"), "accent"))
        if view.base:
            name = "base" if view.chosen else suite
            rows.append(charts.share_row(name, view.suite_metric(view.base.id, suite, "case_accuracy"), "other"))
    title = "Cases answered as asked, by suite"
    yield Pictures(drawn([charts.interval_picture("suites", title, "higher is better", rows)] if rows else []))
    adapters = [adapter.id for adapter in view.report.adapters]
    for suite in view.suites:
        figures = {name: [view.suite_metric(id_, suite, name) for id_ in adapters] for name in METRICS}
        scored = [
            _figures(name, found)
            for name, found in figures.items()
            if not METRICS[name].unit and any(metric and metric.n for metric in found)
        ]
        yield Table(("", *adapters), scored, "results", fold=shorten(suite, 100).text)


def _demands(view: View) -> Iterator[Block]:
    if not view.demands:
        labels = ", ".join(cell.label.lower() for cell in CELLS.values())
        yield Note(f"No case makes one of these demands: {labels}.", page_only=True)
        return
    adapters, shown_id = view.report.adapters, view.shown_id
    pictures, rows = [], list[Sequence[Value]]()
    for demand in view.demands:
        cell = CELLS[demand.name]
        shares = charts.adapter_rows(adapters, demand.figures, view.chosen_id)
        name = f"cell-{demand.name}"
        pictures.append(charts.interval_picture(name, cell.label, f"should {cell.wanted}", shares))
        rows.append((cell.label, cell.wanted, *(figure("case_accuracy", found) for found in demand.figures)))
    yield Pictures(drawn(pictures))
    yield Table(("Asked", "Should", *(adapter.id for adapter in adapters)), rows, "results")
    for demand in view.demands:
        found = demand.examples
        items = (*found.right, *found.wrong)
        is_cut = found.num_right + found.num_wrong > len(items)
        more = f"The first of each; all are in evals/{shown_id}/scores.json and generations.jsonl." if is_cut else ""
        counts = f"{shown_id}: {found.num_right} right, {found.num_wrong} wrong"
        yield Heading(CELLS[demand.name].label, counts, page_only=True)
        yield Exhibits(items, more=more, page_only=True)


def _flips(view: View) -> Iterator[Block]:
    where = "their ids are in report.json (comparisons[].flips), the replies in evals/<adapter id>/generations.jsonl."
    if not view.flips:
        nothing = "No adapter is recommended, so none is set beside another here; the paired comparisons stand above."
        yield Note(nothing, page_only=True)
    yield from chain.from_iterable(flip_blocks(flips, where) for flips in view.flips)


def _failures(view: View) -> Iterator[Block]:
    reasons = list(dict.fromkeys(reason for adapter in view.failures for reason in adapter.counts))
    if not reasons:
        yield Note("No case failed.")
        return
    yield from (Note(text, "") for text in diagnosis(view))
    rows: list[Sequence[Value]] = [
        (REASONS[reason], Datum(reason, "code"), *(adapter.counts.get(reason, 0) for adapter in view.failures))
        for reason in reasons
    ]
    totals = [Datum(f"{adapter.num_failed} of {adapter.num_cases}", "num") for adapter in view.failures]
    head = ("Reason", "Code", *(adapter.adapter_id for adapter in view.failures))
    yield Table(head, [*rows, ("All failed cases", "", *totals)], "results")
    for adapter in view.failures:
        what = f"{counted(adapter.num_failed, 'failed case')}, every reason in turn"
        yield from _some_of(adapter.examples, adapter.num_failed, what, adapter.adapter_id, "scores.json", view)


def _some_of(
    items: Sequence[Exhibit], total: int, what: str, adapter_id: str, file: str, view: View | None = None
) -> Iterator[Exhibits]:
    """Some of one adapter's replies, folded; with `view` for Markdown too, and open for the adapter that is shown."""
    if items:
        all_in = f"; all are in evals/{adapter_id}/{file}" if total > len(items) else ""
        is_group = view is None or adapter_id != view.shown_id
        yield Exhibits(items, adapter_id, f"{len(items)} of {what}{all_in}", is_group=is_group, page_only=view is None)


def _serving(view: View) -> Iterator[Block]:
    if not view.serving:
        return
    yield Note(
        "The share of replies of which a client of vLLM's own server would get other calls or another text than what "
        "is scored here."
    )
    rows = [
        (Datum(entry.adapter_id, "id"), Datum(entry.parser, "text"), Datum(serving_text(entry), "num"))
        for entry in view.serving
    ]
    yield Table(("Adapter", "Parser", "Differs"), rows)
    for entry in view.serving:
        what = counted(entry.num_different, "reply", "replies")
        yield from _some_of(entry.examples, entry.num_different, what, entry.adapter_id, "generations.jsonl")


def _opinions(view: View) -> Iterator[Block]:
    if not view.opinions:
        return
    yield Note(
        "On replies in which a refusal is at issue. The figures of this report are the classifier's alone; where the "
        "two often differ, read the replies."
    )
    rows = [
        (Datum(one.adapter_id, "id"), one.agreement.num_asked, one.agreement.num_unusable, opinion_text(one))
        for one in view.opinions
    ]
    yield Table(("Adapter", "Asked", "Unusable", "Agreement on whether it refuses"), rows)
    for one in view.opinions:
        differing = len(one.agreement.disagreements)
        what = f"{counted(differing, 'reply', 'replies')} on which the two differ"
        yield from _some_of(one.differing, differing, what, one.adapter_id, "judgements.jsonl")


def _other_run(view: View) -> Iterator[Block]:
    other = view.other
    if other is None:
        return
    name, best = other.run["name"], best_adapter(view.report)
    ours = [adapter for adapter in view.report.adapters if adapter.is_base or adapter.id == best]
    both = [*((view.report.run["name"], a) for a in ours), *((name, a) for a in other.adapters)]
    yield Note(other.note, "")
    yield Note(f"{name}: {headline(other.verdict)}. {other.verdict.reason}")
    pictures = []
    for metric in DRAWN:
        rows = [
            charts.share_row(
                f"{run}: {'base' if adapter.is_base else adapter.id[:8]}",
                adapter.metrics.get(metric),
                "other" if adapter.is_base else "accent" if adapter in ours else "kept",
            )
            for run, adapter in both
        ]
        note = "unpaired; higher is better"
        pictures.append(charts.interval_picture(f"other-{metric}", METRICS[metric].label, note, rows))
    yield Pictures(drawn(pictures))
    yield Heading("Best adapters and bases")
    figures = [
        _figures(metric, [adapter.metrics.get(metric) for _, adapter in both])
        for metric in METRICS
        if any(metric in adapter.metrics for _, adapter in both)
    ]
    yield Table(("", *(f"{run}: {adapter.id}" for run, adapter in both)), figures, "results")
    if other.comparisons:
        yield Heading("Case by case", counted(other.num_shared, "shared case"))
        yield _comparisons(other.comparisons)
        where = "their ids are in report.json (other_run.comparisons[].flips)."
        yield from chain.from_iterable(flip_blocks(flips, where) for flips in view.other_flips)
    yield from _config_differences(other)


def _config_differences(other: OtherRun) -> Iterator[Block]:
    yield Heading("Differences of configuration", counted(len(other.config_differences), "setting"))
    rows = [
        (
            Datum(shorten(found.key, 200).text, "id"),
            *(Datum("absent" if value is None else value, "text") for value in (found.here, found.there)),
        )
        for found in other.config_differences
    ]
    yield Table(("Setting", "This run", other.run["name"]), rows) if rows else Note("Nothing but the name of the run.")
    yield Note(f"Its folder: {other.folder}", page_only=True)
