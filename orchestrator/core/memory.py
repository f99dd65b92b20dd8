"""The memory that a process may use: the machine's, or its container's; and freed memory that is given back at once."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of containers."""
OWN_GROUPS = Path("/proc/self/cgroup")
"""Names the groups of this process, a line each: number, controllers, path."""
OWN_STATUS = Path("/proc/self/status")
"""Linux' figures of this process, a line each: name, colon, value."""
_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Limit and use of a control group of version 2 and 1; without one they say `max` and a huge number."""
_CACHES = ("inactive_file", "total_inactive_file")
"""What a group calls, in its statistics, files that the kernel lets go when memory is short, which count as used."""
_M_MMAP_THRESHOLD = -3
KERNELS = 256
"""Compiled products of matrices that are kept."""
OF_ITS_OWN = 1 << 20
"""Bytes from which on a block gets pages of its own."""


def total_memory() -> int:
    """Bytes that processes here may hold together: all of the machine, or less in a container."""
    limits = (limit for limit, _ in _group_limits())
    return min([psutil.virtual_memory().total, *limits])


def free_memory() -> int:
    """Bytes that are free on this machine, within the limit of a container."""
    rooms = (limit - used for limit, used in _group_limits())
    return max(0, min([psutil.virtual_memory().available, *rooms]))


def resident_peak() -> int:
    """The most bytes of RAM that this process has held since it began, or since the kernel was told to begin anew.

    Linux' own count of it, for what `getrusage` says a process inherits from the one that started it.
    """
    with suppress(OSError):
        lines = dict(line.split(":", 1) for line in OWN_STATUS.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def hold_little_memory() -> None:
    """Have this process return every large block to the system when it is freed, and keep few compiled kernels.

    Call it before the first computation. On a CPU, oneDNN compiles a kernel for each shape of a product and keeps the
    last 1,024, some 0.7 GB for rows of all lengths; `KERNELS` hold those of a training step.

    glibc raises the size from which it does so to that of the largest block freed, up to 32 MB. What lies below comes
    from one heap, whose holes between longer-lived blocks stay with the process: training on rows of many lengths held
    twice of what it used, and more with each step. Does nothing where the C library is another.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, OF_ITS_OWN)


def give_freed_memory_back() -> None:
    """Return the free pages of the heap to the system, also those between blocks in use; call it between steps.

    What `hold_little_memory` leaves in the heap scatters, and a training that goes on holds more with every step.
    Does nothing where the C library is another than glibc.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _group_limits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each control group with a limit that this process is in, the innermost first."""
    for folder in _group_folders():
        for limit_name, used_name in _FILES:
            with suppress(OSError, ValueError):
                limit, used = (int((folder / name).read_text()) for name in (limit_name, used_name))
                yield limit, max(0, used - _droppable(folder))


def _droppable(folder: Path) -> int:
    with suppress(OSError):
        lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(int(lines.get(name, 0)) for name in _CACHES)
    return 0


def _group_folders() -> Iterator[Path]:
    """Folders of the groups above this process; within a container its own group is the topmost."""
    paths = ["/"]
    with suppress(OSError):
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
        paths += [path for _, names, path in lines if not names or "memory" in names.split(",")]
    seen = set()
    for root in (CONTROL_GROUPS, CONTROL_GROUPS / "memory"):
        for path in paths:
            inner = root / path.strip("/")
            for folder in (inner, *inner.parents):
                if folder.is_relative_to(root) and folder not in seen:
                    seen.add(folder)
                    yield folder
