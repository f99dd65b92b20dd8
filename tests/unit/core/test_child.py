import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.core import child
from orchestrator.core.errors import OrchestratorError


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130])
def test_the_exit_code_of_a_child_is_forwarded(code: int) -> None:
    assert child.run_child([sys.executable, "-c", f"raise SystemExit({code})"]) == code


def test_a_killed_child_is_a_failure_that_names_the_signal() -> None:
    with pytest.raises(OrchestratorError, match="killed by SIGKILL") as caught:
        child.run_child([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
    assert caught.value.exit_code == 1


GRACEFUL_CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("told to end", flush=True), sys.exit(int(sys.argv[1]))))
print("ready", flush=True)
time.sleep(60)
"""
RESUMES = "Interrupted; the same command resumes."
STUBBORN_CHILD = GRACEFUL_CHILD.replace("sys.exit(int(sys.argv[1]))", "None")
PARENT = """
import sys
from orchestrator.core import child
child.START_S, child.GRACE_S = 0.5, 3.0
sys.exit(child.run_child([sys.executable, "-c", *sys.argv[1:]]))
"""


def _parent_of(program: str, code: int) -> subprocess.Popen[str]:
    command, here = [sys.executable, "-c", PARENT, program, str(code)], Path(child.__file__).parents[2]
    pipe = subprocess.PIPE
    parent = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, cwd=here)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    return parent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("code", "expected"), [(130, 130), (1, 130), (0, 0), (2, 2)])
def test_an_interrupted_child_may_end_in_order(number: signal.Signals, code: int, expected: int) -> None:
    parent = _parent_of(GRACEFUL_CHILD, code)
    parent.send_signal(number)
    told, said = parent.communicate(timeout=20)
    assert told.startswith("told to end\n")
    assert parent.returncode == expected
    assert said == (f"{RESUMES}\n" if code == 1 else "")


def test_signals_to_the_whole_process_group_reach_the_child_as_one_kind() -> None:
    parent = _parent_of(GRACEFUL_CHILD, 130)
    for _ in range(2):
        os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=20) == ("told to end\n", "")
    assert parent.returncode == 130


def test_a_child_that_does_not_listen_is_killed() -> None:
    parent = _parent_of(STUBBORN_CHILD, 0)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=20)[1] == f"{RESUMES}\n"
    assert parent.returncode == 130


@pytest.mark.parametrize("asks", [True, False])
def test_a_child_that_asks_reads_from_the_terminal(asks: bool) -> None:
    """Any other child that reads is stopped by the terminal: it is a group in the background."""
    program = "print('got', input(), flush=True)"
    command = f"[sys.executable, '-c', {program!r}]"
    parent = f"import sys; from orchestrator.core import child; child.run_child({command}, asks={asks})"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(Path(child.__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-c", parent])
    try:
        os.write(terminal, b"Oslo\n")
        shown, deadline = b"", time.monotonic() + (20 if asks else 3)
        while b"got Oslo" not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 1000)
        assert (b"got Oslo" in shown) is asks
    finally:
        for process in [*psutil.Process(pid).children(), psutil.Process(pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        os.close(terminal)
        os.waitpid(pid, 0)
