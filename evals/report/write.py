"""The report stage: reads what a run left behind, decides, and writes report.json, report.md and the pages."""

from collections.abc import Mapping, Sequence

from evals.generate.as_served import as_served
from evals.records import (
    AdapterSummary,
    Comparison,
    Report,
    Scores,
    SearchSummary,
)
from evals.report.cards import compared_metrics
from evals.report.cases import case_book
from evals.report.choice import choice_of
from evals.report.examples import Flips
from evals.report.gates import Measured, check_gates, measured, references
from evals.report.inputs import ReportInputs, read_inputs
from evals.report.page import render_cases, render_html
from evals.report.precision import precision_gaps
from evals.report.render import render_markdown
from evals.report.runs import OtherRun, Side, compare_runs
from evals.report.sections import sections_of
from evals.report.verdict import blind_sentence, cut_off_sentence, foreign_sentence, verdict_record
from evals.report.view import make_view
from evals.stats.ceiling import is_blind, judge_own_replies, without_blind_cases
from evals.stats.comparison import compare, pair_verdicts
from evals.stats.data_card import leak_warning
from evals.stats.decision import PRIMARY, decide_winner, often_cut_off, rank_adapters
from orchestrator.chat.named_templates import template_label
from orchestrator.chat.serve_command import ServeCommand
from orchestrator.config.load import load_config
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import digest_of, write_text_atomic
from orchestrator.core.records import JsonObject, TrialRecord, TrialSummary
from orchestrator.run.paths import RunDir


def write_report(config: RunConfig, run: RunDir, other: RunDir | None = None) -> Report:
    """Write the three forms of the report into `run.report`, each whole or not at all; returns what is in report.json.

    `other` is a run to set beside this one.

    Raises:
        RunConflictError: If nothing has been scored, or what was scored no longer fits together; in either run.
        DataError: If a file of a run is missing or broken.
        ConfigError: If the configuration of the other run cannot be read by this version.
    """
    inputs = read_inputs(run)
    base = next((one.summary(()) for one in inputs.scored if one.record is None), None)
    report = assemble_report(config, inputs, references(run, config.gates, base))
    beside, flips = _beside(Side(str(config.name), config, inputs, report), other) if other else (None, [])
    if beside is not None:
        report = report.model_copy(update={"other_run": beside.model_dump(mode="json")})
    view = make_view(report, inputs, other=beside, other_flips=flips)
    sections = sections_of(view)
    texts = {
        **render_cases(view, case_book(view)),
        "report.html": render_html(view, sections),
        "report.md": render_markdown(view, sections),
        "report.json": report.model_dump_json(indent=2) + "\n",
    }
    for name, text in texts.items():
        write_text_atomic(run.report / name, text)
    for page in run.report.glob("cases/*.html"):
        if page.relative_to(run.report).as_posix() not in texts:
            page.unlink()  # of an earlier report with more failing cases
    return report


def _beside(here: Side, other: RunDir) -> tuple[OtherRun, list[Flips]]:
    config, inputs = load_config(other.config), read_inputs(other)
    label = config.name if config.name != here.label else f"{config.name} in {other.root.parent.name}"
    return compare_runs(here, Side(label, config, inputs, assemble_report(config, inputs)))


def assemble_report(config: RunConfig, inputs: ReportInputs, against: Mapping[str, Measured] | None = None) -> Report:
    """The report's figures and its verdict; adapters are ordered winner first, then by score, the base last.

    `against` is what gates set figures against; without it there are no gates.
    """
    summaries = {scored.scores.adapter_id: scored.summary(inputs.trials) for scored in inputs.scored}
    scores = {scored.scores.adapter_id: scored.scores for scored in inputs.scored}
    seen, num_left_out = _seen(inputs, scores)
    judged = [
        summaries[name].model_copy(update={"metrics": seen[name].metrics})
        for name in (scored.scores.adapter_id for scored in inputs.scored if scored.num_scored > 0)
    ]
    base = next((summary for summary in judged if summary.is_base), None)
    candidates = [summary for summary in judged if not summary.is_base]
    replies = {
        scored.scores.adapter_id: {case_id: reply.text for case_id, reply in scored.generations.items()}
        for scored in inputs.scored
    }
    choice = choice_of(config, inputs)
    decision = decide_winner(choice.candidates(candidates, seen), base, seen, replies=replies, primary=choice.primary)
    chosen, comparisons = summaries.get(decision.leader or ""), decision.comparisons
    ranked = rank_adapters([summary for summary in summaries.values() if not summary.is_base], base, choice.primary)
    bases = [summary for summary in summaries.values() if summary.is_base]
    entries = (*sorted(ranked, key=lambda summary: summary is not chosen), *bases)
    cut_off = cut_off_sentence(often_cut_off(entries), config.eval.max_new_tokens)
    known = {summary.id for summary in candidates}
    subject = chosen or next((summary for summary in ranked if summary.id in known), None)
    held = measured(inputs.run, chosen, label=chosen.id) if chosen else None
    gates = () if against is None else (*check_gates(config.gates, held, against), *choice.gates(held))
    warned = [
        choice.warning,
        blind_sentence(entries[0].ceilings, num_left_out),
        foreign_sentence(entries, scores),
        cut_off,
    ]
    return Report(
        run=_run_facts(config, inputs),
        verdict=verdict_record(decision, [*filter(None, warned), *_warnings(inputs)]),
        adapters=entries,
        failed_adapters=inputs.failed,
        comparisons=(*comparisons, *_further_comparisons(subject, base, scores, comparisons)),
        search=summarise_search(inputs.trials),
        gates=gates,
        timings_s={
            stage: entry.duration_s for stage, entry in inputs.ledger.stages.items() if entry.duration_s is not None
        },
        data=inputs.data.content,
        serve_command=_serve_command(config, inputs, decision.leader),
        selection=choice.record(scores),
        precisions=precision_gaps(scores, inputs.in_full),
        pairs=tuple(found.card for found in inputs.preferences.values()),
    )


def _seen(inputs: ReportInputs, scores: Mapping[str, Scores]) -> tuple[Mapping[str, Scores], int]:
    """The scores that decide, and how many cases they leave out, whose own replies are not recognised."""
    if not any(is_blind(entry.ceilings.get(PRIMARY)) for entry in scores.values()):
        return scores, 0
    own = judge_own_replies(inputs.cases.values())
    return {name: without_blind_cases(entry, own) for name, entry in scores.items()}, sum(not v.correct for v in own)


def _serve_command(config: RunConfig, inputs: ReportInputs, chosen_id: str | None) -> ServeCommand | None:
    chosen = next((scored for scored in inputs.scored if scored.scores.adapter_id == chosen_id), None)
    if chosen is None or chosen.record is None:
        return None
    return as_served(config, chosen.record, chosen.engine, inputs.run.adapter(chosen.record.id).resolve())


def _further_comparisons(
    adapter: AdapterSummary | None,
    base: AdapterSummary | None,
    scores: Mapping[str, Scores],
    made: Sequence[Comparison],
) -> tuple[Comparison, ...]:
    """The adapter at the top of the page against the base on every share of cases that the verdict did not compare."""
    if adapter is None or base is None:
        return ()
    known = {entry.metric for entry in made if (entry.left, entry.right) == (adapter.id, base.id)}
    names = [name for name in compared_metrics() if name not in known]
    pairs = [pair_verdicts(scores[adapter.id], scores[base.id], name) for name in names]
    return compare([pair for pair in pairs if pair.case_ids])


def _warnings(inputs: ReportInputs) -> list[str]:
    """What should make a reader doubt the figures: at most one sentence."""
    evaluation, card = inputs.ledger.stages.get("evaluate"), inputs.data.card
    is_cut = evaluation is not None and evaluation.status != "done" and not inputs.failed
    cut = "The evaluation was cut off, so these figures are preliminary; run evaluate again to finish it"
    leak = leak_warning(card) if card else None
    said = [*([cut] if is_cut else []), *([leak.removesuffix(".")] if leak else [])]
    return [f"{', and '.join(said)}."] if said else []


def _run_facts(config: RunConfig, inputs: ReportInputs) -> JsonObject:
    starts = [entry.started_at for entry in inputs.ledger.stages.values()]
    return {
        "name": config.name,
        "profile": config.profile,
        "base_model": config.model.base,
        "base_revision": config.model.revision,
        "chat_template": template_label(config.model.chat_template),
        "config_digest": digest_of(config),
        "commit": inputs.ledger.commit,
        "versions": inputs.ledger.versions,
        "started_at": min(starts, default=None),
    }


def summarise_search(trials: Sequence[TrialRecord]) -> SearchSummary:
    """Count trials and list them; a diverged trial counts as failed."""
    statuses = [trial.status for trial in trials]
    return SearchSummary(
        num_trials=len(statuses),
        num_stopped_early=statuses.count("stopped_early"),
        num_failed=statuses.count("failed") + statuses.count("diverged"),
        trials=tuple(TrialSummary(**trial.model_dump(include=set(TrialSummary.model_fields))) for trial in trials),
    )
