"""Ray Tune's pickles of a run: what the run wrote is read again, and nothing else."""

import pickle
import shutil
from pathlib import Path

import pytest

from orchestrator.core.errors import BAD_INPUT, RunConflictError
from orchestrator.run.folder import read_ledger, record_findings, record_signed
from orchestrator.run.paths import RunDir
from orchestrator.search.signed import SignsStates, require_signed, sign_tuner


class Storage:
    """Where a trial keeps what Tune copies."""

    def __init__(self, staging: Path) -> None:
        self.experiment_driver_staging_path = str(staging)


class Trial:
    """What Tune's list holds."""

    def __init__(self, staging: Path) -> None:
        self.storage = Storage(staging)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "runs" / "run")


@pytest.fixture
def experiment(run: RunDir, tmp_path: Path) -> Path:
    """An experiment of Tune's that the run wrote: the tuner in its folder, a state that was signed and copied there."""
    folder, staging = run.ray / "search-1" / "tune-1-2", tmp_path / "staging"
    folder.mkdir(parents=True)
    (folder / "tuner.pkl").write_bytes(b"tuner")
    sign_tuner(run, folder)
    (staging / "trial-1").mkdir(parents=True)
    (staging / "trial-1" / "error.pkl").write_bytes(b"error")
    signs = SignsStates(run, folder)
    for state in ("first", "second"):
        (staging / "experiment_state-1.json").write_text(state, encoding="utf-8")
        (staging / "searcher-state-1.pkl").write_text(state, encoding="utf-8")
        signs.on_step_begin(iteration=1, trials=[Trial(staging)])
        assert signs.get_state() is None  # type: ignore[func-returns-value]
    shutil.copytree(staging, folder, dirs_exist_ok=True)
    return folder


def test_what_the_run_wrote_is_read_again_also_one_state_late(run: RunDir, experiment: Path) -> None:
    require_signed(run, experiment)
    (experiment / "searcher-state-1.pkl").write_text("first", encoding="utf-8")
    require_signed(run, experiment)
    record_findings(run, [])
    require_signed(run, experiment)


@pytest.mark.parametrize(
    "name", ["tuner.pkl", "experiment_state-1.json", "searcher-state-1.pkl", "searcher-state-9.pkl", "callback.pkl"]
)
def test_what_it_did_not_write_is_refused_in_one_line(name: str, run: RunDir, experiment: Path) -> None:
    (experiment / name).write_bytes(b"something else")
    with pytest.raises(RunConflictError, match="not what the run wrote") as refusal:
        require_signed(run, experiment)
    assert str(refusal.value).startswith(str(experiment / name))
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == BAD_INPUT


def test_a_state_of_a_run_without_a_ledger_is_refused(run: RunDir, experiment: Path) -> None:
    run.ledger.write_text("{}", encoding="utf-8")
    with pytest.raises(RunConflictError, match="not what the run wrote"):
        require_signed(run, experiment)


def test_an_error_that_it_did_not_write_is_left_out(run: RunDir, experiment: Path) -> None:
    error = experiment / "trial-1" / "error.pkl"
    require_signed(run, experiment)
    assert error.exists()
    error.write_bytes(b"something else")
    require_signed(run, experiment)
    assert not error.exists()


@pytest.mark.parametrize("name", [".", "tuner.pkl", "searcher-state-1.pkl", "../../../run.json"])
def test_where_anyone_may_write_nothing_is_read(name: str, run: RunDir, experiment: Path) -> None:
    place = experiment / name
    place.chmod(place.stat().st_mode | 0o002)
    with pytest.raises(RunConflictError, match=r"anyone on this machine may write.*chmod -R o-w"):
        require_signed(run, experiment)


def test_only_the_last_states_of_a_file_are_known(run: RunDir) -> None:
    run.root.mkdir(parents=True)
    for number in (*range(40), 39, 30):
        record_signed(run, {"ray/x.pkl": f"{number}"})
    record_signed(run, {"ray/y.pkl": "0"})
    known = read_ledger(run).signed
    assert known["ray/x.pkl"] == (*map(str, range(8, 30)), *map(str, range(31, 40)), "30")
    assert known["ray/y.pkl"] == ("0",)


def test_the_callback_that_is_stored_with_an_experiment_holds_no_trial(run: RunDir, experiment: Path) -> None:
    signs = SignsStates(run, experiment)
    signs.on_step_begin(iteration=1, trials=[Trial(experiment)])
    again = pickle.loads(pickle.dumps(signs))
    (experiment / "planted.pkl").touch()
    assert again.get_state() is None
    with pytest.raises(RunConflictError):
        require_signed(run, experiment)
