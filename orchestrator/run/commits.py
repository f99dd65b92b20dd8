"""A run in a bucket: committed states, of which a reader sees the latest and nothing else.

    commits/<term>-<number>.json    what files a state has, and the objects that hold them
    objects/<sha256>                bytes of files, never changed

Objects are written first and the commit last, so that a writer that dies at any moment leaves the state before. A term
is the time that one process holds the run; a commit of a later term always counts for more, so that a process that was
thought dead and wakes up changes nothing that anyone sees.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field, ValidationError

from orchestrator.core.errors import DataError, RunConflictError
from orchestrator.core.records import Record
from orchestrator.run.bucket import PIECE, Bucket

COMMITS, OBJECTS = "commits", "objects"
MOST_PARTS = 64
"""A file that grew in more pieces is written anew as one."""


class Part(Record):
    """So many bytes of a file, which are the object with this SHA-256."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]


class StoredFile(Record):
    """A file of a state: its parts in their order, and when it was changed, in nanoseconds since 1970."""

    parts: tuple[Part, ...]
    mtime_ns: int

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)


def _inside(name: str) -> str:
    parts = name.split("/")
    if "\0" in name or any(not part or part.startswith(".") for part in parts):
        raise ValueError("this is no path of a run's file")
    return name


class State(Record):
    """What a commit holds: files by their path in the run's folder, which none can leave."""

    files: dict[Annotated[str, AfterValidator(_inside)], StoredFile] = Field(default_factory=dict)

    @property
    def objects(self) -> set[str]:
        """The objects that hold its files."""
        return {part.sha256 for file in self.files.values() for part in file.parts}


class CommitId(NamedTuple):
    """Orders commits: those of later terms last."""

    term: int
    number: int

    @property
    def key(self) -> str:
        """The commit's object."""
        return f"{COMMITS}/{self.term:06d}-{self.number:09d}.json"


class Commits:
    """The states of the run in this bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def ids(self) -> list[CommitId]:
        """All commits that are there, the latest last."""
        stems = (Path(stored.key).stem.split("-") for stored in self.bucket.objects_in(COMMITS))
        return sorted(CommitId(int(stem[0]), int(stem[1])) for stem in stems)

    def latest(self) -> tuple[CommitId | None, State]:
        """The latest state; empty if nothing was committed yet. What was cut off in writing is no commit."""
        for commit in reversed(self.ids()):
            try:
                return commit, State.model_validate_json(self.bucket.get(commit.key))
            except (ValidationError, FileNotFoundError):
                continue
        return None, State()

    def commit(self, commit: CommitId, state: State) -> None:
        """Make a state, whose objects are all there, the one that readers see.

        Raises:
            RunConflictError: If a later term has begun, so that nobody would see it.
        """
        there = self.ids()
        if there and there[-1].term > commit.term:
            what = "another process took this run over, because nothing was heard of this one for a while"
            raise RunConflictError(what, where=self.bucket.url, fix="Look at it with `orchestrator status`")
        self.bucket.put(commit.key, state.model_dump_json().encode())
        for old in [its for its in there if its < commit][:-1]:  # one stays, for whoever reads it now
            self.bucket.delete(old.key)

    def sweep(self, state: State) -> None:
        """Remove the objects of no file, which writers that died left; for whoever holds the run alone."""
        for stored in self.bucket.objects_in(OBJECTS):
            if Path(stored.key).name not in state.objects:
                self.bucket.delete(stored.key)

    def forget(self, objects: set[str]) -> None:
        """Remove objects that no state has any more."""
        for name in objects:
            self.bucket.delete(f"{OBJECTS}/{name}")

    def store(self, path: Path, before: StoredFile | None, *, size: int, mtime_ns: int) -> StoredFile:
        """Write the first `size` bytes of a file as objects; what it holds since `before` alone, if it only grew."""
        kept = before.parts if before is not None and _only_grew(path, before, size) else ()
        start = sum(part.size for part in kept)
        if len(kept) >= MOST_PARTS:
            kept, start = (), 0
        if start < size or not kept:
            new = Part(sha256=_sha256(path, start, size - start), size=size - start)
            self.bucket.put_file(f"{OBJECTS}/{new.sha256}", path, start=start, size=new.size)
            kept = (*kept, new)
        return StoredFile(parts=kept, mtime_ns=mtime_ns)

    def bring(self, file: StoredFile, path: Path) -> None:
        """Write a file's content to `path`, which is not there yet; FileNotFoundError if an object is gone.

        Raises:
            DataError: If an object does not hold what was written as it.
        """
        path.touch()
        for part in file.parts:
            self.bucket.append_to(f"{OBJECTS}/{part.sha256}", path)
        if not has_content(path, file):
            what = "an object of the run is damaged"
            raise DataError(what, where=self.bucket.url, fix="Restore the objects of the run, or remove it")


def has_content(path: Path, file: StoredFile) -> bool:
    """Whether the file at `path` holds just what is stored."""
    return path.is_file() and path.stat().st_size == file.size and _only_grew(path, file, file.size)


def _only_grew(path: Path, before: StoredFile, size: int) -> bool:
    if size < before.size:
        return False
    starts = _starts(before.parts)
    return all(_sha256(path, start, part.size) == part.sha256 for start, part in starts)


def _starts(parts: tuple[Part, ...]) -> Iterator[tuple[int, Part]]:
    start = 0
    for part in parts:
        yield start, part
        start += part.size


def _sha256(path: Path, start: int, size: int) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        while size > 0 and (piece := file.read(min(size, PIECE))):
            sha.update(piece)
            size -= len(piece)
    if size > 0:
        raise FileNotFoundError(f"{path} became shorter")
    return sha.hexdigest()


def dropped(before: Mapping[str, StoredFile], now: State) -> set[str]:
    """Objects of the files of an earlier state that the one of now does not need."""
    return State(files=dict(before)).objects - now.objects
