"""How busy an engine's slots are."""

import time


class Occupancy:
    """Slot-seconds used and on offer since the first trial was let in."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._slots = (0, 0)
        self._seconds = (0.0, 0.0)

    def note(self, busy: int, on_offer: int) -> None:
        """From now on so many slots are busy, of so many on offer."""
        now = time.monotonic()
        if self._since is not None:
            passed = now - self._since
            self._seconds = (
                self._seconds[0] + self._slots[0] * passed,
                self._seconds[1] + self._slots[1] * passed,
            )
        if busy or self._since is not None:
            self._since = now
        self._slots = (busy, on_offer)

    def so_far(self) -> dict[str, float]:
        """Busy and open slot-seconds up to the last note, as fields of `PackUse`."""
        return {"busy_slot_s": self._seconds[0], "open_slot_s": self._seconds[1]}
