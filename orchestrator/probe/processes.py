"""The processes of a probe: run beside this one within the memory there is, and ended if they take more or too long."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from pydantic import ValidationError

from orchestrator.core.errors import TrainingError
from orchestrator.core.files import parse_line, user_cache, write_text_atomic
from orchestrator.core.memory import free_memory
from orchestrator.core.records import Record
from orchestrator.plan.memory import gib

Asked = TypeVar("Asked", bound=Record)
Found = TypeVar("Found", bound=Record)

THE_PROBE = "the probe"
USABLE = 0.9
"""Share of the memory that is free which probes may take; one that takes more is ended."""
LONGEST_S = 600.0
"""A probe that takes longer is ended."""
LOOK_S = 0.2


def memory_limit(planned: int, *, on_gpu: bool) -> int:
    """Bytes that all of a probe's processes may hold together, on this machine or, each by itself, on its GPU.

    Raises:
        TrainingError: If that is less than the `planned` bytes.
    """
    free = torch.cuda.mem_get_info()[0] if on_gpu else free_memory()
    if planned > USABLE * free:
        what = f"a probe takes {gib(planned)}, and only {gib(free)} are free"
        raise TrainingError(what, where=THE_PROBE, fix="Plan again once other programs have ended")
    return int(USABLE * free)


def probe_place(key: str) -> Path:
    """Where what was measured is kept in the user's cache."""
    return user_cache() / "probes" / f"{key}.json"


def read_kept(place: Path, found: type[Found]) -> Found | None:
    """What was measured before, None where nothing was, or nothing that this version reads."""
    with suppress(OSError, ValidationError):
        return found.model_validate_json(place.read_text(encoding="utf-8"))
    return None


def keep(place: Path, found: Record) -> None:
    """Keep what was measured."""
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(place, found.model_dump_json() + "\n")


def run_probes(
    module: str,
    requests: Sequence[Record],
    found: type[Found],
    limit: int,
    environment: Mapping[str, str] | None = None,
) -> list[Found]:
    """Give each request to a process of `module`, all at once; what each has `found`, which is the last that it prints.

    Raises:
        TrainingError: If one fails, or they take more memory than `limit` bytes, or too long.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        for _ in requests
    ]
    try:
        answers = _results(processes, [request.model_dump_json() for request in requests], limit)
        return [parse_line(answer, found, where=THE_PROBE) for answer in answers]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def answer(request: type[Asked], measure: Callable[[Asked], Record]) -> int:
    """In such a process: measure what stdin asks for, as the first to be ended if memory runs out; the exit code."""
    asked = request.model_validate_json(sys.stdin.read())
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    sys.stdout.write(measure(asked).model_dump_json() + "\n")
    return 0


def _results(processes: Sequence["subprocess.Popen[str]"], requests: Sequence[str], limit: int) -> list[str]:
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
    return [out.strip().splitlines()[-1] for out, _ in answers]


def _held(process_id: int) -> int:
    with suppress(psutil.Error):
        return int(psutil.Process(process_id).memory_info().rss)
    return 0


def _no_probe(why: str) -> TrainingError:
    return TrainingError(why, where=THE_PROBE, fix="--no-probe plans from a stated rate")
