"""The report stage: reads what a run left behind, decides, and writes report.json, report.md and report.html."""

from collections.abc import Sequence

from evals.records import AdapterSummary, GateResult, Report, SearchSummary, WinnerVerdict
from evals.report_data import leak_warning
from evals.report_examples import adapter_failures
from evals.report_html import render_html
from evals.report_inputs import ReportInputs, read_inputs
from evals.report_markdown import render_markdown
from evals.winner import decide_winner, rank_adapters
from orchestrator.config import Gate, RunConfig
from orchestrator.data.card import DataCard
from orchestrator.records import JsonObject, MetricName, TrialRecord
from orchestrator.runs import RunDir, digest_of, write_text_atomic


def write_report(config: RunConfig, run: RunDir) -> Report:
    """Write the three forms of the report into `run.report`, each whole or not at all.

    Returns:
        The report as in report.json.

    Raises:
        RunConflictError: If nothing has been scored, or what was scored no longer fits together.
        DataError: If a file of the run is missing or broken.
    """
    inputs = read_inputs(run)
    report = assemble_report(config, inputs)
    by_id = {scored.scores.adapter_id: scored for scored in inputs.scored}
    failures = [adapter_failures(by_id[adapter.id], inputs.cases) for adapter in report.adapters]
    texts = {
        "report.html": render_html(report, inputs, failures),
        "report.md": render_markdown(report, inputs, failures),
        "report.json": report.model_dump_json(indent=2) + "\n",
    }
    for name, text in texts.items():
        write_text_atomic(run.report / name, text)
    return report


def assemble_report(config: RunConfig, inputs: ReportInputs) -> Report:
    """The report's figures and its verdict; adapters are ordered winner first, then by score, the base last."""
    summaries = {scored.scores.adapter_id: scored.summary(inputs.trials) for scored in inputs.scored}
    judged = [summaries[scored.scores.adapter_id] for scored in inputs.scored if scored.num_scored > 0]
    base = next((summary for summary in judged if summary.is_base), None)
    verdict = decide_winner([summary for summary in judged if not summary.is_base], base)
    winner = summaries.get(verdict.winner) if verdict.winner else None
    ranked = rank_adapters([summary for summary in summaries.values() if not summary.is_base], base)
    bases = [summary for summary in summaries.values() if summary.is_base]
    return Report(
        run=_run_facts(config, inputs),
        verdict=_with_leaks(verdict, inputs.data.card),
        adapters=(*sorted(ranked, key=lambda summary: summary is not winner), *bases),
        search=summarise_search(inputs.trials),
        gates=check_gates(config.gates, winner),
        timings_s={
            stage: entry.duration_s for stage, entry in inputs.ledger.stages.items() if entry.duration_s is not None
        },
        data=inputs.data.content,
    )


def _with_leaks(verdict: WinnerVerdict, card: DataCard | None) -> WinnerVerdict:
    """The verdict, which also says so where held-out samples repeat those of training."""
    warning = leak_warning(card) if card else None
    return verdict.model_copy(update={"reason": f"{verdict.reason} {warning}"}) if warning else verdict


def _run_facts(config: RunConfig, inputs: ReportInputs) -> JsonObject:
    starts = [entry.started_at for entry in inputs.ledger.stages.values()]
    return {
        "name": config.name,
        "profile": config.profile,
        "base_model": config.model.base,
        "base_revision": config.model.revision,
        "config_digest": digest_of(config),
        "commit": inputs.ledger.commit,
        "versions": inputs.ledger.versions,
        "started_at": min(starts, default=None),
    }


def summarise_search(trials: Sequence[TrialRecord]) -> SearchSummary:
    """Count trials; a diverged trial counts as failed."""
    statuses = [trial.status for trial in trials]
    return SearchSummary(
        num_trials=len(statuses),
        num_stopped_early=statuses.count("stopped_early"),
        num_failed=statuses.count("failed") + statuses.count("diverged"),
    )


def check_gates(gates: dict[MetricName, Gate], winner: AdapterSummary | None) -> tuple[GateResult, ...]:
    """Hold the winner against every gate. Without a winner, or without a score, a gate is not met."""
    results = []
    for name, gate in gates.items():
        metric = winner.metrics.get(name) if winner else None
        value = metric.value if metric else None
        passed = (
            value is not None and (gate.min is None or value >= gate.min) and (gate.max is None or value <= gate.max)
        )
        results.append(GateResult(metric=name, bound=_bound_text(gate), value=value, passed=passed))
    return tuple(results)


def _bound_text(gate: Gate) -> str:
    bounds = []
    if gate.min is not None:
        bounds.append(f"at least {gate.min:g}")
    if gate.max is not None:
        bounds.append(f"at most {gate.max:g}")
    return " and ".join(bounds)
