"""What befell a run: processes that died, hung or were interrupted, and how it went on, in sentences for its report."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from orchestrator.core.files import dump_line
from orchestrator.core.records import Record
from orchestrator.run.paths import RunDir

HAPPENED = "happened.jsonl"
"""In a run's folder, and in that of each training job, whose processes note what befell them there."""
OF_JOBS = ("train/*", "search-*/trials/*")
"""Folders of training jobs, below a run's `ray`."""


class Happening(Record):
    """One line of `happened.jsonl`: when, in UTC and ISO 8601, and what, in a sentence or two."""

    at: str
    text: str


def note(folder: Path, text: str) -> None:
    """Add a sentence to what befell the run or the job with this folder.

    Nothing depends on it, so storage that cannot be written now costs the note alone.
    """
    line = dump_line(Happening(at=datetime.now(UTC).isoformat(timespec="microseconds"), text=text))
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / HAPPENED).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n" if file.tell() else f"{line}\n")  # the last line may be half written


def happenings(run: RunDir) -> list[Happening]:
    """All that was noted, in order of time; lines that a death left half written are left out."""
    folders = [run.root, *(folder for pattern in OF_JOBS for folder in run.ray.glob(pattern))]
    paths = [path for folder in folders if (path := folder / HAPPENED).is_file()]
    return sorted((its for path in paths for its in _whole_lines(path)), key=lambda its: its.at)


def _whole_lines(path: Path) -> Iterator[Happening]:
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(ValidationError):
            yield Happening.model_validate_json(line)
