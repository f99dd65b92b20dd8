"""report.html: one file that opens offline, without scripts. Everything printed is escaped by the template engine."""

import shlex
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.records import AdapterSummary, Metric, Report
from evals.report_charts import (
    LEFT,
    RIGHT,
    curve_picture,
    emphasis_of,
    interval_pictures,
    scatter_picture,
)
from evals.report_data import data_sentences, data_tables
from evals.report_examples import AdapterFailures
from evals.report_inputs import ReportInputs
from evals.report_text import (
    METRICS,
    REASONS,
    duration_text,
    interval_text,
    loss_text,
    number_text,
    shorten,
    value_text,
    visible,
)
from orchestrator.records import MetricName, TrialRecord

HEADLINE_METRICS: tuple[MetricName, ...] = ("tool_call_validity", "tool_call_accuracy", "refusal_accuracy")
"""Shown large at the top, winner against base."""
OPEN_ROWS, MAX_ROWS = 12, 500
"""A table of the data with more rows is folded; most rows that it shows."""


def render_html(report: Report, inputs: ReportInputs, failures: Sequence[AdapterFailures]) -> str:
    """The whole page."""
    winner = report.verdict.winner
    kept = frozenset(adapter.id for adapter in report.adapters if not adapter.is_base)
    trials = sorted(inputs.trials, key=_by_loss)
    card = inputs.data.card
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            winner=next((adapter for adapter in report.adapters if adapter.id == winner), None),
            base=next((adapter for adapter in report.adapters if adapter.is_base), None),
            num_met=sum(gate.passed for gate in report.gates),
            headline_metrics=HEADLINE_METRICS,
            shown_metrics=[name for name in METRICS if any(name in adapter.metrics for adapter in report.adapters)],
            hyperparameters=_ordered_keys(adapter.hyperparameters for adapter in report.adapters),
            unscored={scored.scores.adapter_id: scored.scores.num_unscored for scored in inputs.scored},
            intervals=interval_pictures(report.adapters, winner),
            trials=[(trial, emphasis_of(trial, kept, winner)) for trial in trials],
            trial_keys=_ordered_keys(trial.hyperparameters for trial in trials),
            curves=curve_picture(trials, kept, winner),
            scatter=scatter_picture(trials, winner),
            failures=failures,
            card_problem=inputs.data.problem,
            data_sentences=data_sentences(card) if card else [],
            data_tables=data_tables(card) if card else [],
            reasons=_ordered_keys(adapter.counts for adapter in failures),
            adapter_folder=inputs.run.adapter(winner) if winner else None,
            commands=reproduction_commands(report, inputs),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evals"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        duration=duration_text, loss=loss_text, number=number_text, shorten=shorten, cell=_metric_of
    )
    environment.globals.update(
        METRICS=METRICS,
        REASONS=REASONS,
        LEFT=LEFT,
        RIGHT=RIGHT,
        OPEN_ROWS=OPEN_ROWS,
        MAX_ROWS=MAX_ROWS,
        value_text=value_text,
        interval_text=interval_text,
    )
    return environment


def _finalize(value: Any) -> Any:
    # Runs on everything the template prints, before escaping: no untrusted text can skip it.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _by_loss(trial: TrialRecord) -> tuple[bool, float]:
    return trial.best_eval_loss is None, trial.best_eval_loss or 0.0


def _metric_of(adapter: AdapterSummary, name: MetricName) -> Metric | None:
    return adapter.metrics.get(name)


def _ordered_keys(mappings: Any) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def reproduction_commands(report: Report, inputs: ReportInputs) -> list[str]:
    """Shell lines that repeat the run under another name, and then its stages one by one in place."""
    config = shlex.quote(str(inputs.run.config))
    name = shlex.quote(f"name={report.run['name']}-again")
    checkout = [f"git checkout {shlex.quote(report.run['commit'])}"] if report.run["commit"] else []
    stages = [f"python -m jobs.{stage} --config {config}" for stage in inputs.ledger.stages]
    return [*checkout, f"orchestrator run {config} --set {name}", *stages]
