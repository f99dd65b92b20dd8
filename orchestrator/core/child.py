"""A command run as a child of this one, with this terminal: signals reach it once, and its exit code is this one's."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from orchestrator.core.errors import BAD_INPUT, DONE, GATE_NOT_MET, INTERRUPTED, OrchestratorError
from orchestrator.core.interrupt import SIGNALS
from orchestrator.core.process import tell

START_S, GRACE_S = 2.0, 30.0
"""How long an interrupted stage may take to listen to SIGINT, and to end on its own, before it is killed."""


def run_child(command: Sequence[str], *, asks: bool = False) -> int:
    """Run a command with this terminal and return its exit code, or 130 once interrupted.

    The command is a process group of its own, so that a signal to this one's, as a terminal and service managers send
    it, does not meet Ray's handlers of signals. The first is passed on as SIGINT once the command listens to it, or as
    SIGTERM if it does not within START_S. One that does not end within GRACE_S is killed. A command that `asks` stays
    in this group, for a terminal lets no other read from it.

    Raises:
        OrchestratorError: If the child was killed by another signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes while the child starts is passed on after that
    child = subprocess.Popen(command, preexec_fn=partial(_prepare_child, asks=asks))
    too_slow = threading.Timer(GRACE_S, child.kill)
    interrupt = threading.Thread(target=_interrupt_child, args=(child,))
    too_slow.daemon = interrupt.daemon = True

    is_interrupted = False

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_interrupted
        if not is_interrupted:
            is_interrupted = True  # first of all, as the next signal may come while a thread starts
            too_slow.start()
            interrupt.start()

    for number in (*SIGNALS, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    code = child.wait()
    too_slow.cancel()
    if is_interrupted and code not in (DONE, GATE_NOT_MET, BAD_INPUT, INTERRUPTED):
        tell("Interrupted; the same command resumes.")
        return INTERRUPTED
    if code < 0:
        name = signal.Signals(-code).name
        fix = "The machine may be out of memory: lower train.micro_batch_size" if name == "SIGKILL" else None
        raise OrchestratorError(f"the command was killed by {name}", where=" ".join(command[1:3]), fix=fix)
    return code


def _interrupt_child(child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not _listens(child.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT if _listens(child.pid) else signal.SIGTERM)


def _listens(process_id: int) -> bool:
    """Whether a process has a handler of SIGINT, as Linux tells."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    except OSError:
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def _prepare_child(*, asks: bool) -> None:
    """A group of its own, unless it asks; while Python starts, SIGINT would be a traceback, and SIGTERM is not."""
    if not asks:
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
