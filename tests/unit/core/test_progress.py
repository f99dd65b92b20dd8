import math
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import progress
from orchestrator.core.progress import TrialBoard, bar, say, show_table, stage, time_left_s

ROOT = Path(__file__).resolve().parents[3]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def test_time_left_follows_the_steps() -> None:
    assert time_left_s(10.0, 25, 100) == pytest.approx(30.0)
    assert time_left_s(10.0, 0, 100) is None
    assert time_left_s(10.0, 120, 100) == 0.0


@given(st.floats(0.1, 1e6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_time_left_is_never_negative_and_zero_exactly_at_the_end(elapsed: float, done: int, possible: int) -> None:
    left = time_left_s(elapsed, done, possible)
    assert left is not None
    assert left >= 0
    assert (left == 0) == (done >= possible)


def test_say_prints_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]x[/bold] 100 %")
    assert capsys.readouterr().out == "[bold]x[/bold] 100 %\n"


def test_stage_tells_start_and_duration(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("search"):
        say("inside")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["search ...", "inside"]
    assert re.fullmatch(r"search: done after 0\.\d s", lines[2])


@pytest.mark.parametrize(("error", "word"), [(ValueError(), "failed"), (KeyboardInterrupt(), "interrupted")])
def test_stage_tells_how_it_ended(error: BaseException, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)), stage("train"):
        raise error
    assert f"train: {word} after" in capsys.readouterr().out


def test_a_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Scores", ("adapter", "n"), [("base", "10"), ("a1b2c3d4e5", "7")])
    assert capsys.readouterr().out.splitlines() == ["Scores", "adapter     n", "base        10", "a1b2c3d4e5  7"]


def test_a_plain_bar_prints_its_end_once(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("generating", 10) as advance:
        for _ in range(5):
            advance(2)
    assert capsys.readouterr().out == "generating: 10/10\n"


def test_the_time_of_a_bar_begins_when_its_work_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("orchestrator.core.progress.time.monotonic", lambda: clock[0])
    with bar("replies", 4) as advance:
        clock[0] = 100.0
        advance(0)
        clock[0] = 106.0
        advance(1)
        advance(3)
    assert "replies: 1/4, about 18.0 s left" in capsys.readouterr().out


def test_a_plain_bar_prints_at_intervals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_INTERVAL_S", 0.0)
    with bar("tokenising", 4) as advance:
        advance(1)
        advance(3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tokenising: 1/4, about ")
    assert lines[1:] == ["tokenising: 4/4"]


def update(board: TrialBoard, trial: str, step: int, loss: float | None, status: str = "running") -> None:
    board.update(
        trial, hyperparameters={"r": 16, "alpha": 32, "learning_rate": 2e-4}, step=step, eval_loss=loss, status=status
    )


def test_the_plain_board_prints_news_and_not_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    with TrialBoard(2, 100) as board:
        update(board, "t0", 0, None)
        for step in range(10, 60, 10):
            update(board, "t0", step, 2.0 - step / 100)
        update(board, "t0", 60, 1.4, "stopped_early")
        update(board, "t0", 60, 1.4, "stopped_early")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("trial t0: r 16 alpha 32 learning_rate 0.0002 | step 0/100 | eval loss - | running |")
    assert "| step 60/100 | eval loss 1.4000 (best) | stopped_early |" in lines[1]
    assert not CONTROL.search(out)


def test_a_diverged_trial_is_never_best(capsys: pytest.CaptureFixture[str]) -> None:
    with TrialBoard(2, 100) as board:
        update(board, "bad", 10, math.nan, "diverged")
        update(board, "good", 10, 3.0, "completed")
        update(board, "worse", 10, 4.0, "completed")
    bad, good, worse = capsys.readouterr().out.splitlines()
    assert "(best)" not in bad
    assert "eval loss 3.0000 (best)" in good
    assert "(best)" not in worse


def test_time_left_does_not_count_steps_that_ended_trials_will_not_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, *[10.0] * 20])
    monkeypatch.setattr("orchestrator.core.progress.time.monotonic", lambda: next(clock))
    with TrialBoard(2, 100) as board:
        # 20 steps took 10 s; the other trial has 100 to go, and this one none.
        update(board, "t0", 20, 1.0, "stopped_early")
    assert "10.0 s elapsed, about 50.0 s left" in capsys.readouterr().out


def test_on_a_terminal_the_board_is_a_table_that_is_redrawn() -> None:
    code = (
        "from orchestrator.core.progress import TrialBoard, bar, say\n"
        "with TrialBoard(2, 100) as board:\n"
        "    board.update('t0', hyperparameters={'r': 16, 'alpha': 32, 'learning_rate': 2e-4},"
        " step=50, eval_loss=1.25, status='running')\n"
        "    say('[b]between[/b]')\n"
        "with bar('generating', 4) as advance:\n"
        "    advance(4)\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux reports the closed end of a terminal so
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    text = shown.decode()
    assert "\x1b[" in text
    for part in ("1 of 2 trials", "50/100", "1.2500 *", "elapsed, about", "[b]between[/b]", "4/4"):
        assert part in text
