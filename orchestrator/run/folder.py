"""The run directory: the only place that knows its layout, writes its files whole, and keeps its stage ledger.

    <storage>/<name>/config.json  run.json  data/  trials.jsonl  adapters/<id>/  evals/<id>/  report/  ray/

Files appear whole or not at all: each is written beside its place and renamed into it. Replies alone are appended.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import RunConflictError
from orchestrator.core.files import write_text_atomic
from orchestrator.run.ledger import read_ledger
from orchestrator.run.paths import RunDir

FREE_FIELDS = ("resources", "gates", "eval")
"""Config sections that decide where a run happens or how it is judged, not what it trains; they may change."""


def run_dir(config: RunConfig) -> RunDir:
    """Where this config's run lives. Touches nothing."""
    return RunDir(Path(config.resources.storage_path).expanduser().resolve() / config.name)


def check_dir(config: RunConfig) -> RunDir:
    """Where `check` works: a folder like a run's, in the run's own. Touches nothing."""
    return RunDir(run_dir(config).root / "check")


def open_run(config: RunConfig) -> RunDir:
    """Create the run directory, or take up the one that is there.

    Raises:
        RunConflictError: If the directory holds a run of another configuration (the fields that differ are named),
            or if the storage path cannot be written.
    """
    run = run_dir(config)
    if run.config.is_file() and _has_results(run):
        _refuse_other_config(run, config)
    try:
        write_text_atomic(run.config, config.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise _unwritable(run, error) from None
    return run


def conflict_with_run(config: RunConfig) -> str | None:
    """Why `open_run` would refuse this config, None where it would not. Touches nothing."""
    run = run_dir(config)
    try:
        if run.config.is_file() and _has_results(run):
            _refuse_other_config(run, config)
    except RunConflictError as error:
        return str(error)
    return None


def _unwritable(run: RunDir, error: OSError) -> RunConflictError:
    return RunConflictError(
        f"the run folder cannot be written ({error.strerror})",
        where=str(run.root),
        fix="Set resources.storage_path to a folder you may write to",
    )


def _has_results(run: RunDir) -> bool:
    """Whether a stage is done: until then another configuration can spoil nothing."""
    return any(entry.status == "done" for entry in read_ledger(run).stages.values())


def _refuse_other_config(run: RunDir, config: RunConfig) -> None:
    try:
        stored = json.loads(RunConfig.model_validate_json(run.config.read_text(encoding="utf-8")).model_dump_json())
    except ValueError:
        raise RunConflictError(
            "the stored configuration cannot be read by this version",
            where=str(run.config),
            fix="Give this run another name (--set name=...) or remove the folder",
        ) from None
    current = json.loads(config.model_dump_json())
    for content in (stored, current):
        for section in FREE_FIELDS:
            content.pop(section, None)
        for source in content["data"]["sources"]:
            for key in ("path", "answers", "tools"):  # the folder may differ by machine; the content is checked
                source[key] = source[key] and Path(source[key]).name
    differences = sorted(_differences(stored, current, ()))
    if differences:
        raise RunConflictError(
            f"the run {config.name!r} was made with another configuration; {'; '.join(differences)}",
            where=str(run.root),
            fix="Give this run another name (--set name=...) or remove the folder",
        )


def _differences(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _differences(old.get(key), new.get(key), (*path, key))
    elif old != new:
        yield f"{'.'.join(path)} was {json.dumps(old)}, is {json.dumps(new)}"


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
    lock = FileLock(run.root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunConflictError(
            "another process works in this run", where=str(run.root), fix="Wait for it, or give this run another name"
        ) from None
    try:
        yield
    finally:
        lock.release()
