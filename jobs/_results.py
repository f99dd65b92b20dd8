"""What a stage says when it ends: its result, where it lies, and the next command."""

from pathlib import Path
from typing import TYPE_CHECKING

from evals.records import Scores
from evals.stats.selected import CheckpointScore, Selection, selection_of
from orchestrator.core.board import loss_text
from orchestrator.core.errors import DONE, GATE_NOT_MET
from orchestrator.core.files import parse_line, read_jsonl
from orchestrator.core.progress import say, show_table
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord, TrialRecord
from orchestrator.core.text import counted, unit_text
from orchestrator.data.card import DataCard
from orchestrator.run.paths import RunDir
from orchestrator.search.names import in_order

if TYPE_CHECKING:
    from orchestrator.data.preferences.pair import PairsCard

MAX_TRIALS = 5
"""Most trials that are shown of a search."""
VARIED = ("beta", "learning_rate")
"""Hyperparameters in which trainings on one set of pairs differ."""


def say_next(stage: str, run: RunDir) -> None:
    """The command that comes next in this run."""
    say(f"Next: orchestrator {stage} {shown(run.root)}")


def shown(path: Path) -> str:
    """A path as a person would write it here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def say_prepared(run: RunDir) -> None:
    """How many samples there are, in which parts, and what was set aside."""
    card = parse_line(run.card.read_text(encoding="utf-8"), DataCard, where=str(run.card))
    parts = ", ".join(f"{count:,} {part}" for part, count in card.parts.items())
    aside = f"; {counted(card.quarantined, 'row')} set aside ({shown(run.quarantine)} says why)"
    say(f"{counted(card.samples, 'sample')} in {shown(run.card.parent)}: {parts}{aside if card.quarantined else '.'}")


def say_trained(run: RunDir) -> None:
    """The loss of the one adapter, and its folder."""
    (trial,) = read_jsonl(run.trials, TrialRecord)
    say(f"{trial.trial_id}: eval loss {loss_text(trial.best_eval_loss)} at step {trial.best_step} of {trial.steps}.")
    for adapter_id in filter(None, [trial.adapter_id]):
        say(f"It is in {shown(run.adapter(adapter_id))}. {share_text(run, adapter_id)}".rstrip())


def say_pairs(card: "PairsCard", run: RunDir) -> None:
    """How many pairs there are of each kind, what they are from, and why others were left out."""
    replies, wrong = (sum(getattr(one, name) for one in card.asked.values()) for name in ("replies", "wrong"))
    if replies:
        say(f"{wrong:,} of {counted(replies, 'reply', 'replies')} to training prompts are wrong.")
    rows = [
        (kind, str(one.found), str(one.wanted), str(one.kept), "" if one.tokens is None else _lengths(one.tokens))
        for kind, one in card.kinds.items()
    ]
    show_table("Pairs by kind:", ("kind", "found", "wanted", "kept", "mean tokens, chosen and rejected"), rows)
    if card.left_out:
        why = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in card.left_out.items())
        say(f"Left out: {why}.")
    say(f"They are in {shown(run.preferences(card.adapter_id).root)}, with a line for each that was left out.")


def _lengths(tokens: tuple[float, float]) -> str:
    return " and ".join(f"{mean:.1f}" for mean in tokens)


def say_preferred(run: RunDir, adapter_id: str) -> None:
    """What an adapter learned from its pairs, and where the result lies."""
    made, *others = read_jsonl(run.preferences(adapter_id).trials, TrialRecord)
    if others:
        rows = [
            (one.loss or "", *(f"{one.hyperparameters[key]:.3g}" for key in VARIED), loss_text(one.best_eval_loss))
            for one in (made, *others)
        ]
        show_table("What was tried, the best first:", ("loss", *(key.replace("_", " ") for key in VARIED), "val"), rows)
    loss, step = loss_text(made.best_eval_loss), f"step {made.best_step} of {made.steps}"
    say(f"{made.trial_id}: {adapter_id} learned from {counted(made.pairs or 0, 'pair')}; loss on val {loss} at {step}.")
    say(f"It is in {shown(run.adapter(made.trial_id))}.")


def say_searched(run: RunDir) -> None:
    """The best trials and the folder of their adapters."""
    trials = list(read_jsonl(run.trials, TrialRecord))
    kept = [trial for trial in trials if trial.adapter_id]
    rows = [
        (
            trial.trial_id,
            *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.hyperparameters.values()),
            loss_text(trial.best_eval_loss),
            (trial.stop_reason or trial.status).replace("_", " "),
            "kept" if trial.adapter_id else "",
        )
        for trial in trials[: max(MAX_TRIALS, len(kept))]
    ]
    head = ("trial", *(name.replace("_", " ") for name in trials[0].hyperparameters), "eval loss", "ended", "")
    show_table(f"The best of {counted(len(trials), 'trial')}:", head, rows)
    say(f"{counted(len(kept), 'adapter')} in {shown(run.root / 'adapters')}.")
    selection = selection_of(run, trials)
    if selection is not None:
        _say_selected(selection)


def code_of_search(run: RunDir) -> int:
    """The exit code of a search: whether an adapter meets its constraints."""
    selection = selection_of(run, list(read_jsonl(run.trials, TrialRecord)))
    return GATE_NOT_MET if selection is not None and selection.unmet else DONE


def _say_selected(selection: Selection) -> None:
    """What chose the adapters, and where that is not what eval loss would have taken."""
    found = {one.trial_id: one for one in selection.finalists}
    figures = [
        f"{name} ({', '.join(_figure_texts(found[name]))}, eval loss {loss_text(found[name].eval_loss)})"
        for name in dict.fromkeys((*selection.kept, *selection.by_loss[:1]))
    ]
    say(f"Chosen by {selection.objective} on validation cases: {'; '.join(figures)}.")
    if selection.kept[:1] != selection.by_loss[:1]:
        say(f"Eval loss alone would have taken {selection.by_loss[0]}.")
    if selection.unmet:
        say(selection.unmet)


def _figure_texts(one: CheckpointScore) -> list[str]:
    objective = [] if one.objective is None or len(one.figures) == 1 else [f"{one.objective:.3g}"]
    return [*objective, *(f"{name} {_written(metric.value)}" for name, metric in one.figures.items())]


def say_evaluated(run: RunDir) -> None:
    """How many cases each adapter and the base answer as asked."""
    found = [
        parse_line(path.read_text(encoding="utf-8"), Scores, where=str(path))
        for path in sorted(run.root.glob("evals/[!.]*/scores.json"))
    ]
    right = {scores.adapter_id: _share_right(scores) for scores in found}
    ordered = sorted(right, key=lambda name: (name == BASE_ADAPTER_ID, -(right[name] or 0.0), in_order(name)))
    figures = [f"{name} {_written(right[name])}" for name in ordered]
    cases = counted(max((scores.num_cases for scores in found), default=0), "case")
    say(f"Answered as asked, of {cases}: {', '.join(figures)}.")
    say(f"Replies and scores are in {shown(run.root / 'evals')}.")


def _written(share: float | None) -> str:
    return "not scored" if share is None else unit_text(share)


def _share_right(scores: Scores) -> float | None:
    metric = scores.metrics.get("case_accuracy")
    return metric.value if metric is not None else None


def share_text(run: RunDir, adapter_id: str) -> str:
    """How many parameters an adapter trained, of how many; empty for a record of an earlier version."""
    path = run.adapter_record(adapter_id)
    record = parse_line(path.read_text(encoding="utf-8"), AdapterRecord, where=str(path))
    if record.trained_parameters is None or record.total_parameters is None:
        return ""
    share = record.trained_parameters / record.total_parameters
    trained, total = _millions(record.trained_parameters), _millions(record.total_parameters)
    return f"{trained} of {total} parameters trained ({share * 100:.2f} %)."


def _millions(count: int) -> str:
    """A count with three digits: `10.1 M`."""
    unit, per = next((pair for pair in (("B", 10**9), ("M", 10**6), ("k", 10**3)) if count >= pair[1]), ("", 1))
    return f"{count / per:.3g} {unit}".rstrip()
