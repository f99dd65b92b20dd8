"""The most memory that an engine holds while it replies: on a GPU on the card, else that of its process."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.memory import resident_peak

_OWN_PAGES = Path("/proc/self/clear_refs")
_RESTART_PEAK = "5"
"""What the kernel takes there for: the highest resident memory begins anew (proc(5))."""


@dataclass
class Peak:
    """What a block held at most; None where the system does not tell."""

    num_bytes: int | None = None


@contextmanager
def peak_memory(*, on_gpu: bool) -> Iterator[Peak]:
    """The peak of the block, known when it ends.

    On a GPU it is what torch has reserved on the card, the key-value cache included; otherwise the resident memory of
    this process with weights, key-value cache as far as it was used, and libraries.
    """
    peak = Peak()
    is_told = _restart(on_gpu=on_gpu)
    yield peak
    if is_told:
        peak.num_bytes = _highest(on_gpu=on_gpu)


def _restart(*, on_gpu: bool) -> bool:
    if on_gpu:
        import torch

        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        _OWN_PAGES.write_text(_RESTART_PEAK)
    except OSError:  # another system, or a container that forbids it
        return False
    return True


def _highest(*, on_gpu: bool) -> int:
    if on_gpu:
        import torch

        return int(torch.cuda.max_memory_reserved())
    return resident_peak()
