"""Work that may not fit the memory, and what is said when even the least does not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from orchestrator.core.errors import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class OutOfMemory:
    """That memory ran out, in the allocator's words."""

    words: str


def attempt(work: Callable[[], T]) -> T | OutOfMemory:
    """What `work` returns, or that memory ran out.

    The error itself is not kept: its traceback holds the tensors that filled the memory.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return OutOfMemory((str(error).splitlines() or ["no memory"])[0])


def _is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class of its own for devices; on the CPU it is a RuntimeError like any other."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        said in words for said in ("can't allocate memory", "not enough memory", "bad_alloc")
    )


def too_large(problem: OutOfMemory) -> TrainingError:
    """What to tell when a single slot with a single row in a pass does not fit."""
    return TrainingError(
        f"a single row of a single adapter does not fit the memory ({problem.words})",
        where="data.max_length",
        fix="Lower data.max_length, set train.gradient_checkpointing, or use a device with more memory",
    )
