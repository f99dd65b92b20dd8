"""Runs in a bucket, on moto's server: what readers see whenever a writer dies, and what faults of the storage do."""

import shutil
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from s3_server import S3Server, Wire, running_s3

from orchestrator.config.schema import ResourcesConfig, RunConfig
from orchestrator.core.errors import DataError, RunConflictError, StorageRefusedError, StorageUnreachableError
from orchestrator.run import bucket as bucket_module
from orchestrator.run import published as published_module
from orchestrator.run.bucket import Bucket
from orchestrator.run.commits import CommitId, Commits, State
from orchestrator.run.folder import locked, run_dir
from orchestrator.run.lease import Lease
from orchestrator.run.paths import RunDir
from orchestrator.run.published import fetched, published

pytest.importorskip("moto.server")

NAMES = ("run.json", "data/train.jsonl", "adapters/a/weights")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Machines":
    return Machines(tmp_path, monkeypatch)


class Machines:
    """Machines that share nothing: each has a cache folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch

    def use(self, name: str) -> None:
        self._patch.setenv("XDG_CACHE_HOME", str(self._folder / name))

    def lose(self, name: str) -> None:
        shutil.rmtree(self._folder / name)


def config_at(url: str) -> RunConfig:
    return RunConfig(name="small", resources=ResourcesConfig(storage_path=url))


def files_of(run: RunDir) -> dict[str, bytes]:
    paths = (path for path in run.root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(run.root).as_posix(): path.read_bytes() for path in paths}


def write(run: RunDir, name: str, content: bytes) -> None:
    path = run.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class Killed(BaseException):
    """Ends a writer between two requests, as a kill does: nothing after it happens."""


class FailingBucket(Bucket):
    """A bucket whose writer is killed before its n-th write."""

    writes_left: int | None = None

    def _count(self) -> None:
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise Killed
            self.writes_left -= 1

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def put_file(self, key: str, path: Path, *, start: int = 0, size: int | None = None) -> None:
        self._count()
        super().put_file(key, path, start=start, size=size)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


changes = st.dictionaries(st.sampled_from(NAMES), st.none() | st.binary(max_size=8), min_size=1)
"""What a step does to files: new content, None for removed; jsonl files grow instead."""


def changed(files: dict[str, bytes], step: dict[str, bytes | None]) -> dict[str, bytes]:
    after = dict(files)
    for name, content in step.items():
        if content is None:
            after.pop(name, None)
        else:
            after[name] = after.get(name, b"") + content if name.endswith(".jsonl") else content
    return after


def lay(run: RunDir, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    for name in before.keys() - after.keys():
        (run.root / name).unlink()
    for name, content in after.items():
        if before.get(name) != content:
            write(run, name, content)


def begun(run: RunDir, bucket: Bucket) -> "published_module._Publisher":
    """A publisher of the folder, which comes from what is committed; its thread does not run."""
    commits = Commits(bucket)
    published_module._bring(run, commits)
    publisher = published_module._Publisher(run, commits, Lease(bucket))
    publisher._thread = threading.Thread(target=lambda: None)
    publisher.begin()
    return publisher


def read_elsewhere(server: S3Server, folder: str, place: Path) -> dict[str, bytes]:
    shutil.rmtree(place, ignore_errors=True)
    reader = RunDir(place)
    reader.root.mkdir()
    published_module._bring(reader, Commits(Bucket(server.url(folder))))
    return files_of(reader)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(changes, st.none() | st.integers(0, 5)), min_size=1, max_size=4))
def test_whenever_writers_are_killed_a_reader_sees_a_committed_state(
    server: S3Server, tmp_path: Path, steps: list[tuple[dict[str, bytes | None], int | None]]
) -> None:
    folder = f"laws-{time.monotonic_ns()}"
    working = RunDir(tmp_path / "working")
    shutil.rmtree(working.root, ignore_errors=True)
    working.root.mkdir()
    bucket = FailingBucket(server.url(folder))
    publisher = begun(working, bucket)
    seen: dict[str, bytes] = {}
    for step, dies_after in steps:
        wanted = changed(seen, step)
        lay(working, seen, wanted)
        bucket.writes_left = dies_after
        try:
            publisher._publish()
        except Killed:
            allowed = [seen, wanted]
        else:
            allowed = [wanted]
        bucket.writes_left = None
        seen = read_elsewhere(server, folder, tmp_path / "reader")
        assert seen in allowed
        if len(allowed) > 1:  # the machine is lost with the process; another goes on from the bucket
            shutil.rmtree(working.root)
            working.root.mkdir()
            publisher = begun(working, bucket)
            assert files_of(working) == seen
            assert {Path(its.key).name for its in bucket.objects_in("objects")} == publisher._state.objects


def test_a_run_goes_on_from_the_bucket_alone(server: S3Server, machine: Machines) -> None:
    config = config_at(server.url("alone"))
    machine.use("first")
    run = run_dir(config)
    with locked(run), published(config):
        write(run, "evals/base/generations.jsonl", b"one\n")
        write(run, "report/report.html", b"<p>")
        write(run, ".half", b"-")
        write(run, "check/card.json", b"-")
    machine.lose("first")
    machine.use("second")
    again = run_dir(config)
    with locked(again), published(config):
        assert files_of(again) == {"evals/base/generations.jsonl": b"one\n", "report/report.html": b"<p>"}
        with (again.root / "evals/base/generations.jsonl").open("ab") as file:
            file.write(b"two\n")
    stored = Commits(Bucket(published_module.run_url(config))).latest()[1]
    assert [part.size for part in stored.files["evals/base/generations.jsonl"].parts] == [4, 4]
    assert Bucket(published_module.run_url(config)).get("report/report.html") == b"<p>"

    machine.use("third")
    with fetched(config):
        assert files_of(run_dir(config))["evals/base/generations.jsonl"] == b"one\ntwo\n"


def test_a_folder_that_is_ahead_stays_and_one_that_is_behind_is_replaced(server: S3Server, machine: Machines) -> None:
    config = config_at(server.url("ahead"))
    machine.use("first")
    run = run_dir(config)
    with locked(run), published(config):
        write(run, "a", b"1")
    write(run, "b", b"not published yet")  # as a process that was killed leaves it
    with locked(run), published(config):
        assert files_of(run) == {"a": b"1", "b": b"not published yet"}
    machine.use("second")
    with locked(run_dir(config)), published(config):
        write(run_dir(config), "a", b"2")
    machine.use("first")
    write(run, "b", b"of a state that was left behind")
    with fetched(config):
        assert files_of(run) == {"a": b"2", "b": b"not published yet"}


def test_only_one_machine_works_in_a_run(server: S3Server, machine: Machines) -> None:
    config = config_at(server.url("held"))
    machine.use("first")
    bucket = Bucket(published_module.run_url(config))
    holder = Lease(bucket)
    holder.take()
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.5):
            holder._write()

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        machine.use("second")
        with pytest.raises(RunConflictError, match="another process works in this run"), published(config):
            pytest.fail("both hold it")
        assert [its.key for its in bucket.objects_in("leases")] == [f"leases/{holder.name}"]
    finally:
        stop.set()
        renewing.join()
        holder.give_back()


def test_a_lease_of_the_dead_is_taken_after_a_while_and_their_late_commit_is_seen_by_nobody(server: S3Server) -> None:
    bucket = Bucket(server.url("dead"))
    bucket.put("leases/of-the-dead", b"host")
    commits = Commits(bucket)
    commits.commit(CommitId(1, 0), State())
    lease = Lease(bucket, stale_s=3.0)
    lease.take()
    assert [its.key for its in bucket.objects_in("leases")] == [f"leases/{lease.name}"]
    commits.commit(CommitId(2, 0), State())
    with pytest.raises(RunConflictError, match="took this run over"):
        commits.commit(CommitId(1, 1), State())
    assert commits.latest()[0] == CommitId(2, 0)
    lease.give_back()


def test_a_bucket_that_is_not_there_is_one_line(server: S3Server, machine: Machines) -> None:
    machine.use("first")
    config = config_at(server.url("x", bucket="nowhere"))
    with pytest.raises(StorageRefusedError, match="there is no such bucket"), published(config):
        pytest.fail("there is no bucket")
    with pytest.raises(StorageRefusedError, match="there is no such bucket"), fetched(config):
        pytest.fail("there is no bucket")


def test_no_permission_is_one_line_that_names_the_credentials(machine: Machines) -> None:
    machine.use("first")
    with running_s3(INITIAL_NO_AUTH_ACTION_COUNT="1") as strict:  # making the bucket is the one
        config = config_at(strict.url("x"))
        with pytest.raises(StorageRefusedError, match=r"refuses access.*AWS_ACCESS_KEY_ID"), published(config):
            pytest.fail("nobody may write here")


@pytest.mark.parametrize("fault", ["cut", "busy"])
def test_a_storage_that_comes_back_is_waited_for(server: S3Server, fault: str) -> None:
    wire = Wire(server)
    bucket = Bucket(server.url("wire", port=wire.port))
    bucket.put("before", b"1")
    wire.state = fault  # type: ignore[assignment]
    threading.Timer(3.0, setattr, (wire, "state", "up")).start()
    bucket.put("after", b"2")
    assert bucket.get("after") == b"2"
    assert wire.refused > 0
    wire.close()


def test_a_storage_that_does_not_come_back_ends_within_the_bound_and_leaves_the_state_before(
    server: S3Server, machine: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(server)
    config = config_at(server.url("gone", port=wire.port))
    machine.use("first")
    with locked(run_dir(config)), published(config):
        write(run_dir(config), "a", b"1")
    monkeypatch.setattr(bucket_module, "RETRY_S", 1.0)

    def work_while_the_wire_is_cut() -> None:
        with locked(run_dir(config)), published(config):
            wire.state = "cut"
            write(run_dir(config), "a", b"2")

    with pytest.raises(StorageUnreachableError, match="did not answer for"):
        work_while_the_wire_is_cut()
    seen = Commits(Bucket(server.url("gone/small"))).latest()[1]
    assert [part.size for part in seen.files["a"].parts] == [1]
    wire.state = "up"
    with locked(run_dir(config)), published(config):  # the same command on the same machine publishes it
        assert files_of(run_dir(config)) == {"a": b"2"}
    wire.close()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", ".lock", "a//b", ""])
def test_a_hostile_commit_writes_nothing_outside_the_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="no path of a run's file"):
        State.model_validate({"files": {name: {"parts": [], "mtime_ns": 0}}})


def test_a_damaged_object_is_named_and_no_file_is_made_of_it(server: S3Server, machine: Machines) -> None:
    config = config_at(server.url("damaged"))
    machine.use("first")
    with locked(run_dir(config)), published(config):
        write(run_dir(config), "adapters/a/weights", b"right")
    bucket = Bucket(published_module.run_url(config))
    bucket.put(bucket.objects_in("objects")[0].key, b"wrong")
    machine.use("second")
    with pytest.raises(DataError, match="an object of the run is damaged"), fetched(config):
        pytest.fail("it was read")
    assert files_of(run_dir(config)) == {}
