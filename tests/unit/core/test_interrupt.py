"""What an interruption makes of an error that follows it."""

import subprocess
import sys
import textwrap

from orchestrator.core.errors import FAILED, INTERRUPTED

WORK = """
import signal
from orchestrator.core.interrupt import interrupt_once
from orchestrator.core.process import run_guarded

def work():
    if {signalled}:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
    raise ImportError("initialization failed")

interrupt_once()
raise SystemExit(run_guarded("prepare", work, if_interrupted="the same command resumes it"))
"""


def ended(*, signalled: bool) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(WORK.format(signalled=signalled))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_an_error_that_an_interruption_causes_is_the_interruption() -> None:
    """Compiled modules raise ImportError where they are interrupted while they are imported."""
    process = ended(signalled=True)
    assert process.returncode == INTERRUPTED
    assert process.stderr == "prepare interrupted; the same command resumes it\n"


def test_an_error_without_a_signal_is_told() -> None:
    process = ended(signalled=False)
    assert process.returncode == FAILED
    assert "Error: prepare failed: ImportError: initialization failed" in process.stderr


DROPPED = """
import signal, time, weakref
from orchestrator.core.interrupt import interrupt_once
from orchestrator.core.process import run_guarded

class Thing:
    pass

def work():
    thing = Thing()
    watched = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    time.sleep(10)
    return 0

interrupt_once()
raise SystemExit(run_guarded("prepare", work, if_interrupted="the same command resumes it"))
"""


def test_an_interruption_that_python_drops_in_a_callback_is_raised_again() -> None:
    process = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, check=False)
    assert process.returncode == INTERRUPTED
    assert process.stderr == "prepare interrupted; the same command resumes it\n"
