"""report.html: one file that opens offline, without scripts. Everything printed is escaped by the template engine."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.records import HELD_OUT, AdapterSummary, Metric
from evals.report.charts import (
    Picture,
    curve_picture,
    difference_picture,
    emphasis_of,
    interval_picture,
    loss_settings_picture,
    metric_picture,
    metric_settings_picture,
    share_row,
    tried_adapters,
    tried_trials,
)
from evals.report.data import data_sentences, data_tables
from evals.report.runs import best_adapter
from evals.report.svg import Ink
from evals.report.text import (
    CELLS,
    METRICS,
    REASONS,
    SHARES,
    chance_text,
    chance_word,
    count_text,
    difference_interval,
    difference_value,
    duration_text,
    ending_text,
    interval_text,
    loss_text,
    number_text,
    shorten,
    time_text,
    value_text,
    without_headline,
)
from evals.report.view import (
    NO_EFFECT,
    NO_PROOF,
    Cell,
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
from orchestrator.core.text import visible

DRAWN: tuple[MetricName, ...] = (
    "case_accuracy",
    "tool_call_validity",
    "tool_call_accuracy",
    "refusal_accuracy",
    "clarification_accuracy",
    "no_tool_accuracy",
)
"""Metrics with a picture; the table has all."""
OPEN_ROWS, MAX_ROWS = 12, 500
"""A table of the data with more rows is folded; most rows that any table shows."""


def render_html(view: View) -> str:
    """The whole page."""
    report, chosen = view.report, view.chosen
    chosen_id = chosen.id if chosen else None
    num_met = sum(gate.passed for gate in report.gates)
    winner = chosen if report.verdict.winner else None
    settings = {
        "view": view,
        "report": report,
        "chosen": chosen,
        "chosen_id": chosen_id,
        "chosen_word": "winner" if winner else "to take today",
        "winner": winner,
        "headline": headline_text(view),
        "lede": without_headline(report.verdict.reason, report.verdict.winner),
        "num_met": num_met,
        "is_good": winner is not None and num_met == len(report.gates),
        "sections": _sections(view),
        "hyperparameters": _ordered_keys(adapter.hyperparameters for adapter in report.adapters),
        "reasons": _ordered_keys(adapter.counts for adapter in view.failures),
        "training_s": training_s(view.inputs),
        "engine_s": engine_s(view.engines),
        "adapter_folder": view.inputs.run.adapter(chosen_id) if chosen_id else None,
        "commands": reproduction_commands(view),
        **_adapters(view, chosen_id),
        **_search(view, chosen_id),
        **_data(view),
        **_beside(view),
    }
    return _environment().get_template("report.html.j2").render(settings)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evals.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(
        duration=duration_text,
        time=time_text,
        loss=loss_text,
        number=number_text,
        shorten=shorten,
        cell=_metric_of,
        ending=ending_text,
        whole=count_text,
        device_s=device_s,
    )
    environment.globals.update(
        METRICS=METRICS,
        REASONS=REASONS,
        CELLS=CELLS,
        HELD_OUT=HELD_OUT,
        OPEN_ROWS=OPEN_ROWS,
        MAX_ROWS=MAX_ROWS,
        value_text=value_text,
        interval_text=interval_text,
        chance_text=chance_text,
        chance_word=chance_word,
        difference_value=difference_value,
        difference_interval=difference_interval,
        serving_text=serving_text,
        opinion_text=opinion_text,
        proof_text=proof_text,
        NO_PROOF=NO_PROOF,
        NO_EFFECT=NO_EFFECT,
    )
    return environment


def _finalize(value: Any) -> Any:
    # Runs on everything the template prints, before escaping: no untrusted text can skip it.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _sections(view: View) -> list[tuple[str, str]]:
    """Anchors and titles of what the page has, in its order."""
    found = [
        ("gates", "Gates", bool(view.report.gates)),
        ("other-run", "Other run", view.other is not None),
        ("adapters", "Base against adapters", True),
        ("suites", "Suites", len(view.suites) > 1),
        ("demands", "Four demands", True),
        ("flips", "What changed", True),
        ("failures", "Failures", True),
        ("serving", "Serving", bool(view.serving)),
        ("opinions", "Second opinions", bool(view.opinions)),
        ("search", "Search", True),
        ("engine", "Proof and cost", True),
        ("data", "Data", True),
        ("run", "Run", True),
    ]
    return [(anchor, title) for anchor, title, is_there in found if is_there]


def _adapters(view: View, chosen_id: str | None) -> dict[str, Any]:
    adapters = view.report.adapters
    scored = {
        suite: [
            name
            for name in SHARES
            if any(metric and metric.n for a in adapters if (metric := view.suite_metric(a.id, suite, name)))
        ]
        for suite in view.suites
    }
    return {
        "metric_pictures": _drawn(metric_picture(adapters, name, chosen_id) for name in DRAWN),
        "difference_picture": difference_picture(view.against_base),
        "suite_picture": _suite_picture(view),
        "suite_metrics": scored,
        "shown_id": chosen_id or adapters[0].id,
        "cells": [(cell, _cell_picture(view, cell, chosen_id)) for cell in view.cells],
    }


def _drawn(pictures: Iterable[Picture | None]) -> list[Picture]:
    return [picture for picture in pictures if picture is not None]


def _suite_picture(view: View) -> Picture | None:
    """The chosen adapter and the base on every suite, by the share of cases answered as asked."""
    sides: list[tuple[AdapterSummary | None, Ink]] = [(view.chosen, "accent"), (view.base, "other")]
    rows = [
        share_row(
            suite if adapter is view.chosen or view.chosen is None else "base",
            view.suite_metric(adapter.id, suite, "case_accuracy"),
            ink,
        )
        for suite in view.suites
        for adapter, ink in sides
        if adapter is not None
    ]
    return interval_picture("suites", "Cases answered as asked, by suite", "higher is better", rows) if rows else None


def _cell_picture(view: View, cell: Cell, chosen_id: str | None) -> Picture | None:
    meaning = CELLS[cell.name]
    rows = [
        share_row(
            "base" if adapter.is_base else adapter.id[:10],
            figure,
            "accent" if adapter.id == chosen_id else "other" if adapter.is_base else "kept",
        )
        for adapter, figure in zip(view.report.adapters, cell.figures, strict=True)
    ]
    return interval_picture(f"cell-{cell.name}", meaning.label, f"should {meaning.wanted}", rows)


def _search(view: View, chosen_id: str | None) -> dict[str, Any]:
    trials = sorted(view.inputs.trials, key=_by_loss)
    kept = frozenset(adapter.id for adapter in view.report.adapters if not adapter.is_base)
    pictures = [
        curve_picture(trials, kept, chosen_id),
        loss_settings_picture(tried_trials(trials, kept, chosen_id)),
        metric_settings_picture(
            "tool_call_validity", tried_adapters(view.report.adapters, "tool_call_validity", chosen_id)
        ),
    ]
    return {
        "trials": [(trial, emphasis_of(trial, kept, chosen_id)) for trial in trials],
        "trial_keys": _ordered_keys(trial.hyperparameters for trial in trials),
        "search_pictures": _drawn(pictures),
    }


def _data(view: View) -> dict[str, Any]:
    card = view.inputs.data.card
    return {
        "card_problem": view.inputs.data.problem,
        "data_sentences": data_sentences(card) if card else [],
        "data_tables": data_tables(card) if card else [],
    }


def _beside(view: View) -> dict[str, Any]:
    """What is needed to set another run beside this one."""
    other = view.other
    if other is None:
        return {"other": None}
    best = best_adapter(view.report)
    here = [adapter for adapter in view.report.adapters if adapter.is_base or adapter.id == best]
    beside = [(view.report.run["name"], adapter) for adapter in here]
    beside += [(other.run["name"], adapter) for adapter in other.adapters]
    pictures = []
    for name in DRAWN:
        rows = [
            share_row(
                f"{run}: {'base' if adapter.is_base else adapter.id[:8]}",
                adapter.metrics.get(name),
                "other" if adapter.is_base else "accent" if adapter in here else "kept",
            )
            for run, adapter in beside
        ]
        pictures.append(interval_picture(f"other-{name}", METRICS[name].label, "unpaired; higher is better", rows))
    return {
        "other": other,
        "beside": beside,
        "beside_metrics": [name for name in METRICS if any(name in adapter.metrics for _, adapter in beside)],
        "other_pictures": _drawn(pictures),
    }


def _by_loss(trial: TrialRecord) -> tuple[bool, float]:
    return trial.best_eval_loss is None, trial.best_eval_loss or 0.0


def _metric_of(adapter: AdapterSummary, name: MetricName) -> Metric | None:
    return adapter.metrics.get(name)


def _ordered_keys(mappings: Any) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def reproduction_commands(view: View) -> Sequence[str]:
    """Shell lines that repeat the run under another name, and then its stages one by one in place."""
    run, ledger = view.report.run, view.inputs.ledger
    config = shlex.quote(str(view.inputs.run.config))
    name = shlex.quote(f"name={run['name']}-again")
    checkout = [f"git checkout {shlex.quote(run['commit'])}"] if run["commit"] else []
    stages = [f"python -m jobs.{stage} --config {config}" for stage in ledger.stages]
    return [*checkout, f"orchestrator run {config} --set {name}", *stages]
