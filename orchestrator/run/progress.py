"""`progress.json`: how far a run is, for whoever reaches its folder. Written by the process that works in the run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.records import EvalPoint, Record, StopReason
from orchestrator.core.text import without_secrets
from orchestrator.run.paths import RunDir, StageName

HEARTBEAT_S = 10.0
"""While a stage works, its progress is written at least so often, news or not."""
STALE_S = 60.0
"""A stage that works and has not been heard of for so long was cut off."""
LEAST_INTERVAL_S = 1.0
"""Between two writes of what goes on; beginnings and ends are written at once."""


class TrialState(Record):
    """A trial, as it was last heard of; what is unknown is null.

    Attributes:
        status: `running`, or why it ended.
        step: Optimizer steps done.
        curve: Its evaluations so far.
        loss: Train loss of the latest step; the further values are those of that step too, as in `StepRow`.
    """

    trial: str
    status: Literal["running"] | StopReason
    hyperparameters: dict[str, float | int]
    step: int = 0
    curve: tuple[EvalPoint, ...] = ()
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    token_accuracy: float | None = None
    tokens_per_s: float | None = None
    memory_bytes: float | None = None


class RunProgress(Record):
    """The state of the pipeline. Times are UTC, ISO 8601.

    Attributes:
        stage: The one at work, or the last that was.
        status: As in the ledger of `run.json`.
        started_at: When the stage began.
        updated_at: When this was written.
        step: Optimizer steps done in all trials of a training or search; null in other stages, as are the next four.
        total: Steps of all trials if none stops early.
        fraction: How much of the training is done: that of its steps, with trials that ended as done.
        loss: Train loss of the latest step of any trial.
        epoch: Passes over the training data of the trial that is furthest.
        num_trials: Trials of the training or search.
        trials: Those that have begun.
        error: The error that ended the stage.
    """

    stage: StageName
    status: Literal["running", "done", "failed", "interrupted"]
    started_at: str
    updated_at: str
    step: int | None = None
    total: int | None = None
    fraction: float | None = None
    loss: float | None = None
    epoch: float | None = None
    num_trials: int | None = None
    trials: tuple[TrialState, ...] = ()
    error: str | None = None


class _Latest:
    lock = threading.Lock()
    written_s = 0.0


def read_run_progress(run: RunDir) -> RunProgress | None:
    """What the run's process last wrote, None if it never did.

    Raises:
        DataError: If the file is no progress.
    """
    if not run.progress.is_file():
        return None
    return parse_line(run.progress.read_text(encoding="utf-8"), RunProgress, where=str(run.progress))


def note_progress(run: RunDir, *, at_once: bool = True, **changes: Any) -> None:
    """Write the run's progress with these changes, unless it was written a moment ago and need not be at once.

    Nothing is written of a run of which no stage has begun.
    """
    with _Latest.lock:
        if not run.progress.is_file():
            return
        if not at_once and time.monotonic() - _Latest.written_s < LEAST_INTERVAL_S:
            return
        _Latest.written_s = time.monotonic()
        before = parse_line(run.progress.read_text(encoding="utf-8"), RunProgress, where=str(run.progress))
        _write(run, before.model_copy(update={**changes, "updated_at": _now()}))


@contextmanager
def stage_progress(run: RunDir, stage: StageName) -> Iterator[None]:
    """Note that a stage begins, that it is alive while it works, and how it ends."""
    now = _now()
    with _Latest.lock:
        _write(run, RunProgress(stage=stage, status="running", started_at=now, updated_at=now))
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(run, ended), daemon=True)
    beats.start()
    outcome: dict[str, Any] = {"status": "failed"}
    try:
        yield
        outcome = {"status": "done"}
    except KeyboardInterrupt:
        outcome = {"status": "interrupted"}
        raise
    except Exception as error:
        outcome["error"] = without_secrets(str(error)) or type(error).__name__
        raise
    finally:
        ended.set()
        beats.join()
        note_progress(run, **outcome)


def _beat(run: RunDir, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_S):
        note_progress(run, at_once=False)


def _write(run: RunDir, state: RunProgress) -> None:
    write_text_atomic(run.progress, state.model_dump_json(indent=2) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
