"""`orchestrator status` on runs at work, cut, ended, and on rubbish; from the files of a run alone."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli import run_command
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import BAD_INPUT, DONE
from orchestrator.core.files import write_text_atomic
from orchestrator.core.records import Finding
from orchestrator.core.steps import StepLog, StepRow
from orchestrator.run.folder import Ledger, record_findings, run_stage
from orchestrator.run.paths import RunDir
from orchestrator.run.progress import read_run_progress, stage_progress
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.progress_file import ProgressFile

STEP = {
    "learning_rate": 1e-4,
    "grad_norm": 0.8,
    "token_accuracy": 0.5,
    "tokens_per_s": 1234.0,
    "memory_bytes": 2.5e9,
    "epoch": 0.5,
}
FINDING = Finding(
    name="loss_flat", trial="trial-1", step=20, evidence="It is flat.", advice="Raise it.", threshold="x", source="y"
)


def make_run(folder: Path) -> RunDir:
    run = RunDir(folder / "demo")
    run.root.mkdir(parents=True)
    run.config.write_text(RunConfig(name="demo").model_dump_json(), encoding="utf-8")
    return run


def train(run: RunDir) -> ProgressFile:
    """Two trials of which one has ended."""
    tracker = ProgressFile()
    tracker.run_started(RunInfo(run.root, 4, 100))
    for trial in ("trial-1", "trial-2"):
        tracker.trial_started(trial, {"r": 8, "learning_rate": 1e-4}, 0)
    log = StepLog(run.ray / "search-1" / "trials" / "trial-1.abc", 0)
    for step in range(1, 21):
        log.add(StepRow.model_validate({"step": step, "at": 0, "loss": 3 - step / 10, "tokens": step, **STEP}))
        tracker.step("trial-1", step, {"loss": 3 - step / 10, **STEP})
    log.flush()
    for step, loss in ((10, 2.5), (20, 1.5)):
        tracker.metrics("trial-1", step, {"eval_loss": loss, "train_loss": loss})
    tracker.metrics("trial-2", 10, {"eval_loss": 4.0})
    tracker.trial_ended("trial-2", "lagging")
    tracker.run_ended()
    return tracker


def make_older(run: RunDir, seconds: float) -> None:
    """As if nothing had been heard of for so long."""
    content = json.loads(run.progress.read_text(encoding="utf-8"))
    then = datetime.now(UTC) - timedelta(seconds=seconds)
    write_text_atomic(run.progress, json.dumps({**content, "updated_at": then.isoformat(timespec="seconds")}))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(["status", *arguments]) == DONE
    return capsys.readouterr().out


def test_a_run_at_work_shows_trials_curves_and_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    with stage_progress(run, "search"):
        train(run)
        record_findings(run, [FINDING])
        text = said(capsys, str(run.root))
        stated = json.loads(said(capsys, str(run.root), "--json"))
    assert "demo: search is running" in text
    assert "Steps: 30 of at most 400" in text
    assert "trial-1: running at step 20, best eval loss 1.5000 (r 8, learning rate 0.0001)" in text
    assert "train loss 1.0000, learning rate 0.0001, gradient norm 0.8, 50% of tokens right, 1,234 tokens/s" in text
    assert "2.900 to 1.000" in text
    assert "trial-2: lagging at step 10" in text
    assert "trial-1, step 20: It is flat. Raise it." in text
    assert (stated["state"], stated["progress"]["fraction"]) == ("running", 0.3)
    assert stated["findings"][0]["name"] == "loss_flat"


def test_a_run_that_was_cut_says_when_it_was_last_heard_of_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    beginning = stage_progress(run, "search")
    beginning.__enter__()
    train(run)
    make_older(run, 300)
    text = said(capsys, str(run.root), "--watch")
    beginning.__exit__(None, None, None)
    assert "search was cut off; it was last heard of 5 min 0" in text
    assert f"Go on: orchestrator run {run.root}" in text


def test_a_stage_that_failed_shows_its_error_and_a_finished_one_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)

    def breaks() -> None:
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="disk"):
        run_stage(run, "search", "digest", breaks)
    assert "Last error: the disk is full" in said(capsys, str(run.root))
    run_stage(run, "search", "digest", lambda: None)
    text = said(capsys, str(run.root))
    assert "demo: search done" in text
    assert "error" not in text
    assert f"Go on: orchestrator evaluate {run.root}" in text


def test_a_run_of_which_nothing_is_done_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "demo: nothing was done yet." in said(capsys, str(make_run(tmp_path).root))


@pytest.mark.parametrize("content", ["nonsense", "[]", '{"stage": "search"}'])
def test_rubbish_is_one_line_and_exit_code_3(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    (tmp_path / "empty").mkdir()
    run.progress.write_text(content, encoding="utf-8")
    for place in (run.root, tmp_path / "empty", tmp_path / "nowhere"):
        assert run_command(["status", str(place)]) == BAD_INPUT
        assert capsys.readouterr().err.count("\n") == 1


def test_progress_is_written_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    run = make_run(tmp_path)
    with stage_progress(run, "train"):
        tracker = ProgressFile()
        tracker.run_started(RunInfo(run.root, 1, 10))
        tracker.trial_started("adapter-1", {"r": 8}, 0)
        seen = []
        for step in range(1, 9):
            clock[0] += 0.25
            tracker.step("adapter-1", step, {"loss": 2.0, **STEP})
            latest = read_run_progress(run)
            assert latest is not None
            seen.append(latest.step)
    assert seen == [0, 0, 0, 4, 4, 4, 4, 8]


def test_findings_outlive_later_stages(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run_stage(run, "search", "digest", lambda: record_findings(run, [FINDING]))
    run_stage(run, "evaluate", "digest", lambda: None)
    assert Ledger.model_validate_json(run.ledger.read_text(encoding="utf-8")).findings == (FINDING,)
