"""A trial's optimizer steps as a file: written where it trains, at most once a second, and read from anywhere."""

import time
from pathlib import Path

from pydantic import ConfigDict

from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.records import Record

STEPS = "steps.jsonl"
"""In a trial's folder: one `StepRow` a line."""
BASE = "base.json"
"""Beside the folders of trials: a `BaseReading`."""
INTERVAL_S = 1.0
"""The steps of this time are written together."""


class StepRow(Record):
    """One optimizer step of a trial; written by its worker or engine, read by trackers, `status` and the report.

    Attributes:
        step: Optimizer steps done.
        at: Unix time, seconds.
        loss: Mean over the supervised tokens of the step's samples, before the step.
        learning_rate: That of this step.
        grad_norm: Norm of the adapter's gradient before clipping; infinite where float16 overflowed, and the step was
            skipped.
        token_accuracy: Share of these tokens that the model finds the likeliest.
        tokens: Trained on since step 0, prompts included, padding not.
        tokens_per_s: Tokens of this step by its seconds. Trials of one engine share these seconds.
        memory_bytes: The most that the training process has held, of its GPU or else of RAM; trials of one engine
            share a process.
        epoch: Passes over the training data.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    step: int
    at: float
    loss: float
    learning_rate: float
    grad_norm: float | None = None
    token_accuracy: float | None = None
    tokens: int
    tokens_per_s: float
    memory_bytes: int
    epoch: float

    @property
    def metrics(self) -> dict[str, float]:
        """What trackers hear, under the names of the fields; what is unknown is left out."""
        values = self.model_dump(exclude={"step", "at"}, exclude_none=True)
        return {name: float(value) for name, value in values.items()}


class StepLog:
    """Adds to the file of one trial. One process at a time may have it open."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open at `step`, where training goes on: what an earlier process wrote of later steps is dropped."""
        self._path = folder / STEPS
        self._rows: list[StepRow] = []
        self._written = time.monotonic()
        if self._path.is_file():
            kept = [row for row in read_steps(folder) if row.step <= step]
            write_text_atomic(self._path, _lines(kept))

    def add(self, row: StepRow) -> None:
        """Note a step; the file has it within about a second if steps go on, else after `flush`."""
        self._rows.append(row)
        if time.monotonic() - self._written >= INTERVAL_S:
            self.flush()

    def flush(self) -> None:
        """Write what was noted."""
        self._written = time.monotonic()
        if self._rows:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_lines(self._rows))
            self._rows = []


class StepReader:
    """Reads what is added to the file of a trial in `folder`, past `step`."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._path, self._step = folder / STEPS, step
        self._place, self._file = 0, 0

    def new(self) -> list[StepRow]:
        """Steps that were not read before. A line that is half written is read once it is whole.

        Raises:
            DataError: If a line is no step.
        """
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if (now := self._path.stat().st_ino) != self._file:  # replaced when training went on from an earlier step
                self._place, self._file = 0, now
            file.seek(self._place)
            whole, _, _ = file.read().rpartition(b"\n")
        if not whole:
            return []
        self._place += len(whole) + 1
        where = str(self._path)
        rows = [parse_line(line, StepRow, where=where) for line in whole.decode("utf-8").splitlines() if line]
        found = [row for row in rows if row.step > self._step]
        self._step = max([self._step, *(row.step for row in found)])
        return found


def read_steps(folder: Path) -> list[StepRow]:
    """All steps of the trial in this folder, none where none were written; raises as `StepReader.new` does."""
    return StepReader(folder).new()


def _lines(rows: list[StepRow]) -> str:
    return "".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows)


class BaseReading(Record):
    """What the untouched base makes of some training rows; written by the first worker or engine, read by health.

    Attributes:
        rows: How many rows.
        loss: Mean loss of their supervised tokens.
        mark_loss: Mean loss of the tokens in which all prompts end, None where they end in none alike.
        guess_loss: What guessing among all tokens alike gives.
    """

    rows: int
    loss: float
    mark_loss: float | None
    guess_loss: float
