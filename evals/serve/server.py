"""A vLLM server as a process of this one: started by the line of the report, ended with the block."""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from evals.generate.engine import ON_CPU
from orchestrator.core.errors import EvaluationError
from orchestrator.core.progress import doing
from orchestrator.core.text import duration_text

START_S, END_S, DYING_S, POLL_S = 1800.0, 15.0, 3.0, 0.5
"""How long a server may take to answer, to end when told to, and to end by itself, and how often it is looked after."""
HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
"""Of Linux's <sys/prctl.h>."""


@contextmanager
def serving(command: str, log: Path, *, on_gpu: bool, start_s: float = START_S) -> Iterator[str]:
    """The address of the server that a line of `serve_command` starts, once it answers.

    Its output goes to `log`.

    Raises:
        EvaluationError: If it ends, or does not answer within `start_s` seconds.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    environment = os.environ if on_gpu else os.environ | ON_CPU
    words = [*_program(shlex.split(command)), "--host", HOST, "--port", str(port)]
    with log.open("w", encoding="utf-8") as output:
        server = subprocess.Popen(
            words, env=environment, stdout=output, stderr=output, start_new_session=True, preexec_fn=_end_with_parent
        )
    try:
        with doing("starting the server"):
            _wait_until_up(server, f"http://{HOST}:{port}", log, start_s)
        try:
            yield f"http://{HOST}:{port}"
        except EvaluationError as error:
            if not _has_ended(server):
                raise
            raise EvaluationError(f"the server ended while it was asked: {last_words(log)}", where=str(log)) from error
    finally:
        _end(server)


def _end_with_parent() -> None:
    """Have Linux end the server even where this process is killed and ends nothing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _has_ended(server: subprocess.Popen[bytes]) -> bool:
    """Whether it ends within moments; its connections break before it has."""
    try:
        server.wait(DYING_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _program(words: Sequence[str]) -> list[str]:
    """The line's program as this environment has it, which need not be activated."""
    first = sys.executable if words[0] == "python" else str(Path(sys.executable).with_name(words[0]))
    return [first, *words[1:]]


def _wait_until_up(server: subprocess.Popen[bytes], url: str, log: Path, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while not _is_up(f"{url}/health"):
        if server.poll() is not None:
            raise EvaluationError(f"the server ended before it answered: {last_words(log)}", where=str(log))
        if time.monotonic() > deadline:
            raise EvaluationError(f"the server did not answer within {duration_text(start_s)}", where=str(log))
        time.sleep(POLL_S)


def _is_up(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).is_success
    except httpx2.TransportError:
        return False


def last_words(log: Path) -> str:
    """The last line of a server's log that tells of an error, or its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if "Error: " in line or "error: " in line]
    return (told or lines or ["it said nothing"])[-1][-300:]


def _end(server: subprocess.Popen[bytes]) -> None:
    """Interrupt the server, and kill it and its own processes if it does not end."""
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
    try:
        server.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
