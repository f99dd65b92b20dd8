"""A run in a bucket and its working folder on this machine, where everything reads and writes files as ever.

The process that works in the run commits the folder's state to the bucket every few seconds and at its end. Whoever
opens the run elsewhere, or after the folder is gone, has the last state brought into a folder of its own.
"""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from pydantic import Field

from orchestrator.config.schema import RunConfig
from orchestrator.config.storage import below, is_bucket
from orchestrator.core.errors import OrchestratorError, RunConflictError, StorageUnreachableError
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.interrupt import is_interrupted
from orchestrator.core.progress import doing, say
from orchestrator.core.records import Record
from orchestrator.run.bucket import Bucket, impatient
from orchestrator.run.commits import CommitId, Commits, State, StoredFile, dropped, has_content
from orchestrator.run.folder import run_dir
from orchestrator.run.lease import Lease, leased
from orchestrator.run.paths import RunDir

PUBLISH_S = 5.0
"""Between two commits of a run at work; what happened since the last is lost if the machine is."""
INTERRUPTED_S = 5.0
"""How long the last commit of an interrupted process is tried."""
STABLE_TRIES = 40
"""How often a state is looked for in which no file is just being replaced."""
PLACE, STAGED = ".bucket.json", ".publishing"
"""In the working folder: which commit it comes from, and the files of the commit being written."""
READ_TRIES = 5
"""How often a state is read anew whose objects a writer removed meanwhile."""


class _Stat(Record):
    size: int
    mtime_ns: int
    inode: int


class _Place(Record):
    """Where a working folder stands: it comes from this commit, and these files of it were not changed since."""

    commit: str | None = None
    lease: str | None = None
    known: dict[str, _Stat] = Field(default_factory=dict)


class _Unsettled(Exception):
    pass


def run_url(config: RunConfig) -> str:
    """The place of this config's run in its bucket."""
    place = config.resources.storage_path
    query = place.partition("?")[2]
    return below(place, config.name) + (f"?{query}" if query else "")


@contextmanager
def fetched(config: RunConfig) -> Iterator[None]:
    """Have the last committed state of a run in a bucket here, for whoever only reads it; for a folder, nothing.

    Raises:
        StorageRefusedError, StorageUnreachableError: If the bucket cannot be read.
    """
    if is_bucket(config.resources.storage_path):
        fetch(config)
    yield


def fetch(config: RunConfig) -> None:
    """Bring a run's last state into its working folder, unless a process of this machine works there."""
    run, bucket = run_dir(config), Bucket(run_url(config))
    commit, _ = Commits(bucket).latest()
    if commit is None and not run.root.exists():
        bucket.require_there()
        return
    run.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.root / ".lock", timeout=0):
            _bring(run, Commits(bucket))
    except Timeout:  # the folder is ahead of the bucket
        return


@contextmanager
def published(config: RunConfig) -> Iterator[None]:
    """Hold a run in a bucket and publish what happens in its working folder, which is held too; for a folder, nothing.

    Raises:
        RunConflictError: If another process works in the run.
        StorageRefusedError, StorageUnreachableError: If the bucket cannot be used, or did not answer in the end.
    """
    if not is_bucket(config.resources.storage_path):
        yield
        return
    run, bucket = run_dir(config), Bucket(run_url(config))
    dead = _read_place(run).lease
    with leased(bucket, dead=(dead,) if dead else ()) as lease:
        with doing("reading what the bucket has"):
            _bring(run, Commits(bucket))
        publisher = _Publisher(run, Commits(bucket), lease)
        publisher.begin()
        try:
            yield
        except BaseException:
            publisher.end_early()
            raise
        publisher.end()
    say(f"The run is in {below(config.resources.storage_path, config.name)}.")


def is_working_folder(run: RunDir) -> bool:
    """Whether this is the working folder of a run in a bucket."""
    return (run.root / PLACE).is_file()


def _read_place(run: RunDir) -> _Place:
    path = run.root / PLACE
    return parse_line(path.read_text(encoding="utf-8"), _Place, where=str(path)) if path.is_file() else _Place()


def _write_place(run: RunDir, place: _Place) -> None:
    write_text_atomic(run.root / PLACE, place.model_dump_json() + "\n")


def _bring(run: RunDir, commits: Commits) -> None:
    """Make the working folder the last state, unless it comes from it and is ahead."""
    for attempt in range(READ_TRIES):
        commit, state = commits.latest()
        place = _read_place(run)
        if place.commit == (commit.key if commit else None):
            return
        try:
            _replace(run, commits, state, place)
        except FileNotFoundError:
            if attempt == READ_TRIES - 1:
                raise StorageUnreachableError(
                    "the run changes faster than it can be read here", where=commits.bucket.url, fix="Try again"
                ) from None
            continue
        known = {name: _stat(run.root / name) for name in state.files}
        _write_place(run, _Place(commit=commit.key if commit else None, lease=place.lease, known=known))
        return


def _replace(run: RunDir, commits: Commits, state: State, place: _Place) -> None:
    _write_place(run, _Place(commit="unknown", lease=place.lease))  # a folder that is half one and half the other
    for name in _listing(run.root).keys() - state.files.keys():
        (run.root / name).unlink()
    for name, file in state.files.items():
        path = run.root / name
        if not has_content(path, file):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            try:
                commits.bring(file, partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))


def _stat(path: Path) -> _Stat:
    its = path.stat()
    return _Stat(size=its.st_size, mtime_ns=its.st_mtime_ns, inode=its.st_ino)


def _listing(root: Path) -> dict[str, _Stat]:
    """The files of a run. What begins with a dot is half written or this machine's; `check` is no part of it."""
    found = {}
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".") and (folder != str(root) or name != "check")]
        for name in files:
            path = Path(folder) / name
            if name.startswith("."):
                continue
            try:
                found[path.relative_to(root).as_posix()] = _stat(path)
            except FileNotFoundError:
                continue
    return found


class _Snapshot(NamedTuple):
    """A state of the folder: all files, and where those that changed were set aside."""

    files: dict[str, _Stat]
    changed: dict[str, Path]


class _Publisher:
    """Commits the state of a working folder, which this process holds, to the bucket."""

    def __init__(self, run: RunDir, commits: Commits, lease: Lease) -> None:
        self._run, self._commits, self._lease = run, commits, lease
        self._known, self._state = _read_place(run).known, State()
        self._last = CommitId(0, 0)
        self._dropped: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def begin(self) -> None:
        """Begin a term, so that earlier holders commit no more, and publish from now on."""
        self._state = self._commits.latest()[1]
        there = self._commits.ids()
        self._last = CommitId(there[-1].term + 1 if there else 1, 0)
        self._commits.commit(self._last, self._state)
        self._note_place()
        self._commits.sweep(self._state)
        self._thread.start()

    def end(self) -> None:
        """Publish the last state."""
        self._stop()
        with doing("writing to the bucket"):
            self._publish()

    def end_early(self) -> None:
        """Publish what there is of work that failed or was interrupted, whose own error is what counts."""
        patience_s = INTERRUPTED_S if is_interrupted() else self._commits.bucket.patience_s
        with impatient(self._commits.bucket, patience_s):
            self._stop()
            try:
                self._publish()
            except OrchestratorError as error:
                say(f"What was done last is in {self._run.root} alone: {error}")

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        told = False
        while not self._ended.wait(PUBLISH_S):
            try:
                self._publish()
            except RunConflictError as error:
                say(str(error))
                return  # and it ends the job in the end
            except (OrchestratorError, OSError) as error:
                if not told:
                    say(f"The work goes on here and is published later: {error}")
                told = True
                continue
            if told:
                say("The bucket answers again; everything is published.")
            told = False

    def _publish(self) -> None:
        staged = self._run.root / STAGED
        try:
            for _ in range(STABLE_TRIES):
                shutil.rmtree(staged, ignore_errors=True)
                staged.mkdir()
                try:
                    self._commit(self._snapshot(staged))
                except (_Unsettled, FileNotFoundError):
                    time.sleep(0.05)
                    continue
                return
            if self._ended.is_set():
                raise RunConflictError("files of the run change though its work is over", where=str(self._run.root))
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _snapshot(self, staged: Path) -> _Snapshot:
        """All files as they were at one moment, but for those that grow, of which a beginning counts."""
        files = _listing(self._run.root)
        changed = {}
        for number, name in enumerate(name for name, stat in files.items() if self._known.get(name) != stat):
            os.link(self._run.root / name, staged / str(number))
            changed[name] = staged / str(number)
        later = _listing(self._run.root)
        if any(not _may_differ(name, files.get(name), later.get(name)) for name in files.keys() | later.keys()):
            raise _Unsettled
        return _Snapshot(files, changed)

    def _commit(self, snapshot: _Snapshot) -> None:
        if not snapshot.changed and snapshot.files.keys() == self._state.files.keys():
            return
        stored: dict[str, StoredFile] = {}
        for name, stat in snapshot.files.items():
            before = self._state.files.get(name)
            if name not in snapshot.changed and before is not None:
                stored[name] = before
                continue
            path = snapshot.changed.get(name, self._run.root / name)
            stored[name] = self._commits.store(path, before, size=stat.size, mtime_ns=stat.mtime_ns)
            if not _may_differ(name, stat, _stat(path)):
                raise _Unsettled
        state = State(files=stored)
        self._last = CommitId(self._last.term, self._last.number + 1)
        self._commits.commit(self._last, state)
        before_files, self._state, self._known = self._state.files, state, snapshot.files
        self._note_place()
        self._commits.forget(self._dropped - state.objects)
        self._dropped = dropped(before_files, state)
        self._copy_report(set(snapshot.changed))

    def _note_place(self) -> None:
        _write_place(self._run, _Place(commit=self._last.key, lease=self._lease.name, known=self._known))

    def _copy_report(self, changed: set[str]) -> None:
        """Put the report under its own name beside the commits, where a browser finds it."""
        for name in changed:
            if name.startswith("report/"):
                self._commits.bucket.put_file(name, self._run.root / name)


def _may_differ(name: str, before: _Stat | None, now: _Stat | None) -> bool:
    """Whether two states of a file, a moment apart, are no sign that others belong together with it."""
    if before == now or name == "progress.json":
        return True
    grows = name.endswith((".jsonl", ".log")) or "tfevents" in name
    return grows and before is not None and now is not None and before.inode == now.inode and before.size < now.size
