"""report.md: the report for a pull request or a terminal. All text from data and model is escaped."""

from collections.abc import Iterable, Sequence

from evals.records import AdapterSummary, Report
from evals.report_data import data_sentences, data_tables
from evals.report_examples import AdapterFailures
from evals.report_inputs import ReportInputs, StoredCard
from evals.report_text import (
    METRICS,
    REASONS,
    duration_text,
    loss_text,
    markdown_cell,
    markdown_row,
    metric_text,
    number_text,
    value_text,
)
from orchestrator.records import TrialRecord

MAX_EXAMPLES, MAX_EXAMPLE_CHARS = 3, 400
"""Failing examples of one adapter, and the length of each text in them; report.html shows more."""
MAX_DATA_ROWS = 12
"""Rows of one table of the data."""


def render_markdown(report: Report, inputs: ReportInputs, failures: Sequence[AdapterFailures]) -> str:
    """The whole document as GitHub-flavoured Markdown."""
    winner = report.verdict.winner
    headline = f"Take adapter {markdown_cell(winner)}" if winner else "No adapter is recommended"
    lines = [
        f"# {headline}",
        "",
        f"Run {markdown_cell(report.run['name'])} on base {markdown_cell(report.run['base_model'])}. "
        + markdown_cell(report.verdict.reason),
        *_gates(report),
        *_adapters(report),
        *_search(report, inputs.trials),
        *_failures(failures),
        *_data(inputs.data),
        *_timings(report),
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    return ["", markdown_row(head), markdown_row("---" for _ in head), *(markdown_row(row) for row in rows)]


def _gates(report: Report) -> list[str]:
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
    return ["", "## Gates", *_table(["Metric", "Bound", "Winner", ""], rows)]


def _adapters(report: Report) -> list[str]:
    names = [name for name in METRICS if any(name in adapter.metrics for adapter in report.adapters)]
    rows = [["Eval loss", *("" if a.is_base else loss_text(a.eval_loss) for a in report.adapters)]]
    for key in dict.fromkeys(key for adapter in report.adapters for key in adapter.hyperparameters):
        values = [adapter.hyperparameters.get(key) for adapter in report.adapters]
        rows.append([markdown_cell(key), *("" if value is None else number_text(value) for value in values)])
    for name in names:
        metrics = [adapter.metrics.get(name) for adapter in report.adapters]
        cells = [metric_text(name, metric) if metric else "not scored" for metric in metrics]
        rows.append([METRICS[name].label, *cells])
    head = ["", *(_column_title(adapter, report.verdict.winner) for adapter in report.adapters)]
    note = "Figures: value (95 % Wilson interval, number of cases)."
    return ["", "## Adapters and base", "", note, *_table(head, rows)]


def _column_title(adapter: AdapterSummary, winner: str | None) -> str:
    return markdown_cell(adapter.id) + (" (winner)" if adapter.id == winner else "")


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
                trial.status.replace("_", " "),
                *("" if value is None else number_text(value) for value in chosen),
                loss_text(trial.best_eval_loss),
                "" if trial.best_step is None else str(trial.best_step),
                "" if trial.duration_s is None else duration_text(trial.duration_s),
                markdown_cell(trial.error or "", MAX_EXAMPLE_CHARS),
            ]
        )
    counts = report.search
    text = f"{counts.num_trials} trials, {counts.num_stopped_early} stopped early, {counts.num_failed} failed."
    head = ["Trial", "Status", *map(markdown_cell, keys), "Best eval loss", "At step", "Time", "Error"]
    return ["", "## Search", "", text, *_table(head, rows)]


def _failures(failures: Sequence[AdapterFailures]) -> list[str]:
    lines = ["", "## Failures"]
    for adapter in failures:
        lines += ["", f"### {markdown_cell(adapter.adapter_id)}: {adapter.num_failed} of {adapter.num_cases} cases"]
        if not adapter.counts:
            continue
        lines += _table(["Reason", "Cases"], ([REASONS[r], str(n)] for r, n in adapter.counts.items()))
        for example in adapter.examples[:MAX_EXAMPLES]:
            lines += ["", f"- Case {_code(example.case_id)}: {example.reason}"]
            texts = {"Prompt": example.prompt, "Expected": example.expected, "Reply": example.reply}
            lines += [f"  - {label}: {_code(shown.text)}" for label, shown in texts.items()]
    return lines


def _code(text: str) -> str:
    # An element, not backticks: escapes keep their meaning in it, and it keeps @names from becoming mentions.
    return f"<code>{markdown_cell(text, MAX_EXAMPLE_CHARS)}</code>"


def _data(stored: StoredCard) -> list[str]:
    if stored.card is None:
        return ["", "## Data", "", markdown_cell(stored.problem or "")]
    lines = ["", "## Data"]
    for sentence in data_sentences(stored.card):
        lines += ["", markdown_cell(sentence)]
    for table in data_tables(stored.card):
        lines += ["", f"### {table.title}", *(["", markdown_cell(table.note)] if table.note else [])]
        lines += _table(table.head, (map(_data_cell, row) for row in table.rows[:MAX_DATA_ROWS]))
        if len(table.rows) > MAX_DATA_ROWS:
            lines += ["", f"{len(table.rows) - MAX_DATA_ROWS:,} more are in data/card.json."]
    return lines


def _data_cell(cell: str | int) -> str:
    return f"{cell:,}" if isinstance(cell, int) else markdown_cell(cell, MAX_EXAMPLE_CHARS)


def _timings(report: Report) -> list[str]:
    rows = ([stage, duration_text(seconds)] for stage, seconds in report.timings_s.items())
    return ["", "## Time", *_table(["Stage", "Duration"], rows)] if report.timings_s else []
