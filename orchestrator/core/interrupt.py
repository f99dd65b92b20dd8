"""SIGINT and SIGTERM end every process in the same way: exit code 130, one sentence, and files that stay whole.

Light: it is imported before anything else, so that an interruption during the imports is no traceback either.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from orchestrator.core.errors import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)
END_S = 20.0
"""How long an interrupted process may take to end in order. Files are only ever written whole, so the next command
resumes after a sudden end as well."""
TELL_S = 1.5
"""An end that takes longer than this is announced."""
AGAIN_S = 0.05
"""After this time an interruption that Python dropped is raised again."""
_takes_no_more = threading.Event()
_interrupted = threading.Event()
_is_over = threading.Event()


def end_at_once_if_interrupted() -> None:
    """Until `interrupt_once`: a signal ends this process, in which nothing has begun."""
    for number in SIGNALS:
        signal.signal(number, _end)


def interrupt_once() -> None:
    """Let the first signal raise KeyboardInterrupt; further ones change nothing while the process ends."""
    _takes_no_more.clear()
    _interrupted.clear()
    _is_over.clear()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    sys.unraisablehook = _interrupt_anew


def end_of_work() -> None:
    """From here on a signal changes nothing: the process ends anyway, with the exit code of its work."""
    _takes_no_more.set()
    _is_over.set()


def is_interrupted() -> bool:
    """Whether a signal has arrived since `interrupt_once`.

    Compiled modules that are interrupted while they are imported raise ImportError in place of KeyboardInterrupt.
    """
    return _interrupted.is_set()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Keep the handlers of SIGINT and SIGTERM in a block that sets others, as `ray.init` does.

    Ray's handler of SIGTERM raises SystemExit; the signal is then raised once more for the handler that was kept.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ended_by_ray = False
    try:
        yield
    except SystemExit:
        ended_by_ray = True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended_by_ray:
        signal.raise_signal(signal.SIGTERM)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    _exit_at_once(b"Interrupted before anything began.\n")


def _exit_at_once(sentence: bytes) -> NoReturn:
    os.write(2, sentence)
    os._exit(INTERRUPTED)


def _announce() -> None:
    if not _is_over.is_set():
        os.write(2, b"Interrupted: ending what is at work; this takes up to 20 s.\n")


def _after(seconds: float, action: Callable[..., object], *arguments: object) -> None:
    """Do it then, unless the process has ended."""
    timer = threading.Timer(seconds, action, arguments)
    timer.daemon = True
    timer.start()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    if _takes_no_more.is_set():
        return
    _takes_no_more.set()
    if not _interrupted.is_set():
        _interrupted.set()
        _after(TELL_S, _announce)
        _after(END_S, _exit_at_once, b"Interrupted; the same command resumes.\n")
    raise KeyboardInterrupt


def _interrupt_anew(lost: "sys.UnraisableHookArgs") -> None:
    """Interrupt once more where Python drops the exception: in finalizers and callbacks of weak references."""
    if issubclass(lost.exc_type, KeyboardInterrupt) and _interrupted.is_set():
        _after(AGAIN_S, _signal_again)
    else:
        sys.__unraisablehook__(lost)


def _signal_again() -> None:
    if not _is_over.is_set():
        _takes_no_more.clear()
        os.kill(os.getpid(), signal.SIGINT)
