"""`budget.json`: what a search with a budget spent. Written by the search, read by the report."""

from typing import Literal

from orchestrator.core.records import Record
from orchestrator.core.text import duration_text

Ended = Literal["spent", "no gain"]


class Round(Record):
    """Trials from the `first` to the `last` that were trained together, in `wall_s` seconds by the clock."""

    first: int
    last: int
    wall_s: float


class BudgetRecord(Record):
    """`budget.json`: what a search with a budget spent, and why it ended.

    `limit_s` and `spent_s` are seconds, of devices for `device_hours`, else by the clock. `stopped` are trials that the
    clock stopped. `bound` is by how much another trial is expected to lower the loss at the first rung at most, and
    `noise` below which that is nothing; None where too few trials were known. `ended` is None while it goes on, and
    `with_more` then says what it would do with as much again.
    """

    kind: Literal["device_hours", "cost", "wall"]
    limit_s: float
    spent_s: float = 0.0
    rounds: tuple[Round, ...] = ()
    stopped: tuple[str, ...] = ()
    bound: float | None = None
    noise: float | None = None
    ended: Ended | None = None
    with_more: str = ""

    @property
    def text(self) -> str:
        """What was spent, why the search ended, and what the clock stopped."""
        what = "time of devices" if self.kind == "device_hours" else "time by the clock"
        parts = [f"The search spent {duration_text(self.spent_s)} of {duration_text(self.limit_s)} ({what})."]
        if self.ended is not None:
            parts.append("The rest buys no other trial." if self.ended == "spent" else self._no_gain())
        if self.stopped:
            parts.append(f"The clock stopped {', '.join(self.stopped)} before the end.")
        return " ".join([*parts, self.with_more] if self.with_more else parts)

    def _no_gain(self) -> str:
        return (
            "It ended before, because another trial is expected to lower the eval loss at the first rung by "
            f"{self.bound:.2g} at most, and losses that differ by less than {self.noise:.2g} count as equal."
        )
