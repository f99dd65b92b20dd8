"""Ray Train jobs on the tiny base: what they keep, what they survive, what they refuse."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
import torch
from builders import prepared, toy_run
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from watching import watch

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DivergedError, ResourceError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.core.steps import read_steps
from orchestrator.models.adapters import WEIGHTS, read_adapter
from orchestrator.models.start import adopt
from orchestrator.run.cluster import cluster_session
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder
from orchestrator.training.launch import train_one

pytestmark = pytest.mark.ray


def small_config(storage: Path, name: str, *, num_workers: int = 1, **train: object) -> RunConfig:
    steps = {"max_steps": 6, "eval_steps": 2, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 5e-3}
    lora, resources = {"r": 8, "alpha": 16}, {"num_workers": num_workers}
    return toy_run(storage, name, lora=lora, train={**steps, **train}, resources=resources)


def killing_a_worker(run: RunDir) -> list[int]:
    """Kill a worker of the run's training once it has saved; the process ids of those that were killed."""
    killed: list[int] = []

    def kill_after_the_first_checkpoint() -> None:
        while not list(run.ray.glob("train/*/progress.json")):
            time.sleep(0.05)
        ours = psutil.Process().children(recursive=True)
        victim = next(process for process in ours if "RayTrainWorker" in process.name() + " ".join(process.cmdline()))
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    threading.Thread(target=kill_after_the_first_checkpoint, daemon=True).start()
    return killed


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def cluster(storage: Path, joins_cluster: None) -> Iterator[None]:
    with cluster_session(small_config(storage, "any")):
        yield


def test_two_workers_train_one_adapter_that_changes_the_base(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = watch(monkeypatch)
    config = small_config(storage, "two-workers", num_workers=2)
    run = prepared(config)

    record = train_one(config, run)

    assert [point.step for point in record.curve] == [2, 4, 6]
    ((name, hyperparameters, step),) = watching.of("trial_started")
    assert (hyperparameters, step) == (record.hyperparameters, 0)
    told = watching.of("metrics")
    assert {trial for trial, *_ in told} == {name}
    assert told[-1][1:] == [
        6,
        {"eval_loss": record.curve[-1].eval_loss, "train_loss": record.curve[-1].train_loss, "tokens": record.tokens},
    ]
    assert watching.of("trial_ended") == [[name, "finished"]]
    assert [watching.calls[0][0], watching.calls[-1][0]] == ["run_started", "run_ended"]
    assert record.best_eval_loss == min(point.eval_loss for point in record.curve)
    assert record.best_step in (2, 4, 6)
    assert record.curve[-1].eval_loss < record.curve[0].eval_loss
    assert list(read_jsonl(run.trials, TrialRecord)) == [record]
    assert record.adapter_id == record.trial_id == name == "adapter-1"
    adapter = read_adapter(run.adapter(record.adapter_id))
    assert (adapter.r, adapter.alpha, adapter.base, adapter.step) == (8, 16, "tiny", record.best_step)

    base = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    ids = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        before = base(input_ids=ids).logits
        after = PeftModel.from_pretrained(base, run.adapter(record.adapter_id))(input_ids=ids).logits
    assert (before - after).abs().max() > 1e-3


def test_workers_that_split_the_base_learn_as_one_does_and_resume(storage: Path) -> None:
    def config(name: str, *, num_workers: int, **train: object) -> RunConfig:
        steps = {"max_steps": 12, "eval_steps": 3, "early_stopping_patience": None, "save_total_limit": 4}
        made = small_config(storage, name, num_workers=num_workers, **steps, **train)
        return made.model_copy(update={"model": made.model.model_copy(update={"dtype": "float32"})})

    alone = config("whole", num_workers=1)
    whole = train_one(alone, prepared(alone))
    together = config("split", num_workers=2, sharding="fsdp")
    run = prepared(together)
    killed = killing_a_worker(run)
    split = train_one(together, run)

    assert len(killed) == 1
    assert split.status == whole.status == "completed"
    for ours, theirs in zip(split.curve, whole.curve, strict=True):
        assert vars(ours) == pytest.approx(vars(theirs), rel=1e-5)
    weights = load_file(run.adapter(split.adapter_id or "") / WEIGHTS)
    one = load_file(next(storage.glob("whole/adapters/*")) / WEIGHTS)
    assert weights.keys() == one.keys()
    for key, tensor in weights.items():
        # AdamW moves weights of tiny gradients by their sign, up to 5e-3 a step; rounding differs between processors.
        torch.testing.assert_close(tensor, one[key], rtol=1e-2, atol=3e-4)
    checkpoint = next(path for path in run.ray.glob("train/*/checkpoint_*") if path.is_dir())
    assert {path.name for path in checkpoint.glob("*.safetensors")} == {WEIGHTS}
    assert not list(checkpoint.glob("pytorch_model_fsdp*"))  # nothing of the base is saved


@pytest.mark.slow
def test_two_workers_train_on_a_base_in_four_bits(storage: Path) -> None:
    config = small_config(storage, "four-bits", num_workers=2)
    config = config.model_copy(update={"model": config.model.model_copy(update={"quantization": "nf4"})})
    run = prepared(config)

    record = train_one(config, run)

    assert record.status == "completed"
    assert record.curve[-1].eval_loss < record.curve[0].eval_loss
    steps = read_steps(next(run.ray.glob("train/train-*")))
    assert len(steps) == 6
    assert all(step.grad_norm is not None and step.grad_norm > 0 for step in steps)
    weights = load_file(run.adapter(record.adapter_id or "") / WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_training_goes_on_from_another_runs_adapter(storage: Path) -> None:
    first_run = prepared(small_config(storage, "first", max_steps=40, eval_steps=20))
    first = train_one(small_config(storage, "first", max_steps=40, eval_steps=20), first_run)
    source = first_run.adapter(first.adapter_id or "")

    config = adopt(small_config(storage, "further", init_from=str(source), learning_rate=1e-9, max_steps=2))
    run = prepared(config)
    further = train_one(config, run)

    assert further.curve[0].eval_loss == pytest.approx(first.best_eval_loss, rel=1e-3)
    adapter = run.adapter(further.adapter_id or "")
    record = read_adapter(adapter)
    assert (record.init_from, further.init_from, record.r, record.alpha) == (str(source), str(source), 8, 16)
    before, after = (load_file(folder / WEIGHTS) for folder in (source, adapter))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.fault
def test_a_killed_worker_goes_on_from_its_last_checkpoint(storage: Path) -> None:
    config = small_config(
        storage, "killed", max_steps=60, eval_steps=5, early_stopping_patience=None, save_total_limit=3
    )
    run = prepared(config)
    killed = killing_a_worker(run)
    record = train_one(config, run)

    assert len(killed) == 1
    assert [point.step for point in record.curve] == list(range(5, 61, 5))
    assert record.status == "completed"
    kept = [folder for folder in run.ray.glob("train/*/checkpoint_*") if folder.is_dir()]
    losses = sorted(point.eval_loss for point in record.curve)
    latest_is_among_them = record.curve[-1].eval_loss in losses[:3]
    assert len(kept) == (3 if latest_is_among_them else 4)
    assert record.best_eval_loss == losses[0]


@pytest.mark.fault
def test_a_loss_that_is_not_finite_is_divergence_and_leaves_no_adapter(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = watch(monkeypatch)
    config = small_config(storage, "diverged", learning_rate=1e30, max_steps=4)
    run = prepared(config)
    with pytest.raises(DivergedError, match=r"stopped being finite.*learning_rate"):
        train_one(config, run)
    assert not (run.root / "adapters").exists()
    assert [status for _, status in watching.of("trial_ended")] == ["diverged"]
    assert watching.calls[-1] == ("run_ended",)


def test_early_stopping_ends_a_run_that_no_longer_improves(storage: Path) -> None:
    # A learning rate this small changes nothing that bfloat16 evaluation can see improve for long.
    config = small_config(
        storage, "patient", learning_rate=1e-12, max_steps=40, eval_steps=1, early_stopping_patience=2
    )
    record = train_one(config, prepared(config))
    assert record.status == "stopped_early"
    assert record.curve[-1].step < 40
    since_best = [point.eval_loss for point in record.curve]
    assert len(since_best) - 1 - since_best.index(min(since_best)) == 2


@pytest.mark.fault
def test_more_than_the_cluster_holds_is_refused_at_once(storage: Path) -> None:
    config = small_config(storage, "too-much", num_workers=64, batch_size=128)
    started = time.monotonic()
    have = ray.cluster_resources()["CPU"]
    with pytest.raises(ResourceError, match=f"64 workers ask for 64 CPUs, but (the cluster|this machine) has {have:g}"):
        train_one(config, prepared(config))
    assert time.monotonic() - started < 10
