"""What health checks cost: little, however much data there is and however long a training takes."""

from pathlib import Path

import pyarrow as pa
from datasets import Dataset, concatenate_datasets

from orchestrator.core.records import EvalPoint
from orchestrator.run.paths import RunDir
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.health import tracker
from orchestrator.training.health.series import Point, Series, Setting


def store(run: RunDir, part: str, rows: list[list[int]]) -> None:
    tables = [pa.table({"input_ids": pa.array([row], pa.list_(pa.int32()))}) for row in rows]
    concatenate_datasets([Dataset(table) for table in tables]).save_to_disk(str(run.root / "data" / "tokens" / part))


def test_rows_of_the_eval_set_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert tracker._rows(run) == (None, 0)
    store(run, "train", [[1, 2, 3], [4, 5], [6], [1, 2]])
    store(run, "val", [[4, 5], [1, 2, 3], [1, 2, 3], [5, 4], [6, 6]])
    assert tracker._rows(run) == (5, 3)


class Counted(tracker.Health):
    looks = 0

    def _look(self, trial: str) -> None:
        self.looks += 1
        super()._look(trial)


def test_a_long_training_is_looked_at_ever_more_seldom(tmp_path: Path) -> None:
    health, steps = Counted(), 5000
    health.run_started(RunInfo(tmp_path, 1, steps))
    health.trial_started("trial-1", {"learning_rate": 1e-4}, 0)
    looks = []
    for step in range(1, steps + 1):
        loss = 2.0 - step / steps
        health.step("trial-1", step, {"loss": loss, "learning_rate": 1e-4, "grad_norm": 1.0, "epoch": 0.0})
        looks.append(health.looks)
    assert looks[39] == 10
    assert looks[-1] < 200


def test_steps_are_dealt_to_the_evaluations_after_them() -> None:
    steps = [Point(step, 1.0, 1e-4) for step in range(1, 11)]
    curve = [EvalPoint(step=step, eval_loss=1.0) for step in (3, 3, 8)]
    windows = Series("trial-1", Setting(max_steps=10), steps, curve).windows
    assert [[point.step for point in window] for window in windows] == [[1, 2, 3], [], [4, 5, 6, 7, 8]]
