"""Real steps on the toy base, in processes of their own: measured once, within the memory there is."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
from orchestrator.core.errors import TrainingError
from orchestrator.plan.measured import Measured
from orchestrator.plan.memory import GIB
from orchestrator.probe import measure, processes
from orchestrator.probe.measure import Probe, kept, measured
from orchestrator.probe.request import ProbeRequest


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProbeRequest:
    monkeypatch.setattr(processes, "user_cache", lambda: tmp_path / "cache")
    drawn = np.random.default_rng(0)
    rows = [drawn.integers(0, 300, size).tolist() for size in drawn.integers(8, 64, 24)]
    tokens = Dataset.from_dict({"input_ids": rows, "labels": [[-100, *row[1:]] for row in rows]})
    tokens.save_to_disk(str(tmp_path / "tokens"))
    return ProbeRequest(
        runner="multi_lora",
        model=ModelConfig(base="tiny", dtype="float32"),
        lora=LoraConfig(r=4),
        train=TrainConfig(batch_size=4, micro_batch_size=2, gradient_checkpointing=False),
        train_tokens=str(tmp_path / "tokens"),
        val_tokens=str(tmp_path / "tokens"),
        slots=2,
        threads=1,
        gpus=0,
    )


def probe(request: ProbeRequest, *, planned: int = GIB) -> Probe:
    return Probe(request, processes=1, planned=planned, key=request.runner)


@pytest.mark.parametrize("runner", ["multi_lora", "isolated"])
def test_a_few_real_steps_tell_rate_and_peak_and_are_measured_once(
    request_of: ProbeRequest, runner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    its = probe(request_of.model_copy(update={"runner": runner}))
    assert kept(its) is None
    found = measured(its)
    assert found.tokens_per_s > 0
    assert found.read_tokens_per_s > 0
    assert 0.3 * GIB < found.peak_bytes < 2 * GIB
    assert found.steps >= 1
    assert kept(its) == found
    assert measured(its) == found
    assert capsys.readouterr().out.count("Measuring a few real steps") == 1


PROCESS = """
import os, sys
from orchestrator.plan.measured import Measured
from orchestrator.probe.processes import answer
from orchestrator.probe.request import ProbeRequest

def measure(request):
    threads = int(os.environ["OMP_NUM_THREADS"])
    return Measured(
        tokens_per_s=1, read_tokens_per_s=1, peak_bytes=1, steps=threads, processes=1, probe_s=1
    )

sys.exit(answer(ProbeRequest, measure))
"""


def test_its_process_has_the_threads_of_a_worker(
    request_of: ProbeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tells_threads.py").write_text(PROCESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(measure, "STEPS", "tells_threads")
    assert measured(probe(request_of.model_copy(update={"threads": 3}))).steps == 3


def test_no_probe_is_started_for_which_there_is_no_memory(request_of: ProbeRequest) -> None:
    with pytest.raises(TrainingError, match=r"a probe takes 4096.0 GiB, and only .* are free"):
        measured(probe(request_of, planned=4096 * GIB))


def test_a_probe_that_outgrows_the_memory_is_ended(request_of: ProbeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "USABLE", 1e-4)
    with pytest.raises(TrainingError, match=r"it took more than .* of memory, as much as was free, and was ended"):
        measured(probe(request_of, planned=1))
    assert kept(probe(request_of)) is None


def test_why_steps_cannot_be_trained_is_told(request_of: ProbeRequest) -> None:
    broken = request_of.model_copy(update={"train_tokens": "/nowhere"})
    with pytest.raises(TrainingError, match=r"the probe: .*nowhere"):
        measured(probe(broken))


def test_what_was_measured_before_another_version_is_measured_again(request_of: ProbeRequest) -> None:
    its = probe(request_of)
    its.place.parent.mkdir(parents=True)
    its.place.write_text('{"tokens_per_s": 1}\n', encoding="utf-8")
    assert kept(its) is None


def test_the_result_of_an_earlier_plan_is_found(request_of: ProbeRequest) -> None:
    its, before = probe(request_of), Measured(
        tokens_per_s=1.0, read_tokens_per_s=2.0, peak_bytes=3, steps=4, processes=5, probe_s=6.0
    )  # fmt: skip
    its.place.parent.mkdir(parents=True)
    its.place.write_text(before.model_dump_json(), encoding="utf-8")
    assert kept(its) == before
