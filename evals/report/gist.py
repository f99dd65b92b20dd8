"""What a report says in a terminal: one row an adapter, and a few lines. Pure functions."""

from collections.abc import Iterator

from evals.records import AdapterSummary, Metric, Report
from orchestrator.core.records import MetricName

SHOWN: tuple[MetricName, ...] = ("case_accuracy", "tool_call_validity", "tool_call_accuracy", "refusal_accuracy")
HEAD = ("adapter", "settings", *SHOWN)


def gist_rows(report: Report) -> list[tuple[str, ...]]:
    """One row an adapter, as wide as HEAD."""
    return [_row(adapter) for adapter in report.adapters]


def gist_lines(report: Report) -> Iterator[str]:
    """The verdict, what could not be scored, the other run, and the gates that are not met."""
    yield report.verdict.reason
    for failure in report.failed_adapters:
        yield f"Not scored: {failure.adapter_id}: {failure.error}: {failure.message}"
    if report.other_run is not None:
        yield f"Beside {report.other_run['run']['name']}: {report.other_run['note']}"
    for gate in report.gates:
        if not gate.passed:
            yield f"Gate not met: {gate.metric} is {_figure(gate.value)}, wanted {gate.bound}."


def _row(adapter: AdapterSummary) -> tuple[str, ...]:
    settings = " ".join(f"{name} {value:g}" for name, value in adapter.hyperparameters.items()) or "-"
    return (adapter.id, settings, *(_cell(adapter.metrics.get(name)) for name in SHOWN))


def _cell(metric: Metric | None) -> str:
    if metric is None or metric.n == 0:
        return "not scored"
    return f"{_figure(metric.value)} [{_figure(metric.low)}, {_figure(metric.high)}] n={metric.n}"


def _figure(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.3f}"
