"""Where a trial waits at a rung until the search has said whether it goes on: one file in the trial's folder."""

import json
import time
from pathlib import Path

from orchestrator.core.errors import DataError
from orchestrator.core.files import write_text_atomic

GATE = "gate.json"
LOOK_S = 0.1
"""How often a trial that waits looks into the file; it may lie on storage that is shared by a network."""


def answer(folder: Path, step: int, *, goes_on: bool) -> None:
    """Say whether the trial with this folder goes on past `step`; said once, it stands for every later process."""
    answers = _answers(folder)
    if str(step) not in answers:
        write_text_atomic(folder / GATE, json.dumps({**answers, str(step): goes_on}) + "\n")


def answer_at(folder: Path, step: int) -> bool | None:
    """What was said, None while nothing was."""
    return _answers(folder).get(str(step))


def wait_for_answer(folder: Path, step: int, *, patience_s: float | None = None) -> bool | None:
    """Wait until it is said whether the trial goes on past `step`; None if that takes longer than `patience_s`."""
    gives_up = None if patience_s is None else time.monotonic() + patience_s
    while (said := answer_at(folder, step)) is None:
        if gives_up is not None and time.monotonic() >= gives_up:
            return None
        time.sleep(LOOK_S)
    return said


def _answers(folder: Path) -> dict[str, bool]:
    try:
        answers: dict[str, bool] = json.loads((folder / GATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"what the search answered cannot be read ({error})", where=str(folder / GATE)) from None
    return answers
