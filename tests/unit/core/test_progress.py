import itertools
import math
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import progress
from orchestrator.core.board import COLUMNS, TrialBoard
from orchestrator.core.progress import bar, doing, say, show_table, stage, stages, time_left_s

ROOT = Path(__file__).resolve().parents[3]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def test_time_left_is_a_range_around_what_the_work_so_far_took() -> None:
    assert time_left_s(10.0, 25, 100, 100) == pytest.approx((24.0, 37.5))
    assert time_left_s(10.0, 25, 50, 100) == pytest.approx((8.0, 37.5))
    assert time_left_s(10.0, 120, 100, 100) == (0.0, 0.0)


def test_time_left_is_not_told_before_it_is_known() -> None:
    assert time_left_s(10.0, 0, 100, 100) is None
    assert time_left_s(10.0, 9, 100, 100) is None


@given(st.floats(0.1, 1e6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_time_left_is_never_negative_and_zero_exactly_at_the_end(elapsed: float, done: int, most: int) -> None:
    left = time_left_s(elapsed, done, most, most)
    if left is not None:
        assert 0 <= left[0] <= left[1]
        assert (left[1] == 0) == (done >= most)


def test_say_prints_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("[bold]x[/bold] 100 %")
    assert capsys.readouterr().out == "[bold]x[/bold] 100 %\n"


def test_stage_tells_start_and_duration(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("search"):
        say("inside")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["search ...", "inside"]
    assert re.fullmatch(r"search: done after 0\.\d s", lines[2])


def test_a_stage_of_several_says_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with stages("prepare", "search"), stage("search"):
        pass
    with stages("report"), stage("report"):
        pass
    starts = [line for line in capsys.readouterr().out.splitlines() if line.endswith("...")]
    assert starts == ["2 of 2: search ...", "report ..."]


def test_a_silent_stage_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.08)
    with stage("search"), doing("starting Ray"):
        time.sleep(0.5)
    with stage("search"), doing("starting Ray"), progress.redrawing():
        time.sleep(0.3)
    lines = [line for line in capsys.readouterr().out.splitlines() if "so far" in line]
    assert lines
    assert all(re.fullmatch(r"search: starting Ray, 0\.\d s so far", line) for line in lines)
    assert len(lines) <= 6


def test_what_goes_on_for_long_is_told_more_and_more_seldom_and_never_falls_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.08)
    monkeypatch.setattr(progress, "SELDOM_S", 0.3)
    with stage("search"), doing("training"):
        time.sleep(2.4)
    told = [float(found) for found in re.findall(r"training, (\d+\.\d) s so far", capsys.readouterr().out)]
    pauses = [after - before for before, after in itertools.pairwise(told)]
    assert 4 <= len(told) <= 16, "28 at even pauses"
    assert pauses[-1] > pauses[0]


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
    assert "replies: 1/4, 10 to 30 s left" in capsys.readouterr().out


def test_a_plain_bar_prints_at_intervals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_INTERVAL_S", 0.0)
    with bar("tokenising", 4) as advance:
        advance(1)
        advance(3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tokenising: 1/4, up to 10 s left"
    assert lines[1:] == ["tokenising: 4/4"]


def update(board: TrialBoard, trial: str, step: int, loss: float | None, status: str = "running") -> None:
    board.update(
        trial, hyperparameters={"r": 16, "alpha": 32, "learning_rate": 2e-4}, step=step, eval_loss=loss, status=status
    )


def test_the_plain_board_prints_news_and_not_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    with TrialBoard(2, 100) as board:
        update(board, "trial-1", 0, None)
        for step in range(10, 60, 10):
            update(board, "trial-1", step, 2.0 - step / 100)
        update(board, "trial-1", 60, 1.4, "lagging")
        update(board, "trial-1", 60, 1.4, "lagging")
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == 2
    assert lines[0] == "trial-1 begins: r 16, alpha 32, learning rate 0.0002"
    assert lines[1].startswith("trial-1: step 60/100, eval loss 1.4000 (best), lagging (0.0 s")
    assert not CONTROL.search(out)


def test_a_diverged_trial_is_never_best(capsys: pytest.CaptureFixture[str]) -> None:
    with TrialBoard(2, 100) as board:
        update(board, "bad", 10, math.nan, "diverged")
        update(board, "good", 10, 3.0, "finished")
        update(board, "worse", 10, 4.0, "finished")
    bad, good, worse = capsys.readouterr().out.splitlines()
    assert "(best)" not in bad
    assert "eval loss 3.0000 (best)" in good
    assert "(best)" not in worse


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `time.monotonic` tells."""
    seconds = [0.0]
    monkeypatch.setattr("orchestrator.core.board.time.monotonic", lambda: seconds[0])
    return seconds


def test_time_left_is_at_least_what_ended_trials_took_and_at_most_all_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TrialBoard(2, 100) as board:
        update(board, "trial-1", 0, None)
        clock[0] = 50.0  # the start of a worker is no measure
        update(board, "trial-1", 10, 1.0)
        clock[0] = 60.0
        # 20 steps took 10 s; the other trial has 30 to 100 to go, and this one none.
        update(board, "trial-1", 30, 1.0, "lagging")
    assert "(1 min 00 s, 10 to 70 s left)" in capsys.readouterr().out


def test_no_time_left_is_told_of_a_search_before_a_trial_has_ended(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TrialBoard(2, 100) as board:
        for trial in ("trial-1", "trial-2"):
            update(board, trial, 0, None)
        update(board, "trial-1", 10, 1.0)
        clock[0] = 60.0
        update(board, "trial-1", 90, 1.0)
        assert "left" not in capsys.readouterr().out
        update(board, "trial-1", 100, 1.0, "finished")
    assert "left)" in capsys.readouterr().out


def test_steps_and_trials_of_an_earlier_session_are_no_measure_of_time(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with TrialBoard(12, 100, num_ended=11) as board:
        update(board, "trial-12", 80, None)
        clock[0] = 100.0
        update(board, "trial-12", 90, 1.0)
        assert "trial-12 goes on at step 80" in capsys.readouterr().out
        clock[0] = 110.0
        update(board, "trial-12", 95, 1.0, "finished")
        assert " left" not in capsys.readouterr().out


def on_a_terminal(code: str, *, columns: int = 80, **environment: str) -> str:
    """What a terminal of this width is sent."""
    ours, theirs = pty.openpty()
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": str(columns), **environment}
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=settings, check=True)
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
    return shown.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_the_board_is_a_table_that_is_redrawn(columns: int) -> None:
    code = (
        "from orchestrator.core.board import TrialBoard\n"
        "from orchestrator.core.progress import bar, say\n"
        "with TrialBoard(2, 1000) as board:\n"
        "    board.update('trial-100', hyperparameters={'r': 128, 'alpha': 256, 'learning_rate': 1.234e-4},"
        " step=1000, eval_loss=11.25, status='no improvement')\n"
        "    say('[b]between[/b]')\n"
        "with bar('generating', 4) as advance:\n"
        "    advance(4)\n"
    )
    text = on_a_terminal(code, columns=columns)
    assert "\x1b[" in text
    row = ("trial-100", "128", "256", "0.000123", "1000/1000", "11.2500", "11.2500 *", "no improvement")
    for part in ("1 of 2 trials", *COLUMNS, *row, "[b]between[/b]", "4/4"):
        assert part in text
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).splitlines()) <= columns


def test_no_color_is_honoured() -> None:
    code = "from orchestrator.core.progress import bar\nwith bar('generating', 4) as advance:\n    advance(4)\n"
    assert re.search(r"\x1b\[[0-9;]*3[0-9;]*m", on_a_terminal(code, NO_COLOR="1")) is None


WIDE = ("source", "rows", "kept", "first"), [("a.jsonl", "1,000", "900", "a.jsonl:123: it has no last turn to learn")]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_of_a_wide_table_is_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    head, rows = WIDE
    show_table("Set aside", head, rows)
    path = "/a/path/that/is/longer/than/the/last/column/conversations.jsonl:123:"
    show_table("Set aside", head, [(*rows[0][:3], f"{path} it has no last turn to learn")])
    out = capsys.readouterr().out
    assert path in out
    assert "a.jsonl:123:" in out
    assert out.split().count("learn") == 2
    assert all(len(line) <= max(columns, len(path) + 4) for line in out.splitlines())


def test_a_row_that_does_not_fit_is_many_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    show_table("Parts", ("part", "samples", "calls", "refusals"), [("train", "1,234", "1,000", "a word or two")])
    assert capsys.readouterr().out.splitlines() == [
        "Parts",
        "- train",
        "    samples: 1,234",
        "    calls: 1,000",
        "    refusals: a word or two",
    ]
