import json
import math
from pathlib import Path

import pytest

from orchestrator.core.errors import DataError
from orchestrator.core.steps import STEPS, StepLog, StepReader, StepRow, read_steps


def row(step: int, loss: float = 2.0, **fields: float) -> StepRow:
    settled = {
        "at": 0.0,
        "learning_rate": 1e-4,
        "tokens": 10 * step,
        "tokens_per_s": 5.0,
        "memory_bytes": 7,
        "epoch": 0.5,
    }
    return StepRow.model_validate({"step": step, "loss": loss, "tokens": 10 * step, **settled, **fields})


def test_steps_are_written_together_at_most_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("orchestrator.core.steps.time.monotonic", lambda: clock[0])
    log = StepLog(tmp_path / "trial", 0)
    sizes = []
    for step in range(1, 15):
        clock[0] += 0.25
        log.add(row(step))
        sizes.append(len(read_steps(tmp_path / "trial")))
    assert sizes == [0, 0, 0, *[4] * 4, *[8] * 4, *[12] * 3]
    log.flush()
    assert [its.step for its in read_steps(tmp_path / "trial")] == list(range(1, 15))


def test_a_loss_that_is_not_finite_is_read_as_it_was(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 0)
    for step, loss in ((1, math.nan), (2, math.inf)):
        log.add(row(step, loss, grad_norm=-loss))
    log.flush()
    first, second = read_steps(tmp_path)
    assert math.isnan(first.loss)
    assert math.isnan(first.metrics["grad_norm"])
    assert (second.loss, second.grad_norm) == (math.inf, -math.inf)
    assert all(json.loads(line) for line in (tmp_path / STEPS).read_text(encoding="utf-8").splitlines())


def test_a_training_that_goes_on_from_an_earlier_step_drops_the_later_ones(tmp_path: Path) -> None:
    log, reader = StepLog(tmp_path, 0), StepReader(tmp_path)
    for step in range(1, 7):
        log.add(row(step))
    log.flush()
    with (tmp_path / STEPS).open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "lo')  # cut by a kill
    assert [its.step for its in reader.new()] == [1, 2, 3, 4, 5, 6]
    again = StepLog(tmp_path, 4)
    for step in range(5, 9):
        again.add(row(step, 1.0))
    again.flush()
    assert [(its.step, its.loss) for its in reader.new()] == [(7, 1.0), (8, 1.0)]
    assert [its.loss for its in read_steps(tmp_path)] == [2.0] * 4 + [1.0] * 4


def test_a_reader_gives_each_step_once_and_none_before_its_own(tmp_path: Path) -> None:
    reader = StepReader(tmp_path, 2)
    assert reader.new() == []
    log = StepLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.add(row(step))
    log.flush()
    assert reader.new() == [row(3)]
    assert reader.new() == []
    text = row(4).model_dump_json() + "\n"
    with (tmp_path / STEPS).open("a", encoding="utf-8") as file:
        file.write(text[:20])
        file.flush()
        assert reader.new() == []
        file.write(text[20:])
    assert reader.new() == [row(4)]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / STEPS).write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(DataError, match=STEPS):
        read_steps(tmp_path)


def test_trackers_hear_of_what_is_known() -> None:
    assert row(1).metrics == {
        "loss": 2.0,
        "learning_rate": 1e-4,
        "tokens": 10.0,
        "tokens_per_s": 5.0,
        "memory_bytes": 7.0,
        "epoch": 0.5,
    }
    assert row(1, grad_norm=0.0, token_accuracy=0.25).metrics.keys() - row(1).metrics.keys() == {
        "grad_norm",
        "token_accuracy",
    }
