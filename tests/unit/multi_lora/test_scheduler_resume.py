"""What another engine makes of the folders that one left, wherever it was cut off."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from multi_lora_runs import (
    EVAL_STEPS,
    advance_until_idle,
    follow,
    follow_all,
    follow_at_once,
    hear,
    losses_of,
    make_engine,
    make_spec,
    make_trials,
    near,
    points_of,
)

from orchestrator.core.errors import TrainingError
from orchestrator.core.records import DIVERGED_LOSS
from orchestrator.core.steps import STEPS as STEPS_FILE
from orchestrator.core.steps import read_steps
from orchestrator.models.adapters import WEIGHTS
from orchestrator.multi_lora.checkpoint import SLOT, read_progress, step_folder
from orchestrator.multi_lora.messages import TrialProgress
from orchestrator.multi_lora.scheduler import SlotScheduler
from orchestrator.run.happened import HAPPENED

SPECS = {
    "a": make_spec(rank=4, dropout=0.1),
    "b": make_spec(rank=20, seed=1),
    "c": make_spec(rank=8, seed=2, weight_decay=0.1),
}
STEPS = 6


def new_trials(model_folder: Path, storage: Path) -> SlotScheduler:
    return make_trials(make_engine(model_folder, dtype=torch.float32), storage)


def attached(model_folder: Path, storage: Path) -> SlotScheduler:
    trials = new_trials(model_folder, storage)
    for name, spec in SPECS.items():
        trials.attach(name, spec)
    return trials


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialProgress]:
    storage = tmp_path_factory.mktemp("undisturbed")
    follow_at_once(new_trials(model_folder, storage), SPECS)
    progress = {name: read_progress(storage / name) for name in SPECS}
    assert all(one.stop_reason == "finished" and one.step == STEPS for one in progress.values())
    return progress


def without_time(progress: TrialProgress) -> TrialProgress:
    return progress.model_copy(update={"device_s": 0.0})


@pytest.mark.fault
@pytest.mark.parametrize("steps", range(STEPS + 1))
def test_an_engine_that_is_gone_after_any_step_is_replaced_by_another_bit_for_bit(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, TrialProgress], steps: int
) -> None:
    follow_at_once(new_trials(model_folder, tmp_path), SPECS, most_steps=steps)
    heard = follow_at_once(new_trials(model_folder, tmp_path), SPECS)
    for name, wanted in undisturbed.items():
        assert without_time(read_progress(tmp_path / name)) == without_time(wanted)
        assert heard[name][-1].curve == wanted.curve


class Killed(BaseException):
    """Stands for the death of a process: nothing catches it, and nothing is written after it."""


class _Death:
    """Kills at one of the operations on files in a folder. An audit hook can be added, but never removed."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.left = self.seen = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None or not event.startswith(("open", "os.", "shutil.")):
            return
        if any(str(argument).startswith(self.folder) for argument in arguments):
            self.seen += 1
            if self.seen > self.left:
                raise Killed

    def arm(self, folder: Path, operations: int) -> None:
        """Let so many operations pass, and none after them."""
        self.folder, self.left, self.seen = str(folder), operations, 0

    def disarm(self) -> int:
        """Let all pass again. Returns how many were tried."""
        self.folder = None
        return self.seen


@pytest.fixture(scope="module")
def death() -> Iterator[_Death]:
    hook = _Death()
    yield hook
    hook.disarm()


@pytest.mark.parametrize("every", [pytest.param(3, marks=pytest.mark.slow), 40])
def test_an_engine_that_dies_at_any_operation_on_files_loses_nothing_but_time(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, TrialProgress], death: _Death, every: int
) -> None:
    death.arm(tmp_path / "count", 10**9)
    follow_at_once(new_trials(model_folder, tmp_path / "count"), SPECS)
    operations = death.disarm()
    assert operations > 100
    for number in range(0, operations, every):
        storage = tmp_path / str(number)
        trials = attached(model_folder, storage)
        death.arm(storage, number)
        with pytest.raises(Killed):
            follow_at_once(trials, SPECS)
        death.disarm()
        follow_at_once(new_trials(model_folder, storage), SPECS)
        for name, wanted in undisturbed.items():
            found = read_progress(storage / name)
            assert points_of(found.curve) == near(points_of(wanted.curve), rel=1e-5), (number, name)
            assert (found.step, found.stop_reason, found.tokens) == (STEPS, "finished", wanted.tokens)
            kept = {step_folder(storage / name, step).name for step in {found.best_step or 0, STEPS}}
            assert {path.name for path in (storage / name).glob("[!.]*")} == {"progress.json", STEPS_FILE} | kept
            assert [row.step for row in read_steps(storage / name)] == list(range(1, STEPS + 1))
            assert not list((storage / name).glob(".step-*"))


def test_a_trial_that_left_between_two_evaluations_goes_on_from_the_last(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, TrialProgress]
) -> None:
    trials = attached(model_folder, tmp_path)
    for _ in range(3):
        trials.advance()
    trials.detach("a")
    trials.advance()
    left = read_progress(tmp_path / "a")
    assert (left.step, [point.step for point in left.curve], left.stop_reason) == (3, [2], None)
    assert left.tokens > 0.4 * undisturbed["a"].tokens
    evaluations = follow_all(trials, {"a": SPECS["a"]})["a"]
    assert [evaluation.step for evaluation in evaluations] == [2, 4, 6]
    assert losses_of(evaluations) == near(points_of(undisturbed["a"].curve), rel=1e-5)


def test_a_trial_that_has_ended_is_not_trained_again(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, TrialProgress]
) -> None:
    follow_at_once(new_trials(model_folder, tmp_path), SPECS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    trials = attached(model_folder, tmp_path)
    assert not trials.advance()
    for name, wanted in undisturbed.items():
        (evaluation,) = follow(trials, name, SPECS[name])
        assert (evaluation.step, evaluation.stop_reason, evaluation.curve) == (STEPS, "finished", wanted.curve)
    assert not trials.advance()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in files} == before


def test_a_trial_that_diverged_stays_diverged(model_folder: Path, tmp_path: Path) -> None:
    wild = make_spec(learning_rate=1e30, warmup_steps=0)
    first = follow_all(new_trials(model_folder, tmp_path), {"wild": wild})["wild"]
    trials = new_trials(model_folder, tmp_path)
    again = follow(trials, "wild", wild)
    assert again == first[-1:]
    assert again[0].eval_loss == DIVERGED_LOSS


def test_the_end_is_written_together_with_the_last_evaluation(model_folder: Path, tmp_path: Path) -> None:
    """Never a last step on disk that another engine would train beyond."""
    trials = attached(model_folder, tmp_path)
    seen = []
    for _ in range(STEPS):
        follow_at_once(trials, SPECS, most_steps=1)
        seen += [read_progress(tmp_path / name) for name in SPECS]
    assert {one.stop_reason for one in seen if one.curve and one.curve[-1].step == STEPS} == {"finished"}


def test_a_checkpoint_of_other_settings_is_refused_and_harms_no_other_trial(model_folder: Path, tmp_path: Path) -> None:
    trials = attached(model_folder, tmp_path)
    for _ in range(EVAL_STEPS):
        trials.advance()
    again = new_trials(model_folder, tmp_path)
    with pytest.raises(TrainingError, match=r"a/step-000002: the checkpoint is of a trial with other settings"):
        again.attach("a", make_spec(learning_rate=0.5))
    again.attach("b", SPECS["b"])
    assert advance_until_idle(again) == EVAL_STEPS  # as far as it goes ahead of its client
    assert hear(again, "b", 2).step == 4


@pytest.mark.fault
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100]),
        lambda folder: (folder / WEIGHTS).unlink(),
        lambda folder: (folder / SLOT).write_text("{}"),
        lambda folder: (folder / SLOT).write_text("[1]"),
        lambda folder: (folder / SLOT).write_text("{"),
        lambda folder: (folder / "optimizer.safetensors").write_bytes(b""),
    ],
)
@pytest.mark.parametrize("last", [EVAL_STEPS, 2 * EVAL_STEPS])
def test_where_a_checkpoint_is_damaged_the_one_before_is_taken_and_it_is_told(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, TrialProgress], damage: object, last: int
) -> None:
    """Before the first there is only the beginning."""
    follow_at_once(new_trials(model_folder, tmp_path), SPECS, most_steps=last)
    assert callable(damage)
    damage(step_folder(tmp_path / "a", last))
    follow_at_once(new_trials(model_folder, tmp_path), SPECS)
    for name, wanted in undisturbed.items():
        assert points_of(read_progress(tmp_path / name).curve) == near(points_of(wanted.curve), rel=1e-5)
        assert read_progress(tmp_path / name).tokens == wanted.tokens
    (told,) = (tmp_path / "a" / HAPPENED).read_text().splitlines()
    assert f"a: the checkpoint of step-{last:06} cannot be read" in told
    assert "it went on from the checkpoint before" in told


@pytest.mark.fault
def test_what_a_dead_engine_left_half_written_is_cleared_away(model_folder: Path, tmp_path: Path) -> None:
    trials = attached(model_folder, tmp_path)
    for _ in range(EVAL_STEPS):
        trials.advance()
    for name in (".step-000004-abc", "step-000004"):
        (tmp_path / "a" / name).mkdir()
        (tmp_path / "a" / name / WEIGHTS).write_bytes(b"half")
    new_trials(model_folder, tmp_path).attach("a", SPECS["a"])
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["progress.json", "step-000002", STEPS_FILE]


def test_progress_of_earlier_versions_is_read(tmp_path: Path) -> None:
    peers = [{"trial": "a", "step": 2, "eval_loss": 0.5}]
    (tmp_path / "progress.json").write_text(json.dumps({"step": 2, "tokens": 5, "peers": peers}))
    assert read_progress(tmp_path) == TrialProgress(step=2, tokens=5)
    assert read_progress(tmp_path / "nothing") == TrialProgress()
