"""A plan's numbers from a few real steps: run beside this process within the memory there is, and kept in a cache."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from orchestrator.config.schema import RunConfig
from orchestrator.core.files import digest_of
from orchestrator.core.progress import doing, say
from orchestrator.core.text import counted
from orchestrator.data.card import TokenCard
from orchestrator.models.base import base_folder
from orchestrator.plan.devices import Device, this_machine
from orchestrator.plan.forecast import DeviceForecast, Job
from orchestrator.plan.measured import Measured
from orchestrator.probe.processes import keep, memory_limit, probe_place, read_kept, run_probes
from orchestrator.probe.request import ProbeRequest

LAYOUT = 2
"""The version of what is measured: another one is measured again."""
STEPS = "orchestrator.probe.steps"
"""The process that trains them."""


class Probe(NamedTuple):
    """What to measure: the request, how many processes side by side, the memory of each as planned, in bytes."""

    request: ProbeRequest
    processes: int
    planned: int
    key: str

    @property
    def place(self) -> Path:
        """Where its result is kept."""
        return probe_place(self.key)


def probe_of(job: Job, forecast: DeviceForecast, device: Device, tokens: Sequence[Path]) -> Probe | None:
    """The probe of a plan for this machine, whose `tokens` of train and val are in folders.

    None for another device, and where workers share a base: one process measures nothing of that.
    """
    if job.config.train.sharding != "none" or not is_here(device):
        return None
    request = _request(job.config, job, forecast, tokens)
    beside = 1
    if not device.is_gpu:
        beside = min(forecast.processes, max(1, (os.cpu_count() or 1) // request.threads))
    key = digest_of(
        LAYOUT,
        request.settings(),
        (base_folder(job.config.model) / "config.json").read_text(encoding="utf-8"),
        [*this_place(), beside],
        _lengths(job.train),
    )
    return Probe(request, beside, forecast.high, key[:16])


def is_here(device: Device) -> bool:
    """Whether this machine has the device."""
    here = this_machine()
    return device.is_gpu == here.is_gpu and (not device.is_gpu or device.name == here.name)


def this_place() -> list[object]:
    """What of a machine and its software decides how fast it is."""
    return [this_machine().name, _processor(), os.cpu_count(), torch.__version__]


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
    return read_kept(probe.place, Measured)


def measured(probe: Probe) -> Measured:
    """What was measured before, else measured now, which takes about a minute.

    Raises:
        TrainingError: If there is too little memory for it, or the steps could not be trained.
    """
    if (before := kept(probe)) is not None:
        return before
    request = probe.request
    limit = memory_limit(probe.processes * probe.planned, on_gpu=request.gpus > 0)
    beside = counted(probe.processes, "process", "processes")
    say(f"Measuring a few real steps in {beside}, which takes about a minute ...")
    with doing("measuring a few real steps"):
        threads = {"OMP_NUM_THREADS": str(request.threads)}  # as Ray has it; accelerate would take all cores
        found = run_probes(STEPS, [request] * probe.processes, Measured, limit, threads)
    together = found[0].model_copy(
        update={
            "tokens_per_s": sum(its.tokens_per_s for its in found) / len(found),
            "read_tokens_per_s": sum(its.read_tokens_per_s for its in found) / len(found),
            "peak_bytes": max(its.peak_bytes for its in found),
            "processes": len(found),
        }
    )
    keep(probe.place, together)
    return together
