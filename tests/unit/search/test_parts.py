from pathlib import Path

import pytest

from orchestrator.core.errors import RunConflictError
from orchestrator.core.records import DIVERGED_LOSS, EvalPoint, TrialRecord
from orchestrator.search.parts import Part, losses_of, parts_of


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "ray" / "search-1a2b3c4d"


def begin(storage: Path, *parts: Part) -> None:
    for part in parts:
        part.folder(storage).mkdir(parents=True)


def test_a_search_has_one_part_until_it_is_given_more_trials(storage: Path) -> None:
    assert parts_of(storage, 12) == [Part(1, 12)]
    begin(storage, Part(1, 12))
    assert parts_of(storage, 12) == [Part(1, 12)]
    assert parts_of(storage, 24) == [Part(1, 12), Part(13, 24)]
    begin(storage, Part(13, 24))
    assert parts_of(storage, 100) == [Part(1, 12), Part(13, 24), Part(25, 100)]
    assert Part(25, 100).num_trials == 76


def test_fewer_trials_than_there_are_is_refused(storage: Path) -> None:
    begin(storage, Part(1, 9), Part(10, 12))
    with pytest.raises(RunConflictError, match=r"has 12 trials and can be given more, but not fewer \(9\)"):
        parts_of(storage, 9)


def test_a_search_of_an_earlier_version_is_refused(storage: Path) -> None:
    (storage / "tune").mkdir(parents=True)
    with pytest.raises(RunConflictError, match="made by an earlier version"):
        parts_of(storage, 24)


def test_a_part_of_which_tune_recorded_nothing_starts_anew(storage: Path) -> None:
    part = Part(1, 2)
    begin(storage, part)
    (part.folder(storage) / "tuner.pkl").touch()
    assert not part.can_resume(storage)
    assert part.ended(storage) == []


def test_a_diverged_trial_ends_with_the_loss_that_tune_was_told() -> None:
    curve = (EvalPoint(step=5, eval_loss=2.0),)
    record = TrialRecord(trial_id="trial-1", status="diverged", hyperparameters={}, curve=curve, steps=7)
    assert losses_of(record) == [(5, 2.0), (7, DIVERGED_LOSS)]
    assert losses_of(record.model_copy(update={"status": "completed"})) == [(5, 2.0)]
