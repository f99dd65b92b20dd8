"""What the doctor finds, and which findings mean that a run cannot work."""

import sys
from pathlib import Path

import pytest

from orchestrator import doctor
from orchestrator.doctor import Finding


@pytest.mark.parametrize(
    ("version", "word"), [((3, 10), "missing"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "missing")]
)
def test_the_python_version(version: tuple[int, int], word: str) -> None:
    assert doctor.python_version(version).word == word


def test_a_package_is_found_with_its_version_or_missing() -> None:
    assert doctor.package_loads("yaml", ("no-such-distribution", "PyYAML")).text.startswith("PyYAML 6")
    assert doctor.package_loads("no_such_module", ("PyYAML",)) == Finding(
        "missing", "no_such_module: No module named 'no_such_module'"
    )
    assert doctor.package_loads("json", ("no-such-distribution",)).word == "missing"


def test_too_little_is_missing() -> None:
    assert doctor.enough("disk", 2.0, 2.0) == Finding("ok", "disk: 2.0 GiB")
    assert doctor.enough("disk", 1.94, 2.0, where="/x") == Finding(
        "missing", "disk: 1.9 GiB in /x; at least 2 GiB are needed"
    )


def test_free_memory_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    3145728 kB\n")
    assert doctor.free_memory(info) == Finding("ok", "free memory: 3.0 GiB")
    assert doctor.free_memory(tmp_path / "missing").word == "note"


def test_only_what_is_missing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.print_findings([Finding("ok", "a"), Finding("note", "b")]) == 0
    assert doctor.print_findings([Finding("ok", "a"), Finding("missing", "b")]) == 1
    assert capsys.readouterr().out.endswith("missing b\n1 missing: a run cannot work here.\n")


def test_bitsandbytes_is_told_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.bitsandbytes()
    assert found.word == "ok"
    assert found.text.startswith("bitsandbytes 0.")
    assert "model.quantization" in found.text
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    missing = doctor.bitsandbytes()
    assert missing.word == "note"
    assert "pip install bitsandbytes" in missing.text


def test_the_trainers_of_preferences_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.preferences().word == "ok"
    monkeypatch.setattr(doctor, "_is_there", lambda module: "dpo" in module)
    lacking = doctor.preferences()
    assert (lacking.word, "trl has DPO, and `prefer` needs both" in lacking.text) == ("note", True)


def test_methods_that_need_gpus_and_packages_are_named() -> None:
    found = {finding.text.partition(": ")[0]: finding for finding in doctor.methods({"CPU": 2.0, "GPU": 0.0})}
    assert {finding.word for finding in found.values()} <= {"ok", "note"}  # none of them is needed
    liger, unsloth = found["train.kernels"], found["train.backend"]
    assert "liger needs the package liger-kernel, which is not installed (pip install liger-kernel" in liger.text
    assert "unsloth needs the package unsloth, which is not installed" in unsloth.text
    assert found["train.sharding"] == doctor.Finding(
        "ok", "train.sharding: fsdp splits a base over several devices; here 2 CPUs"
    )
    assert found["eval.tensor_parallel"].word == "note"
    assert found["train.sample_packing"].text.endswith("by a block mask")
    four = {finding.text.partition(": ")[0]: finding for finding in doctor.methods({"CPU": 8.0, "GPU": 4.0})}
    assert four["eval.tensor_parallel"] == doctor.Finding(
        "ok", "eval.tensor_parallel: splits an engine over GPUs; here 4"
    )
