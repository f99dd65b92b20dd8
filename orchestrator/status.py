"""How a run is doing, read from its folder alone: stage, trials, curves, findings, the last error, how to go on."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from rich.console import Group
from rich.live import Live
from rich.text import Text

from orchestrator.core import progress
from orchestrator.core.board import loss_text, step_texts
from orchestrator.core.errors import DataError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Finding, Record, TrialRecord
from orchestrator.core.steps import StepRow, read_steps
from orchestrator.core.text import counted, duration_text, shown, sparkline
from orchestrator.run.folder import Ledger, read_ledger
from orchestrator.run.paths import RunDir, StageName
from orchestrator.run.progress import STALE_S, RunProgress, TrialState, read_run_progress

WATCH_S = 2.0
CURVE_WIDTH = 24
NEXT: dict[StageName, str] = {
    "prepare": "search",
    "train": "evaluate",
    "search": "evaluate",
    "prefer": "evaluate",
    "evaluate": "report",
}
"""What comes after a stage that is done."""


class RunStatus(Record):
    """What `status --json` prints.

    Attributes:
        state: `new` (nothing was done), `running`, `cut` (it stopped without a word), or how the latest stage ended.
        heard_s: Seconds since the run's process last wrote something; null if it never did.
        progress: The content of `progress.json`.
        stages: Status of each stage, from `run.json`.
        findings: What is known of the training's health.
        go_on: The command that continues or looks at the run.
    """

    run: str
    state: str
    heard_s: float | None
    progress: RunProgress | None
    stages: dict[StageName, str]
    findings: tuple[Finding, ...]
    go_on: str


def read_status(run: RunDir) -> RunStatus:
    """The state of a run.

    Raises:
        DataError: If this is no run, or a file of it cannot be read.
    """
    if not run.root.is_dir() or not (run.config.is_file() or run.ledger.is_file()):
        fix = "Name a run's folder, its name below resources.storage_path, or its configuration"
        raise DataError("there is no run here", where=str(run.root), fix=fix)
    ledger, latest = _readable(run)
    heard_s = None
    if latest is not None:
        heard_s = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(latest.updated_at)).total_seconds())
    state = _state(ledger, latest, heard_s)
    return RunStatus(
        run=str(run.root),
        state=state,
        heard_s=heard_s,
        progress=latest,
        stages={stage: entry.status for stage, entry in ledger.stages.items()},
        findings=ledger.findings,
        go_on=_go_on(run, state, latest),
    )


def _readable(run: RunDir) -> tuple[Ledger, RunProgress | None]:
    try:
        return read_ledger(run), read_run_progress(run)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise DataError(f"the run cannot be read ({error})", where=str(run.root)) from None


def _state(ledger: Ledger, latest: RunProgress | None, heard_s: float | None) -> str:
    if latest is None:
        return "new" if not ledger.stages else "done"
    if latest.status == "running":
        return "running" if heard_s is not None and heard_s < STALE_S else "cut"
    return latest.status


def _go_on(run: RunDir, state: str, latest: RunProgress | None) -> str:
    name = str(run.root)
    if state == "running":
        return f"orchestrator status {name} --watch"
    if latest is None:
        return f"orchestrator run {name}"
    if state == "done":
        following = NEXT.get(latest.stage)
        return f"orchestrator {following} {name}" if following else f"open {run.report / 'report.html'}"
    return f"orchestrator run {name}" if latest.stage != "train" else f"orchestrator train {name}"


def steps_of(run: RunDir, trial: str) -> list[StepRow]:
    """The steps of a trial's latest training in the run; none where none were written."""
    places = [*run.ray.glob(f"search-*/trials/{trial}.*/steps.jsonl")]
    if trial.startswith("adapter-"):
        places += run.ray.glob("train/*/steps.jsonl")
    newest = max(places, key=lambda path: path.stat().st_mtime, default=None)
    return read_steps(newest.parent) if newest is not None else []


def status_lines(run: RunDir, status: RunStatus) -> list[str]:
    """The state for a person."""
    lines = [_headline(status)]
    its = status.progress
    if its is not None and its.total:
        share = "" if its.fraction is None else f", {its.fraction:.0%}"
        begun = f"{len(its.trials)} of {counted(its.num_trials or 0, 'trial')} begun"
        lines.append(f"Steps: {its.step:,} of at most {its.total:,}{share}; {begun}.")
    trials = its.trials if its is not None else ()
    lines += [line for trial in _best_first(trials) for line in _trial_lines(run, trial)]
    if not trials and run.trials.is_file():
        lines += [_record_line(record) for record in read_jsonl(run.trials, TrialRecord)]
    if status.findings:
        lines.append("Findings:")
        lines += [f"  {finding_text(finding)}" for finding in status.findings]
    if its is not None and its.error:
        lines.append(f"Last error: {its.error}")
    if status.state != "running":
        lines.append(f"{'Look at it' if status.go_on.startswith('open') else 'Go on'}: {status.go_on}")
    return lines


def finding_text(finding: Finding) -> str:
    """A finding as a line."""
    where = finding.trial or "the run"
    at = "" if finding.step is None else f", step {finding.step}"
    return f"{where}{at}: {finding.evidence} {finding.advice}"


def _headline(status: RunStatus) -> str:
    its, stages = status.progress, ", ".join(f"{stage} {how}" for stage, how in status.stages.items())
    name = Path(status.run).name
    if its is None:
        return f"{name}: {stages or 'nothing was done yet'}."
    heard = duration_text(status.heard_s or 0.0)
    if status.state == "running":
        since = (datetime.now(UTC) - datetime.fromisoformat(its.started_at)).total_seconds()
        return f"{name}: {its.stage} is running for {duration_text(since)}, heard of {heard} ago ({stages})."
    if status.state == "cut":
        return f"{name}: {its.stage} was cut off; it was last heard of {heard} ago ({stages})."
    return f"{name}: {its.stage} {status.state}, {heard} ago ({stages})."


def _best_first(trials: tuple[TrialState, ...]) -> list[TrialState]:
    def rank(trial: TrialState) -> tuple[bool, float]:
        losses = [point.eval_loss for point in trial.curve]
        return trial.status != "running", min(losses, default=float("inf"))

    return sorted(trials, key=rank)


def _trial_lines(run: RunDir, trial: TrialState) -> list[str]:
    given = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in trial.hyperparameters.items())
    losses = [point.eval_loss for point in trial.curve]
    best = f", best eval loss {loss_text(min(losses))}" if losses else ""
    lines = [f"{trial.trial}: {trial.status.replace('_', ' ')} at step {trial.step}{best} ({given})"]
    known = {name: value for name, value in trial.model_dump().items() if value is not None}
    if trial.status == "running" and {"loss", "learning_rate", "tokens_per_s", "memory_bytes"} <= known.keys():
        lines.append("  " + ", ".join(step_texts(known).values()))
    curves = [("train loss", [row.loss for row in steps_of(run, trial.trial)]), ("eval loss", losses)]
    for name, values in curves:
        if len(values) > 1:
            lines.append(f"  {name:<10} {sparkline(values, CURVE_WIDTH)} {values[0]:.3f} to {values[-1]:.3f}")
    return lines


def _record_line(record: TrialRecord) -> str:
    return f"{record.trial_id}: {record.status.replace('_', ' ')}, best eval loss {loss_text(record.best_eval_loss)}"


def show_status(find: Callable[[], RunDir], *, watch: bool, as_json: bool) -> None:
    """Print the state once, or again and again until the run is no longer at work; `find` is asked each time.

    Raises:
        DataError: If this is no run.
    """
    run = find()
    status = read_status(run)
    if not watch:
        _print(run, status, as_json=as_json)
        return
    if as_json or not progress.on_terminal():
        while True:
            _print(run, status, as_json=as_json)
            if status.state != "running":
                return
            time.sleep(WATCH_S)
            status = read_status(find())
    with Live(console=progress.console, refresh_per_second=1) as live:
        while True:
            live.update(Group(*(Text(shown(line)) for line in status_lines(run, status))))
            if status.state != "running":
                return
            time.sleep(WATCH_S)
            status = read_status(find())


def _print(run: RunDir, status: RunStatus, *, as_json: bool) -> None:
    if as_json:
        progress.say_json(status.model_dump_json())
        return
    for line in status_lines(run, status):
        progress.say(line)
