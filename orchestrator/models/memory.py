"""The memory that a process has held."""

import torch

from orchestrator.core.memory import resident_peak


def memory_peak() -> int:
    """The most bytes that this process has held so far: of its GPU if it uses one, else of RAM."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    return resident_peak()
