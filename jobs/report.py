"""Write the report of what the run has and print its gist: `python -m jobs.report --config FILE`."""

import sys
import uuid

from evals.records import AdapterSummary, Metric, Report
from jobs._main import DONE, GATE_NOT_MET, do_stage, run_job
from orchestrator.config import RunConfig
from orchestrator.progress import say, show_table
from orchestrator.records import MetricName
from orchestrator.runs import RunDir

SHOWN: tuple[MetricName, ...] = ("tool_call_validity", "tool_call_accuracy", "refusal_accuracy")


def report(config: RunConfig, run: RunDir) -> int:
    """Write the report; the exit code says whether the gates of the configuration are met."""
    from evals.report import write_report

    written: list[Report] = []
    # Its input is every file of the run and it is cheap: a digest that never repeats has it rebuilt each time.
    do_stage(run, "report", uuid.uuid4().hex, lambda: written.append(write_report(config, run)))
    made = written[0]
    show_table(f"Run {config.name}", ("adapter", "settings", *SHOWN), [_row(adapter) for adapter in made.adapters])
    say(made.verdict.reason)
    for gate in (missed := [gate for gate in made.gates if not gate.passed]):
        say(f"Gate not met: {gate.metric} is {_figure(gate.value)}, wanted {gate.bound}.")
    say(f"Report: {run.report / 'report.html'}")
    return GATE_NOT_MET if missed else DONE


def _row(adapter: AdapterSummary) -> tuple[str, ...]:
    settings = " ".join(f"{name} {value:g}" for name, value in adapter.hyperparameters.items()) or "-"
    return (adapter.id, settings, *(_cell(adapter.metrics.get(name)) for name in SHOWN))


def _cell(metric: Metric | None) -> str:
    if metric is None or metric.n == 0:
        return "not scored"
    return f"{_figure(metric.value)} [{_figure(metric.low)}, {_figure(metric.high)}] n={metric.n}"


def _figure(value: float | None) -> str:
    return "not scored" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(run_job("report", report))
