"""Rows set aside, and how often something was found."""

from collections import Counter
from typing import TextIO

from orchestrator.core.jsonl import dump_line
from orchestrator.core.records import QuarantinedRow
from orchestrator.data.card import ReasonCount


class Reasons:
    """How often something was found, with the first place of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one finding."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, example)

    def add_row(self, row: QuarantinedRow) -> None:
        """Count a row of the quarantine."""
        place = row.source if row.line is None else f"{row.source}:{row.line}"
        self.add(row.reason, f"{place}: {row.detail}")

    def counts(self) -> dict[str, ReasonCount]:
        """By reason, in alphabetical order."""
        return {
            reason: ReasonCount(count=self._counts[reason], example=self._examples[reason])
            for reason in sorted(self._counts)
        }


class Quarantine:
    """Writes refused rows as they come and counts their reasons."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.reasons = Reasons()

    def add(self, row: QuarantinedRow) -> None:
        """Set one row aside."""
        self._file.write(dump_line(row) + "\n")
        self.reasons.add_row(row)
