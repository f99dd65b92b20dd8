"""Devices that a plan is held against: their memory, and the rate at which they multiply."""

import time
from typing import NamedTuple

import torch

from orchestrator.core.errors import ConfigError
from orchestrator.core.memory import total_memory
from orchestrator.plan.memory import GIB

REACHED = 0.35
"""Share of a stated rate that training reaches; LoRA on bases of 0.5 to 8 B is reported from 0.2 to 0.5."""
CPU_REACHED = 0.35
"""Share of the rate of this processor's products that training reaches."""
FOR_OTHERS = int(1.5 * GIB)
"""What the job itself, Ray and the drivers of trials take of a machine's memory."""
USABLE = 0.92
"""Share of a machine's memory beyond which Ray's monitor may end a process: it does at 0.95."""


class Device(NamedTuple):
    """One device. `memory` is what PyTorch can use of it, in bytes; `flops` a second in half precision, as stated.

    `has_bfloat16` is whether it computes in bfloat16, else in float16. `is_gpu` is False for a CPU, whose memory is
    the machine's.
    """

    name: str
    memory: int
    flops: float
    has_bfloat16: bool = True
    is_gpu: bool = True

    def room(self, processes: int) -> int:
        """Bytes for each of so many training processes side by side on one machine; GPUs have one each."""
        if self.is_gpu:
            return self.memory
        return max(0, int(self.memory * USABLE) - FOR_OTHERS) // processes


def _gpu(name: str, gib: float, teraflops: float, *, has_bfloat16: bool = True) -> Device:
    return Device(name, int(gib * GIB), teraflops * 1e12, has_bfloat16)


GPUS = (
    _gpu("T4", 14.6, 65, has_bfloat16=False),
    _gpu("A10G", 22.1, 70),
    _gpu("L4", 22.1, 121),
    _gpu("L40S", 44.4, 362),
    _gpu("A100-40", 39.4, 312),
    _gpu("A100-80", 79.2, 312),
    _gpu("H100", 79.2, 989),
    _gpu("H200", 139.8, 989),
    _gpu("B200", 178.4, 2250),
    _gpu("RTX3090", 23.6, 71),
    _gpu("RTX4090", 23.5, 165),
    _gpu("RTX5090", 31.4, 209),
)
"""Dense rates, without sparsity, with float32 accumulation; docs/planning.md names and dates the sources."""


def named_device(name: str) -> Device:
    """The device of a name such as `H100`, `a100-80gb`, `cpu` (this one) or `cpu:64` (with 64 GiB).

    Raises:
        ConfigError: If there is none of that name.
    """
    plain = _plain(name)
    if plain.startswith("cpu"):
        size = plain.removeprefix("cpu")
        if not size:
            return this_cpu()
        if size.isdecimal():
            return this_cpu()._replace(name=f"CPU with {size} GiB", memory=int(size) * GIB)
    found = next((device for device in GPUS if _plain(device.name) == plain), None)
    if found is None:
        allowed = f"{', '.join(device.name for device in GPUS)}, cpu, or cpu:64 for one with 64 GiB"
        raise ConfigError(f"no device is called {name!r}", where="--device", allowed=allowed)
    return found


def _plain(name: str) -> str:
    letters = "".join(letter for letter in name.lower() if letter.isalnum())
    return letters.removeprefix("nvidia").removesuffix("gb").removesuffix("gib")


def this_machine() -> Device:
    """The first GPU here, else the processor."""
    if not torch.cuda.is_available():
        return this_cpu()
    name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    known = next((device for device in GPUS if _plain(device.name.split("-")[0]) in _plain(name)), GPUS[0])
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return known._replace(name=name, memory=memory, has_bfloat16=has_bfloat16)


def this_cpu() -> Device:
    """This machine's processor and the memory that processes here may hold, with no rate yet."""
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return Device("this CPU", total_memory(), 0.0, has_bfloat16, is_gpu=False)


def matrix_flops(dtype: str, threads: int) -> float:
    """Floating-point operations a second of this processor's products with so many threads, measured for a moment."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = (torch.ones(512, 1024).to(getattr(torch, dtype)) for _ in range(2))
        left @ right.T
        started, count = time.perf_counter(), 0
        while (took := time.perf_counter() - started) < 0.1:
            left @ right.T
            count += 1
        return 2.0 * 512 * 512 * 1024 * count / took
    finally:
        torch.set_num_threads(before)
