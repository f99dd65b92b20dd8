"""Write the report of what the run has and print its gist: `python -m jobs.report --config FILE [--compare RUN]`."""

import argparse
import sys
import uuid
from collections.abc import Sequence

from evals.records import AdapterSummary, Metric, Report
from jobs._main import DONE, GATE_NOT_MET, do_stage, run_job
from orchestrator.config import RunConfig
from orchestrator.progress import say, show_table
from orchestrator.records import MetricName
from orchestrator.runs import RunDir

SHOWN: tuple[MetricName, ...] = ("case_accuracy", "tool_call_validity", "tool_call_accuracy", "refusal_accuracy")


def report(config: RunConfig, run: RunDir, *, compare: str | None = None) -> int:
    """Write the report; the exit code says whether the gates of the configuration are met.

    Args:
        config: The configuration of the run.
        run: The run.
        compare: Another run to set beside it: its folder, or the name of one beside this one.

    Raises:
        InputError: If there is no such other run.
    """
    from evals.report import write_report
    from evals.report_runs import find_other_run

    other = find_other_run(compare, run) if compare is not None else None
    written: list[Report] = []
    # Its input is every file of the run and it is cheap: a digest that never repeats has it rebuilt each time.
    do_stage(run, "report", uuid.uuid4().hex, lambda: written.append(write_report(config, run, other)))
    made = written[0]
    show_table(f"Run {config.name}", ("adapter", "settings", *SHOWN), [_row(adapter) for adapter in made.adapters])
    say(made.verdict.reason)
    for failure in made.failed_adapters:
        say(f"Not scored: {failure.adapter_id}: {failure.error}: {failure.message}")
    if made.other_run is not None:
        say(f"Beside {made.other_run['run']['name']}: {made.other_run['note']}")
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


def _add_options(parser: argparse.ArgumentParser) -> None:
    help_text = "set another run beside this one: its folder, or its name if it lies beside"
    parser.add_argument("--compare", metavar="OTHER_RUN", help=help_text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line and return its exit code."""
    return run_job("report", report, arguments, add_options=_add_options)


if __name__ == "__main__":
    sys.exit(main())
