"""A plan's numbers from a few real steps: run beside this process within the memory there is, and kept in a cache."""

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from pydantic import ValidationError

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import TrainingError
from orchestrator.core.files import digest_of, parse_line, user_cache, write_text_atomic
from orchestrator.core.memory import free_memory
from orchestrator.core.progress import doing, say
from orchestrator.core.text import counted
from orchestrator.data.card import TokenCard
from orchestrator.models.base import base_folder
from orchestrator.plan.devices import Device, this_machine
from orchestrator.plan.forecast import DeviceForecast, Job
from orchestrator.plan.measured import Measured
from orchestrator.plan.memory import gib
from orchestrator.probe.request import ProbeRequest

LAYOUT = 1
"""The version of what is measured: another one is measured again."""
USABLE = 0.9
"""Share of the memory that is free which probes may take; one that takes more is ended."""
LONGEST_S = 600.0
"""A probe that takes longer is ended."""
LOOK_S = 0.2


class Probe(NamedTuple):
    """What to measure: the request, how many processes side by side, the memory of each as planned, in bytes."""

    request: ProbeRequest
    processes: int
    planned: int
    key: str

    @property
    def place(self) -> Path:
        """Where its result is kept."""
        return user_cache() / "probes" / f"{self.key}.json"


def probe_of(job: Job, forecast: DeviceForecast, device: Device, tokens: Sequence[Path]) -> Probe | None:
    """The probe of a plan for this machine, whose `tokens` of train and val are in folders.

    None for another device, and where workers share a base: one process measures nothing of that.
    """
    here = this_machine()
    if job.config.train.sharding != "none":
        return None
    if device.is_gpu != here.is_gpu or (device.is_gpu and device.name != here.name):
        return None
    request = _request(job.config, job, forecast, tokens)
    beside = 1
    if not device.is_gpu:
        beside = min(forecast.processes, max(1, (os.cpu_count() or 1) // request.threads))
    key = digest_of(
        LAYOUT,
        request.settings(),
        (base_folder(job.config.model) / "config.json").read_text(encoding="utf-8"),
        [here.name, _processor(), os.cpu_count(), beside, torch.__version__],
        _lengths(job.train),
    )
    return Probe(request, beside, forecast.high, key[:16])


def _request(config: RunConfig, job: Job, forecast: DeviceForecast, tokens: Sequence[Path]) -> ProbeRequest:
    settings = {
        "micro_batch_size": forecast.micro_batch_size,
        "gradient_checkpointing": forecast.gradient_checkpointing,
        "init_from": None,
    }
    on_gpu = torch.cuda.is_available()
    return ProbeRequest(
        runner=forecast.runner,
        model=config.model,
        lora=config.lora.model_copy(update={"r": max(job.ranks)}),
        train=config.train.model_copy(update=settings),
        train_tokens=str(tokens[0].resolve()),
        val_tokens=str(tokens[1].resolve()),
        slots=forecast.slots,
        threads=max(1, int(config.resources.cpus_per_worker)),
        gpus=int(on_gpu),
    )


def _lengths(card: TokenCard) -> list[object]:
    return [card.rows, card.tokens, card.learned_tokens, card.longest, card.histogram]


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor()


def kept(probe: Probe) -> Measured | None:
    """What was measured before, None where nothing was, or nothing that this version reads."""
    with suppress(OSError, ValidationError):
        return Measured.model_validate_json(probe.place.read_text(encoding="utf-8"))
    return None


def measured(probe: Probe) -> Measured:
    """What was measured before, else measured now, which takes about a minute.

    Raises:
        TrainingError: If there is too little memory for it, or the steps could not be trained.
    """
    if (before := kept(probe)) is not None:
        return before
    request, limit = probe.request, _memory_limit(probe)
    beside = counted(probe.processes, "process", "processes")
    say(f"Measuring a few real steps in {beside}, which takes about a minute ...")
    with doing("measuring a few real steps"):
        found = _run([request.model_dump_json()] * probe.processes, limit)
    together = found[0].model_copy(
        update={
            "tokens_per_s": sum(its.tokens_per_s for its in found) / len(found),
            "read_tokens_per_s": sum(its.read_tokens_per_s for its in found) / len(found),
            "peak_bytes": max(its.peak_bytes for its in found),
            "processes": len(found),
        }
    )
    probe.place.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(probe.place, together.model_dump_json() + "\n")
    return together


def _memory_limit(probe: Probe) -> int:
    """Bytes that all of a probe's processes may hold together, on this machine or, each by itself, on its GPU."""
    free = torch.cuda.mem_get_info()[0] if probe.request.gpus else free_memory()
    wanted = probe.processes * probe.planned
    if wanted > USABLE * free:
        what = f"a probe takes {gib(wanted)}, and only {gib(free)} are free"
        raise TrainingError(what, where="the probe", fix="Plan again once other programs have ended")
    return int(USABLE * free)


def _run(requests: Sequence[str], limit: int) -> list[Measured]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "orchestrator.probe.steps"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for _ in requests
    ]
    try:
        return _results(processes, requests, limit)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _results(processes: Sequence["subprocess.Popen[str]"], requests: Sequence[str], limit: int) -> list[Measured]:
    answers: list[tuple[str, str]] = [("", "")] * len(processes)

    def talk(place: int) -> None:
        answers[place] = processes[place].communicate(requests[place])

    threads = [threading.Thread(target=talk, args=(place,), daemon=True) for place in range(len(processes))]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LONGEST_S
    while any(thread.is_alive() for thread in threads):
        if sum(_held(process.pid) for process in processes) > limit:
            raise _no_probe(f"it took more than {gib(limit)} of memory, as much as was free, and was ended")
        if time.monotonic() > until:
            raise _no_probe(f"it was not done after {LONGEST_S / 60:.0f} min, and was ended")
        time.sleep(LOOK_S)
    for process, (_, errors) in zip(processes, answers, strict=True):
        if process.returncode:
            last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise _no_probe(last)
    return [parse_line(out.strip().splitlines()[-1], Measured, where="the probe") for out, _ in answers]


def _held(process_id: int) -> int:
    with suppress(psutil.Error):
        return int(psutil.Process(process_id).memory_info().rss)
    return 0


def _no_probe(why: str) -> TrainingError:
    return TrainingError(why, where="the probe", fix="--no-probe plans from a stated rate")
