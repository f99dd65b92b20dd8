"""The memory that a process has held."""

import resource
import sys

import torch


def memory_peak() -> int:
    """The most bytes that this process has held so far: of its GPU if it uses one, else of RAM."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_reserved())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
