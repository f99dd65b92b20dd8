import time
from pathlib import Path

import pytest
from watching import Watching

from orchestrator.core.records import EvalPoint
from orchestrator.core.steps import STEPS, StepLog, StepRow
from orchestrator.tracking.tracker import Trackers
from orchestrator.training import listen
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import Progress


def train(folder: Path, *steps: int, after: int = 0) -> None:
    log = StepLog(folder, after)
    for step in steps:
        log.add(
            StepRow(
                step=step, at=0, loss=1, learning_rate=0.1, tokens=step, tokens_per_s=1, memory_bytes=1, epoch=step / 10
            )
        )
    log.flush()


def evaluated(step: int) -> Progress:
    return Progress(step=step, diverged=False, curve=(EvalPoint(step=step, eval_loss=1.0),))


def test_steps_are_told_before_the_evaluation_after_them_and_all_of_it_once(tmp_path: Path) -> None:
    watching = Watching()
    with Listener(Trackers([watching])) as listener:
        listener.started("a", {"r": 8}, 0, tmp_path)
        train(tmp_path, 1, 2)
        listener.evaluated("a", evaluated(2))
        train(tmp_path, 3, after=2)
        listener.started("a", {"r": 8}, 2, tmp_path)  # its process died
        train(tmp_path, 3, 4, after=2)
        listener.evaluated("a", evaluated(2))
        listener.evaluated("a", evaluated(4))
        train(tmp_path, 5, after=4)
        listener.ended("a", "lagging")
        train(tmp_path, 6, after=5)
    told = [call[:3] if call[0] == "step" else call[0:1] for call in watching.calls]
    assert told == [
        ("trial_started",),
        ("step", "a", 1),
        ("step", "a", 2),
        ("metrics",),
        ("trial_started",),
        ("step", "a", 3),
        ("step", "a", 4),
        ("metrics",),
        ("step", "a", 5),
        ("trial_ended",),
    ]


def test_steps_are_told_between_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "INTERVAL_S", 0.01)
    watching = Watching()
    with Listener(Trackers([watching])) as listener:
        listener.started("a", {"r": 8}, 0, tmp_path)
        train(tmp_path, 1, 2)
        deadline = time.monotonic() + 10
        while len(watching.of("step")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_steps_that_cannot_be_read_are_told_once_and_stop_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watching = Watching()
    with Listener(Trackers([watching])) as listener:
        listener.started("a", {"r": 8}, 0, tmp_path)
        (tmp_path / STEPS).write_text("nonsense\n", encoding="utf-8")
        listener.evaluated("a", evaluated(2))
        listener.ended("a", "finished")
    assert [name for name, *_ in watching.calls] == ["trial_started", "metrics", "trial_ended"]
    assert capsys.readouterr().out.count("The steps of a cannot be read") == 1
