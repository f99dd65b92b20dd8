"""Who holds a run in a bucket: one process, as long as it is heard of.

Every process writes a lease of its own and only then looks at the others'. Of two that come at once, one at least sees
the other, so that never both hold it. Times are the storage's own: no clock of a machine counts.
"""

import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from orchestrator.core.errors import OrchestratorError, RunConflictError
from orchestrator.core.progress import say
from orchestrator.run.bucket import Bucket

LEASES = "leases"
RENEW_S = 10.0
STALE_S = 60.0
"""A process that did not renew its lease for so long is taken for dead."""
LOOK_S = 2.0


class Lease:
    """This process's claim to a run. `dead` names leases of processes that are known to have ended."""

    def __init__(self, bucket: Bucket, *, dead: tuple[str, ...] = (), stale_s: float = STALE_S) -> None:
        self.name = uuid.uuid4().hex
        self._bucket, self._dead, self._stale_s = bucket, dead, stale_s
        self._key = f"{LEASES}/{self.name}"
        self._renewed = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def take(self) -> None:
        """Wait until a holder that is silent counts as dead.

        Raises:
            RunConflictError: If another process holds the run and is heard of.
        """
        seen: dict[str, float] = {}
        while True:
            self._write()
            others, now = self._others()
            for key in [key for key, at in others.items() if now - at >= self._stale_s]:
                self._bucket.delete(key)
                del others[key]
            if not others:
                break
            heard_of = [key for key, at in others.items() if seen and seen.get(key) != at]
            if heard_of:
                self._leave_to(heard_of[0])
            if not seen:
                say("The run is held by a process that may have ended; waiting up to a minute for a sign of it.")
            seen = others
            self._bucket.delete(self._key)  # two that wait would otherwise wait for each other
            time.sleep(LOOK_S * random.uniform(0.5, 1.5))
        self._thread.start()

    def _leave_to(self, holder: str) -> None:
        host = "another machine"
        with suppress(FileNotFoundError):
            host = self._bucket.get(holder).decode(errors="replace")
        self._bucket.delete(self._key)
        fix = "Wait for it, or give this run another name"
        raise RunConflictError(f"another process works in this run, on {host}", where=self._bucket.url, fix=fix)

    def _others(self) -> tuple[dict[str, float], float]:
        """When each other lease was written, and this one, which is now."""
        found = {stored.key: stored.written_s for stored in self._bucket.objects_in(LEASES)}
        now = found.pop(self._key)
        for name in self._dead:
            if found.pop(f"{LEASES}/{name}", None) is not None:
                self._bucket.delete(f"{LEASES}/{name}")
        return found, now

    def _write(self) -> None:
        self._bucket.put(self._key, socket.gethostname().encode())
        self._renewed = time.monotonic()

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(OrchestratorError):  # told by whoever publishes
                silent_s = time.monotonic() - self._renewed
                if silent_s > self._stale_s and self._key not in {its.key for its in self._bucket.objects_in(LEASES)}:
                    return  # taken for dead: the run is another's
                self._write()

    def give_back(self) -> None:
        """End the claim."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=RENEW_S)
        with suppress(OrchestratorError):
            self._bucket.delete(self._key)


@contextmanager
def leased(bucket: Bucket, *, dead: tuple[str, ...] = ()) -> Iterator[Lease]:
    """Hold the run in this bucket; raises what `Lease.take` does."""
    lease = Lease(bucket, dead=dead)
    try:
        lease.take()
        yield lease
    finally:
        lease.give_back()
