"""Searches whose trials share an engine: what they record, and what they survive."""

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import ray
import yaml
from builders import write_model_folder
from hostile_folders import Marks
from multi_lora_runs import near, points_of
from peft import PeftModel
from ray.util import placement_group_table
from ray.util.state import list_actors
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import BAD_INPUT, SearchError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.models.adapters import list_adapters, load_adapter, read_adapter
from orchestrator.models.base import BaseWeights
from orchestrator.multi_lora.checkpoint import read_progress
from orchestrator.multi_lora.messages import EngineStatus, EngineUse, TrialProgress
from orchestrator.run.cluster import cluster_session
from orchestrator.run.folder import open_run, run_dir
from orchestrator.run.paths import RunDir
from orchestrator.search.run import run_search
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.ray

MAX_STEPS, EVAL_STEPS = 24, 4
GOOD, SLOW, WILD = 5e-3, 2e-3, 1e30
TIGHT = 1e-5
"""Relative difference of losses in float32 when a trial has other company than in an undisturbed run."""


def content(storage: Path, name: str, *, cpus: int = 2, **search: object) -> JsonObject:
    """One engine with two slots for three trials, one of which diverges; `cpus` 1 makes it two engines."""
    space = {"r": [8], "alpha": [16], "learning_rate": [GOOD, WILD, SLOW]}
    return {
        "name": name,
        "model": {"base": "tiny", "dtype": "float32"},
        "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 80}], "max_length": 512},
        "train": {"max_steps": MAX_STEPS, "eval_steps": EVAL_STEPS, "batch_size": 2, "micro_batch_size": 2},
        "search": {"searcher": "grid", "scheduler": "none", "max_concurrent": 2, "keep": 2, "space": space, **search},
        "resources": {"storage_path": str(storage), "cpus_per_worker": cpus},
    }


def prepared(settings: JsonObject) -> tuple[RunConfig, RunDir]:
    config = RunConfig.model_validate(settings)
    run = open_run(config)
    prepare_data(config, run, base_dir=Path.cwd())
    return config, run


def searched(settings: JsonObject) -> tuple[list[TrialRecord], RunDir]:
    config, run = prepared(settings)
    return run_search(config, run), run


def trials_folder(run: RunDir) -> Path:
    (folder,) = run.ray.glob("search-*/trials")
    return folder


def progress_of(run: RunDir) -> dict[str, TrialProgress]:
    return {path.parent.name: read_progress(path.parent) for path in run.ray.glob("search-*/trials/*/progress.json")}


def by_rate(records: list[TrialRecord]) -> dict[float, TrialRecord]:
    return {float(record.hyperparameters["learning_rate"]): record for record in records}


def processes(name: str) -> list[psutil.Process]:
    """Ray's processes below this one that run an actor of this class."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ray::{name}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def in_the_middle(run: RunDir) -> bool:
    """Whether a trial was evaluated, and one is not at its end."""
    progress = progress_of(run).values()
    return any(one.curve for one in progress) and any(one.stop_reason is None for one in progress)


@contextmanager
def once_in_the_middle(run: RunDir, strike: Callable[[], None]) -> Iterator[None]:
    """Strike as soon as the search of `run`, which the block runs, is in the middle."""
    struck: list[bool] = []

    def wait_and_strike() -> None:
        while not in_the_middle(run):
            time.sleep(0.02)
        strike()
        struck.append(in_the_middle(run))

    thread = threading.Thread(target=wait_and_strike, daemon=True)
    thread.start()
    yield
    thread.join(timeout=10)
    assert struck == [True]


def kill_one(name: str) -> None:
    while not (victims := processes(name)):  # Ray renames a process now and then, and in between it has no name
        time.sleep(0.01)
    os.kill(victims[0].pid, signal.SIGKILL)


def assert_same(records: list[TrialRecord], undisturbed: list[TrialRecord]) -> None:
    found, wanted = by_rate(records), by_rate(undisturbed)
    assert found.keys() == wanted.keys()
    assert sorted(record.trial_id for record in records) == ["trial-1", "trial-2", "trial-3"]
    for rate, record in wanted.items():
        assert found[rate].status == record.status
        assert found[rate].stop_reason == record.stop_reason
        assert found[rate].error is None
        assert points_of(found[rate].curve) == near(points_of(record.curve), rel=TIGHT)
        assert found[rate].steps == record.steps


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def cluster(storage: Path, joins_cluster: None) -> Iterator[None]:
    with cluster_session(RunConfig.model_validate(content(storage, "any"))):
        yield


@pytest.fixture(scope="module")
def undisturbed(storage: Path) -> tuple[list[TrialRecord], RunDir]:
    return searched(content(storage, "undisturbed"))


def test_trials_are_on_record_with_what_they_took_and_why_they_ended(
    undisturbed: tuple[list[TrialRecord], RunDir],
) -> None:
    records, run = undisturbed
    assert list(read_jsonl(run.trials, TrialRecord)) == records
    found = by_rate(records)
    assert found[WILD].status == found[WILD].stop_reason == "diverged"
    assert found[WILD].steps in range(1, EVAL_STEPS + 1)
    for rate in (GOOD, SLOW):
        record = found[rate]
        assert (record.status, record.stop_reason, record.steps) == ("completed", "finished", MAX_STEPS)
        assert [point.step for point in record.curve] == list(range(EVAL_STEPS, MAX_STEPS + 1, EVAL_STEPS))
        assert all(math.isfinite(point.train_loss or math.nan) for point in record.curve)
        assert record.curve[-1].eval_loss < record.curve[0].eval_loss
    assert found[GOOD].tokens == found[SLOW].tokens  # the same seed draws the same batches
    assert records[0].best_eval_loss is not None
    assert all(record.tokens and record.device_s and record.duration_s for record in records)

    status, use = (
        model.model_validate_json((trials_folder(run) / name).read_text())
        for model, name in ((EngineStatus, "engine-0.json"), (EngineUse, "engine-0-use.json"))
    )
    assert isinstance(status, EngineStatus)
    assert isinstance(use, EngineUse)
    assert (status.device, status.dtype, status.slots, status.threads, status.measured) == ("cpu", "float32", 2, 2, {})
    assert use.tokens == sum(record.tokens or 0 for record in records)
    spent = sum(record.device_s or 0 for record in records)
    assert use.train_s + use.eval_s == pytest.approx(spent, abs=0.01)


def test_kept_adapters_are_those_of_the_best_and_everyone_can_load_them(
    undisturbed: tuple[list[TrialRecord], RunDir],
) -> None:
    records, run = undisturbed
    kept = list_adapters(run)
    assert [adapter.id for adapter in kept] == [record.trial_id for record in records if record.adapter_id]
    assert {record.hyperparameters["learning_rate"] for record in records if record.adapter_id} == {GOOD, SLOW}
    for adapter in kept:
        folder = run.adapter(adapter.id)
        assert read_adapter(folder) == adapter
        assert set(load_adapter(folder, BaseWeights(tiny_base_folder())).scales.values()) == {2.0}
        base = AutoModelForCausalLM.from_pretrained(tiny_base_folder())
        ids = AutoTokenizer.from_pretrained(tiny_base_folder())("What is the weather?", return_tensors="pt").input_ids
        before = base(input_ids=ids).logits
        assert (PeftModel.from_pretrained(base, folder)(input_ids=ids).logits - before).abs().max() > 1e-3


def test_the_same_search_again_gives_the_same_losses_and_leaves_nothing_behind(
    storage: Path, undisturbed: tuple[list[TrialRecord], RunDir]
) -> None:
    wait_until(lambda: not alive_actors())
    before, threads = {process.pid for process in processes("")}, threading.active_count()
    again, _ = searched(content(storage, "again"))
    assert_same(again, undisturbed[0])
    assert [record.tokens for record in again] == [record.tokens for record in undisturbed[0]]
    wait_until(lambda: not alive_actors())
    wait_until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
    wait_until(lambda: not processes("EngineActor") and not processes("SlotTrial"))
    assert len({process.pid for process in processes("")} - before) <= 4  # idle workers, which Ray keeps for a while
    assert {group["state"] for group in placement_group_table().values()} <= {"REMOVED"}
    assert threading.active_count() <= threads


def alive_actors() -> list[str]:
    return [actor.class_name for actor in list_actors(filters=[("state", "=", "ALIVE")])]


def wait_until(happened: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.fault
def test_a_killed_engine_comes_back_with_fewer_slots_and_nothing_is_lost(
    storage: Path, undisturbed: tuple[list[TrialRecord], RunDir]
) -> None:
    config, run = prepared(content(storage, "engine-killed"))
    with once_in_the_middle(run, lambda: kill_one("EngineActor")):
        records = run_search(config, run)
    assert_same(records, undisturbed[0])
    status = EngineStatus.model_validate_json((trials_folder(run) / "engine-0.json").read_text())
    assert status.slots == 1  # memory is the likeliest cause of a sudden death


@pytest.mark.fault
@pytest.mark.slow
def test_a_killed_trial_is_heard_of_again_and_nothing_is_trained_twice(
    storage: Path, undisturbed: tuple[list[TrialRecord], RunDir]
) -> None:
    config, run = prepared(content(storage, "trial-killed"))
    with once_in_the_middle(run, lambda: kill_one("SlotTrial")):
        records = run_search(config, run)
    assert_same(records, undisturbed[0])
    assert by_rate(records)[GOOD].tokens == by_rate(undisturbed[0])[GOOD].tokens


def job(settings: JsonObject, folder: Path) -> subprocess.Popen[str]:
    """`python -m jobs.search` on the cluster of this module."""
    path = folder / f"{settings['name']}.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.search", "--config", str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.fault
@pytest.mark.slow
def test_a_search_whose_driver_was_killed_goes_on_with_the_same_command(
    storage: Path, undisturbed: tuple[list[TrialRecord], RunDir], tmp_path: Path
) -> None:
    settings = content(storage, "driver-killed")
    run = run_dir(RunConfig.model_validate(settings))
    with job(settings, tmp_path) as first:
        wait_until(lambda: first.poll() is not None or in_the_middle(run), seconds=120)
        first.kill()
        assert first.wait() == -signal.SIGKILL
        assert in_the_middle(run)
    before = progress_of(run)
    with job(settings, tmp_path) as second:
        told = "".join(second.communicate(timeout=240))
        assert second.returncode == 0, told
    assert "Resuming the unfinished search" in told
    records = list(read_jsonl(run.trials, TrialRecord))
    assert_same(records, undisturbed[0])
    after = progress_of(run)
    assert before.keys() <= after.keys()
    assert len(after) == 3


def assert_a_planted_state_is_refused(settings: JsonObject, run: RunDir, tmp_path: Path) -> None:
    """Plant a pickle that Tune would take for its searcher's latest state, see it refused, and take it away."""
    planted, mark = trials_folder(run).parent / "tune-3-3" / "searcher-state-9.pkl", tmp_path / "mark"
    planted.write_bytes(pickle.dumps(Marks(mark)))
    with job(settings, tmp_path) as refused:
        told = "".join(refused.communicate(timeout=240))
        assert refused.returncode == BAD_INPUT, told
    assert f"{planted}: this is not what the run wrote" in told
    assert not mark.exists()
    planted.unlink()


@pytest.mark.fault
def test_a_search_that_is_given_more_trials_trains_only_those_even_if_it_is_killed_meanwhile(
    storage: Path, undisturbed: tuple[list[TrialRecord], RunDir], tmp_path: Path
) -> None:
    settings = content(storage, "more", num_trials=2)
    records, run = searched(settings)
    assert [record.trial_id for record in records] == ["trial-1", "trial-2"]
    before = {path: path.stat().st_mtime_ns for path in trials_folder(run).rglob("*") if "trial-" in str(path)}
    more = content(storage, "more", num_trials=3)
    with job(more, tmp_path) as first:
        wait_until(lambda: first.poll() is not None or in_the_middle(run), seconds=120)
        first.kill()
        assert first.wait() == -signal.SIGKILL
        assert in_the_middle(run)
    assert_a_planted_state_is_refused(more, run, tmp_path)
    with job(more, tmp_path) as second:
        told = "".join(second.communicate(timeout=240))
        assert second.returncode == 0, told
    assert_same(list(read_jsonl(run.trials, TrialRecord)), undisturbed[0])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "trial-1 begins" not in told
    use = EngineUse.model_validate_json((trials_folder(run) / "engine-0-use.json").read_text())
    assert 0 < use.tokens <= (by_rate(records)[GOOD].tokens or 0)
    with job(settings, tmp_path) as fewer:
        told = "".join(fewer.communicate(timeout=240))
        assert fewer.returncode == 3
    assert "has 3 trials; it can be given more, but not fewer (2)" in told


def test_two_engines_share_the_trials_and_refill_the_slots_of_those_that_were_stopped(storage: Path) -> None:
    space = {"r": [4, 8], "alpha": [16], "learning_rate": [GOOD, 1e-9, 2e-9]}
    settings = content(storage, "halving", cpus=1, scheduler="halving", space=space, num_trials=6)
    records, run = searched(settings)
    assert len(records) == 6
    assert {record.stop_reason for record in records} == {"finished", "lagging"}
    assert records[0].hyperparameters["learning_rate"] == GOOD
    assert records[0].stop_reason == "finished"
    uses = [EngineUse.model_validate_json((trials_folder(run) / f"engine-{n}-use.json").read_text()) for n in (0, 1)]
    assert all(use.slots == 1 and use.tokens > 0 for use in uses)
    lagging = [record for record in records if record.stop_reason == "lagging"]
    assert all(record.steps is not None and record.steps < MAX_STEPS for record in lagging)
    assert sum(use.tokens for use in uses) == sum(record.tokens or 0 for record in records)


@pytest.mark.fault
@pytest.mark.slow
def test_a_search_whose_only_engine_is_dead_for_good_fails_and_goes_on_later(
    storage: Path, undisturbed: tuple[list[TrialRecord], RunDir]
) -> None:
    settings = content(storage, "all-dead")
    settings["train"]["max_failures"] = 0
    config, run = prepared(settings)
    with once_in_the_middle(run, lambda: kill_one("EngineActor")):
        try:
            records = run_search(config, run)
        except SearchError:
            records = list(read_jsonl(run.trials, TrialRecord))
    assert "failed" in {record.status for record in records}
    assert all(record.error for record in records if record.status == "failed")
    assert_same(run_search(config, run), undisturbed[0])


def test_a_base_that_the_multi_lora_engine_cannot_train_on_is_refused_in_one_line(
    storage: Path, tmp_path: Path
) -> None:
    folder = write_model_folder(tmp_path / "gpt2")
    vocabulary = len(AutoTokenizer.from_pretrained(folder))
    (folder / "model.safetensors").unlink()
    GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=1, n_head=2)).save_pretrained(folder)
    settings = content(storage, "unsuited")
    settings["model"] = {"base": str(folder), "dtype": "float32"}
    settings["search"]["runner"] = "multi_lora"
    with job(settings, tmp_path) as process:
        _, errors = process.communicate(timeout=240)
    last = errors.strip().splitlines()[-1]
    assert process.returncode == 3, errors
    assert "the multi-LoRA engine adapts only plain linear layers" in last
    assert "Set search.runner to isolated" in last
    assert "Traceback" not in errors
    assert json.loads(run_dir(RunConfig.model_validate(settings)).ledger.read_text())["stages"]["search"]["status"] == (
        "failed"
    )
