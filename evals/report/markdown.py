"""report.md: the report for a pull request or a terminal. All text from data and model is escaped."""

from collections.abc import Iterable, Sequence

from evals.records import AdapterSummary, Comparison, Metric, Report
from evals.report.data import data_sentences, data_tables
from evals.report.examples import AdapterFailures, Flips
from evals.report.inputs import StoredCard
from evals.report.runs import OtherRun
from evals.report.text import (
    CELLS,
    METRICS,
    REASONS,
    chance_text,
    chance_word,
    count_text,
    difference_interval,
    difference_value,
    duration_text,
    ending_text,
    loss_text,
    markdown_cell,
    markdown_code,
    markdown_row,
    metric_text,
    number_text,
    value_text,
    without_headline,
)
from evals.report.view import (
    View,
    device_s,
    engine_s,
    headline_text,
    opinion_text,
    proof_text,
    serving_text,
    training_s,
)
from orchestrator.core.records import MetricName, TrialRecord

MAX_EXAMPLES, MAX_EXAMPLE_CHARS = 3, 400
"""Failing examples of one adapter, and the length of each text in them; report.html shows more."""
MAX_FLIPS = 3
"""Cases shown that got better, and that got worse, against one other adapter."""
MAX_ROWS = 12
"""Rows of one table of the data, or of settings."""
SUITE_METRICS: tuple[MetricName, ...] = ("case_accuracy", "tool_call_accuracy", "refusal_accuracy")


def render_markdown(view: View) -> str:
    """The whole document as GitHub-flavoured Markdown."""
    report = view.report
    lines = [
        f"# {markdown_cell(headline_text(view))}",
        "",
        f"Run {markdown_cell(report.run['name'])} on base {markdown_cell(report.run['base_model'])}. "
        + markdown_cell(without_headline(report.verdict.reason, report.verdict.winner)),
        *_gates(view),
        *_other_run(view),
        *_adapters(report),
        *_comparisons(report.comparisons),
        *_suites(view),
        *_cells(view),
        *(line for flips in view.flips for line in _flips(flips)),
        *_search(report, view.inputs.trials),
        *_failures(view.failures),
        *_engine(view),
        *_data(view.inputs.data),
        *_timings(report),
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    return ["", markdown_row(head), markdown_row("---" for _ in head), *(markdown_row(row) for row in rows)]


def _gates(view: View) -> list[str]:
    report = view.report
    if not report.gates:
        return []
    rows = [
        [
            METRICS[gate.metric].label,
            gate.bound,
            value_text(gate.metric, gate.value),
            "met" if gate.passed else "**not met**",
        ]
        for gate in report.gates
    ]
    note = []
    if not report.verdict.winner:
        held = f"against {markdown_cell(view.chosen.id)}, the one to take today" if view.chosen else "against nothing"
        note = ["", f"Without a winner the gates are held {held}."]
    column = "Winner" if report.verdict.winner else "To take today"
    return ["", "## Gates", *note, *_table(["Metric", "Bound", column, ""], rows)]


def _adapters(report: Report) -> list[str]:
    names = [name for name in METRICS if any(name in adapter.metrics for adapter in report.adapters)]
    rows = [["Eval loss", *("" if a.is_base else loss_text(a.eval_loss) for a in report.adapters)]]
    for key in dict.fromkeys(key for adapter in report.adapters for key in adapter.hyperparameters):
        values = [adapter.hyperparameters.get(key) for adapter in report.adapters]
        rows.append([markdown_cell(key), *("" if value is None else number_text(value) for value in values)])
    for name in names:
        rows.append([METRICS[name].label, *(_figure(name, adapter.metrics.get(name)) for adapter in report.adapters)])
    note = "Figures: value (95 % interval, number of cases)."
    lines = ["", "## Adapters and base", "", note, *_table(["", *_columns(report)], rows)]
    if report.failed_adapters:
        failed = (
            [markdown_cell(failure.adapter_id), markdown_cell(failure.error), _literal(failure.message)]
            for failure in report.failed_adapters
        )
        lines += ["", "### Could not be scored", *_table(["Adapter", "Error", "What it says"], failed)]
    return lines


def _figure(name: MetricName, metric: Metric | None) -> str:
    return metric_text(name, metric) if metric else "not scored"


def _columns(report: Report) -> list[str]:
    return [_column_title(adapter, report) for adapter in report.adapters]


def _column_title(adapter: AdapterSummary, report: Report) -> str:
    if adapter.id == report.verdict.winner:
        return f"{markdown_cell(adapter.id)} (winner)"
    return markdown_cell(adapter.id) + (" (to take today)" if adapter.id == report.verdict.leader else "")


def _comparisons(comparisons: Sequence[Comparison], title: str = "## Case by case") -> list[str]:
    if not comparisons:
        return []
    rows = (
        [
            METRICS[entry.metric].label,
            markdown_cell(entry.left),
            markdown_cell(entry.right),
            f"{difference_value(entry)} ({difference_interval(entry)})",
            str(entry.gained),
            str(entry.lost),
            str(entry.n),
            f"{chance_text(entry)}: {chance_word(entry)}",
        ]
        for entry in comparisons
    )
    head = ["Metric", "Left", "Right", "Difference", "Left alone", "Right alone", "Cases", "Chance"]
    return ["", title, *_table(head, rows)]


def _suites(view: View) -> list[str]:
    if len(view.suites) < 2:
        return []
    rows = []
    for suite in view.suites:
        for name in SUITE_METRICS:
            figures = [view.suite_metric(adapter.id, suite, name) for adapter in view.report.adapters]
            if any(figure and figure.n for figure in figures):
                rows.append(
                    [markdown_cell(suite, 60), METRICS[name].label, *(_figure(name, figure) for figure in figures)]
                )
    return ["", "## By suite", *_table(["Suite", "Metric", *_columns(view.report)], rows)] if rows else []


def _cells(view: View) -> list[str]:
    rows = (
        [
            CELLS[cell.name].label,
            CELLS[cell.name].wanted,
            *(_figure("case_accuracy", figure) for figure in cell.figures),
        ]
        for cell in view.cells
    )
    head = ["Asked", "Should", *_columns(view.report)]
    return ["", "## Four demands", *_table(head, rows)] if view.cells else []


def _flips(flips: Flips) -> list[str]:
    title = f"## {markdown_cell(flips.left)} against {markdown_cell(flips.right)}"
    lines = ["", title, "", f"{flips.num_better} cases better, {flips.num_worse} worse."]
    for word, shown, number in (("Better", flips.better, flips.num_better), ("Worse", flips.worse, flips.num_worse)):
        for flip in shown[:MAX_FLIPS]:
            lines += ["", f"- {word}: case {_code(flip.case_id)}, {METRICS[flip.metric].label}"]
            texts = {"Prompt": flip.prompt, "Expected": flip.expected, flips.left: flip.left.reply}
            texts[flips.right] = flip.right.reply
            lines += [f"  - {markdown_cell(label)}: {_code(shown_text.text)}" for label, shown_text in texts.items()]
        if number > MAX_FLIPS:
            lines += ["", f"{number - MAX_FLIPS} more cases are {word.lower()}; report.html shows more of them."]
    return lines


def _other_run(view: View) -> list[str]:
    other = view.other
    if other is None:
        return []
    name = markdown_cell(other.run["name"])
    here = [adapter for adapter in view.report.adapters if adapter.is_base or adapter is view.report.adapters[0]]
    beside = [*here, *other.adapters]
    names = [metric for metric in METRICS if any(metric in adapter.metrics for adapter in beside)]
    rows = ([METRICS[n].label, *(_figure(n, adapter.metrics.get(n)) for adapter in beside)] for n in names)
    head = [
        "",
        *(f"this run: {markdown_cell(a.id)}" for a in here),
        *(f"{name}: {markdown_cell(a.id)}" for a in other.adapters),
    ]
    lines = ["", f"## Beside run {name}", "", markdown_cell(other.note), *_table(head, rows)]
    lines += _comparisons(other.comparisons, "### The shared cases")
    for flips in view.other_flips:
        lines += _flips(flips)
    return [*lines, *_differences(other)]


def _differences(other: OtherRun) -> list[str]:
    absent = "absent"
    rows = (
        [markdown_cell(found.key), _literal(found.here or absent), _literal(found.there or absent)]
        for found in other.config_differences[:MAX_ROWS]
    )
    head = ["Setting", "This run", markdown_cell(other.run["name"])]
    lines = ["", "### What was configured otherwise", *_table(head, rows)]
    if len(other.config_differences) > MAX_ROWS:
        lines += ["", f"{len(other.config_differences) - MAX_ROWS} more are in report.json."]
    return lines


def _search(report: Report, trials: Sequence[TrialRecord]) -> list[str]:
    if not trials:
        return []
    keys = list(dict.fromkeys(key for trial in trials for key in trial.hyperparameters))
    rows = []
    for trial in trials:
        chosen = [trial.hyperparameters.get(key) for key in keys]
        rows.append(
            [
                markdown_cell(trial.trial_id),
                ending_text(trial),
                *("" if value is None else number_text(value) for value in chosen),
                loss_text(trial.best_eval_loss),
                count_text(trial.best_step),
                count_text(trial.steps),
                count_text(trial.tokens),
                "" if (seconds := device_s(trial)) is None else duration_text(seconds),
                markdown_cell(trial.error or "", MAX_EXAMPLE_CHARS),
            ]
        )
    counts = report.search
    text = f"{counts.num_trials} trials, {counts.num_stopped_early} stopped early, {counts.num_failed} failed."
    spent = ["Steps", "Tokens", "Device time"]
    head = ["Trial", "Ended", *map(markdown_cell, keys), "Best eval loss", "At step", *spent, "Error"]
    return ["", "## Search", "", text, *_table(head, rows)]


def _failures(failures: Sequence[AdapterFailures]) -> list[str]:
    lines = ["", "## Failures"]
    for adapter in failures:
        lines += ["", f"### {markdown_cell(adapter.adapter_id)}: {adapter.num_failed} of {adapter.num_cases} cases"]
        if not adapter.counts:
            continue
        counted = ([REASONS[r], f"`{r}`", str(n)] for r, n in adapter.counts.items())
        lines += _table(["Reason", "Code", "Cases"], counted)
        for example in adapter.examples[:MAX_EXAMPLES]:
            lines += ["", f"- Case {_code(example.case_id)}: {example.reason}"]
            texts = {"Prompt": example.prompt, "Expected": example.expected, "Reply": example.reply}
            lines += [f"  - {label}: {_code(shown.text)}" for label, shown in texts.items()]
    return lines


def _literal(text: str) -> str:
    return markdown_cell(text, MAX_EXAMPLE_CHARS)


def _code(text: str) -> str:
    return markdown_code(text, MAX_EXAMPLE_CHARS)


def _engine(view: View) -> list[str]:
    lines = []
    if view.serving:
        rows = (
            [markdown_cell(entry.adapter_id), markdown_cell(entry.parser), serving_text(entry)]
            for entry in view.serving
        )
        title = "## Read otherwise by vLLM's own parser"
        lines += ["", title, *_table(["Adapter", "Parser", "Replies"], rows)]
    if view.opinions:
        opinions = (
            [markdown_cell(o.adapter_id), str(o.agreement.num_asked), str(o.agreement.num_unusable), opinion_text(o)]
            for o in view.opinions
        )
        head = ["Adapter", "Asked", "Unusable", "Same on whether it refuses"]
        lines += ["", "## Second opinions of a judge model", *_table(head, opinions)]
    if view.engines:
        found = [(adapter, view.engines.get(adapter.id)) for adapter in view.report.adapters]
        rows = (
            [
                markdown_cell(adapter.id),
                engine.applied_as.replace("_", " "),
                proof_text(engine, is_base=adapter.is_base),
                markdown_cell(engine.device),
                duration_text(engine.load_s),
                duration_text(engine.generate_s),
            ]
            for adapter, engine in found
            if engine is not None
        )
        head = ["Adapter", "Applied as", "Proof", "Device", "Loading", "Replying"]
        lines += ["", "## Proof that the adapters were applied", *_table(head, rows)]
    times = {"training over all trials": training_s(view.inputs), "engines": engine_s(view.engines)}
    spent = [f"{duration_text(seconds)} ({what})" for what, seconds in times.items() if seconds is not None]
    return [*lines, "", f"Cost: {', '.join(spent)}."] if spent else lines


def _data(stored: StoredCard) -> list[str]:
    if stored.card is None:
        return ["", "## Data", "", markdown_cell(stored.problem or "")]
    lines = ["", "## Data"]
    for sentence in data_sentences(stored.card):
        lines += ["", markdown_cell(sentence)]
    for table in data_tables(stored.card):
        lines += ["", f"### {table.title}", *(["", markdown_cell(table.note)] if table.note else [])]
        lines += _table(table.head, (map(_data_cell, row) for row in table.rows[:MAX_ROWS]))
        if len(table.rows) > MAX_ROWS:
            lines += ["", f"{len(table.rows) - MAX_ROWS:,} more are in data/card.json."]
    return lines


def _data_cell(cell: str | int) -> str:
    return f"{cell:,}" if isinstance(cell, int) else markdown_cell(cell, MAX_EXAMPLE_CHARS)


def _timings(report: Report) -> list[str]:
    rows = ([stage, duration_text(seconds)] for stage, seconds in report.timings_s.items())
    return ["", "## Time", *_table(["Stage", "Duration"], rows)] if report.timings_s else []
