"""Work on chunks in other processes of this machine, in order and within bounded memory."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNKS_AHEAD = 2
"""Chunks waiting for each process: enough that none idles, few enough that a fast reader does not fill the memory."""
MAX_PROCESSES = 8
"""Each holds its own libraries, up to half a GiB; beyond so many, reading and writing in this one set the pace."""
INLINE_CHUNKS = 4
"""Work of at most this many chunks is done here: starting processes would take longer."""


def map_chunks(
    work: Callable[[list[Item]], list[Result]], items: Iterable[Item], *, chunk_size: int
) -> Iterator[list[Result]]:
    """Apply `work` to lists of `chunk_size` items and yield its results in the order of the items.

    Many chunks are spread over processes, one a processor that this process may use and at most `MAX_PROCESSES`; few
    are done in this one. `work`, its items and results must be picklable. What `work` raises is raised here.
    """
    source = iter(items)
    chunks = iter(lambda: list(islice(source, chunk_size)), [])
    first = list(islice(chunks, INLINE_CHUNKS + 1))
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_processes = min(num_cores, MAX_PROCESSES)
    if len(first) <= INLINE_CHUNKS or num_processes < 2:
        for chunk in chain(first, chunks):
            yield work(chunk)
        return
    with _processes(num_processes) as pool:
        waiting: deque[Future[list[Result]]] = deque()
        for chunk in chain(first, chunks):
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > num_processes * CHUNKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    # Not fork: the progress display and libraries hold threads and locks, which a forked child would inherit locked.
    context = multiprocessing.get_context("spawn")
    # Interrupts are left to the parent.
    ignored = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=signal.signal, initargs=ignored)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
