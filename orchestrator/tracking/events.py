"""What trackers outside this program receive of a run: events, kept as JSON lines in the run's folder.

They stay there, so a tracker that was away for an hour, or for the whole training, receives them later.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import ConfigDict, Field, TypeAdapter

from orchestrator.core.records import JsonObject, Record, StopReason


class Opened(Record):
    """The first line of a run's events; `key` tells this run from every other of the same name."""

    event: Literal["opened"] = "opened"
    key: str


class TrialBegan(Record):
    """A trial began, or goes on at `step` > 0."""

    event: Literal["trial_began"] = "trial_began"
    trial: str
    hyperparameters: dict[str, float | int]
    step: int


class Measured(Record):
    """Values of a trial at an optimizer step; `at` is Unix time in seconds."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # a loss may be NaN

    event: Literal["measured"] = "measured"
    trial: str
    step: int
    at: float = Field(default_factory=time.time)
    values: dict[str, float]


class TrialEnded(Record):
    """A trial will report no more."""

    event: Literal["trial_ended"] = "trial_ended"
    trial: str
    reason: StopReason


class Scored(Record):
    """The metrics on held-out cases of the adapter of a trial, or of the base."""

    event: Literal["scored"] = "scored"
    trial: str
    step: int
    values: dict[str, float]

    @property
    def tagged(self) -> dict[str, float]:
        """The metrics under the names that trackers show."""
        return {f"scores/{name}": value for name, value in self.values.items()}


class Reported(Record):
    """The report was written; `files` are absolute paths."""

    event: Literal["reported"] = "reported"
    files: tuple[str, ...]


Event = TrialBegan | Measured | TrialEnded | Scored | Reported
_LINE: TypeAdapter[Opened | Event] = TypeAdapter(
    Annotated[Opened | TrialBegan | Measured | TrialEnded | Scored | Reported, Field(discriminator="event")]
)


class Run(Record):
    """The run whose events a destination receives: its key, name, folder, and configuration."""

    key: str
    name: str
    folder: Path
    config: JsonObject

    def trial_key(self, trial: str) -> str:
        """A key of letters, digits, `-` and `_` that no trial of another run has."""
        return f"{self.key}-{''.join(char if char.isascii() and char.isalnum() else '-' for char in trial)}"


class Destination(Protocol):
    """A tracker's client. Receives the events of one run in order, perhaps some of them again after a failure."""

    notice: str
    """A sentence for the person who trains, or empty."""

    def trial_began(self, event: TrialBegan) -> None:
        """Begin the tracker's run for this trial, or go on with it."""

    def measured(self, event: Measured) -> None:
        """Log values."""

    def trial_ended(self, event: TrialEnded) -> None:
        """End the tracker's run for this trial."""

    def scored(self, event: Scored) -> None:
        """Log scores, with the trial or, for the base, with the run."""

    def reported(self, files: Sequence[Path]) -> None:
        """Keep these files."""

    def close(self) -> None:
        """Send what is still here."""


def deliver(event: Event, destination: Destination) -> None:
    """Hand one event to a destination."""
    match event:
        case TrialBegan():
            destination.trial_began(event)
        case Measured():
            destination.measured(event)
        case TrialEnded():
            destination.trial_ended(event)
        case Scored():
            destination.scored(event)
        case Reported():
            destination.reported([Path(file) for file in event.files])


def tagged(values: Mapping[str, float]) -> dict[str, float]:
    """The values as trackers group them by the first part of a name: those of `eval_`, and under `train` all others."""
    return {_tag(name): value for name, value in values.items()}


def _tag(name: str) -> str:
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if group in ("eval", "train") else f"train/{name}"


def append(path: Path, event: Opened | Event) -> None:
    """Add an event to a file of events."""
    with path.open("a", encoding="utf-8") as file:
        file.write(event.model_dump_json() + "\n")


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Opened | Event, int]]:
    """The whole lines of a file of events from an offset on in bytes, each with the offset behind it."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # it is being written
            offset += len(line)
            yield _LINE.validate_json(line), offset
