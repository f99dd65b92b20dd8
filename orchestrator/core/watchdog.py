"""Ends a process whose work has stopped moving, so that whoever watches over it starts another."""

import os
import signal
import threading
import time
from collections.abc import Callable

LEAST_S = 300.0
"""No step is taken for hung before this time."""
TIMES = 20
"""Nor before it has taken so many times as long as the longest before it."""


class Watchdog:
    """Waits for a beat after each step. One that stays away for far longer than any before ends the process.

    `hung` is told first, with the seconds without a beat. A thread looks, so it sees all that leaves Python's lock
    free; a process that is stopped as a whole is for others to find.
    """

    def __init__(self, hung: Callable[[float], None], *, least_s: float = LEAST_S) -> None:
        self._hung, self._least_s = hung, least_s
        self._last: float | None = None
        self._longest = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def beat(self) -> None:
        """A step was done, or the first begins."""
        with self._lock:
            now = time.monotonic()
            if self._last is not None:
                self._longest = max(self._longest, now - self._last)
            self._last = now

    def rest(self) -> None:
        """Until the next beat nothing is expected."""
        with self._lock:
            self._last = None

    @property
    def limit_s(self) -> float:
        """Seconds without a beat from which on the process counts as hung."""
        return max(self._least_s, TIMES * self._longest)

    def _watch(self) -> None:
        while True:
            time.sleep(min(5.0, self._least_s / 4))
            with self._lock:
                silent_s = 0.0 if self._last is None else time.monotonic() - self._last
                is_hung = silent_s > self.limit_s
            if is_hung:
                self._hung(silent_s)
                os.kill(os.getpid(), signal.SIGKILL)
