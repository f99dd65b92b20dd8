import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from watching import Watching

from orchestrator.tracking.tracker import RunInfo, Tracker, Trackers
from orchestrator.training.trackers import TRACKERS, ProgressBoard, tracked

RUN = RunInfo(Path("runs/demo"), num_trials=2, max_steps=40)


class Breaking(Watching):
    """Fails at the first metrics."""

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        super().metrics(trial, step, values)
        raise ConnectionError("the server is gone")


def follow(tracker: Tracker) -> None:
    tracker.run_started(RUN)
    tracker.trial_started("a", {"r": 8}, 0)
    tracker.step("a", 9, {"loss": 1.75, "learning_rate": 1e-4})
    tracker.metrics("a", 10, {"eval_loss": 1.5})
    tracker.metrics("a", 20, {"eval_loss": 1.25, "tokens": 900.0})
    tracker.trial_ended("a", "finished")
    tracker.run_ended()


def test_every_tracker_hears_every_call_in_order() -> None:
    one, other = Watching(), Watching()
    follow(Trackers([one, other]))
    assert one.calls == other.calls
    assert one.calls == [
        ("run_started", RUN),
        ("trial_started", "a", {"r": 8}, 0),
        ("step", "a", 9, {"loss": 1.75, "learning_rate": 1e-4}),
        ("metrics", "a", 10, {"eval_loss": 1.5}),
        ("metrics", "a", 20, {"eval_loss": 1.25, "tokens": 900.0}),
        ("trial_ended", "a", "finished"),
        ("run_ended",),
    ]


def test_a_tracker_that_raises_is_named_once_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    breaking, other = Breaking(), Watching()
    follow(Trackers([breaking, other]))
    assert len(breaking.calls) == 4
    assert len(other.calls) == 7
    said = "The tracker Breaking failed with ConnectionError: the server is gone. Training goes on without it.\n"
    assert capsys.readouterr().out == said


def test_an_interrupt_in_a_tracker_is_not_swallowed() -> None:
    class Interrupted(Watching):
        def run_ended(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(Trackers([Interrupted()]))


def test_a_run_ends_for_its_trackers_whatever_ended_it() -> None:
    watching = Watching()
    with pytest.raises(ValueError, match="broken"), tracked(RUN, (), (lambda: watching,)):
        raise ValueError("broken")
    assert watching.calls == [("run_started", RUN), ("run_ended",)]


def test_the_progress_board_is_a_tracker(capsys: pytest.CaptureFixture[str]) -> None:
    assert ProgressBoard in TRACKERS
    board = ProgressBoard()
    follow(board)
    board.trial_started("b", {"r": 16, "learning_rate": 1e30}, 10)
    board.metrics("b", 20, {"eval_loss": math.nan})
    board.trial_ended("b", "no_improvement")
    lines = [line.rpartition(" (")[0] or line for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "a begins: r 8",
        "a: step 20/40, eval loss 1.2500 (best), finished",
        "b goes on at step 10: r 16, learning rate 1e+30",
        "b: step 20/40, eval loss -, no improvement",
    ]
