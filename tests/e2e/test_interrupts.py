"""Signals to the process group of every command, as a terminal or a service manager sends them, and what is left."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.fault]

SIGINT, SIGTERM = signal.SIGINT, signal.SIGTERM
ENDS_WITHIN_S = 90.0
"""A loaded machine; the process itself gives up after 20 s."""
UNFIT = re.compile(r"Traceback|KeyboardInterrupt|Fatal|SIGABRT|\*\*\*|raylet|\x1b|Error")
"""What an interrupted command must not show."""


@dataclass(frozen=True)
class Ended:
    """A command that was interrupted."""

    code: int
    shown: str
    """What it wrote, stdout and stderr together."""


def interrupted(command: Sequence[str], when: str | float, signals: Sequence[signal.Signals]) -> Ended:
    """Run a command and send its process group the signals once its output matches `when`, or after so many seconds."""
    arguments = [sys.executable, "-m", "orchestrator", *command]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    ) as process:
        due = threading.Event()
        threading.Thread(target=_send, args=(process, due, when, signals), daemon=True).start()
        lines = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if isinstance(when, str) and re.search(when, line):
                due.set()
        code = process.wait(timeout=ENDS_WITHIN_S)
    assert not _left_of(process.pid), "processes outlive the command"
    return Ended(code, "".join(lines))


def _send(
    process: subprocess.Popen[str], due: threading.Event, when: str | float, signals: Sequence[signal.Signals]
) -> None:
    if isinstance(when, str):
        due.wait()
    else:
        while not _is_started(process.pid):
            time.sleep(0.01)
        time.sleep(when)
    for number in signals:
        if process.poll() is None:
            os.killpg(process.pid, number)
        time.sleep(0.3)


def _is_started(process_id: int) -> bool:
    """Whether the command handles SIGTERM yet, which it does before it imports anything else."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    handled = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return handled is not None and bool(int(handled[1], 16) >> (SIGTERM - 1) & 1)


def _left_of(session: int) -> list[str]:
    """Living processes of the session after a while in which they may end."""
    deadline = time.monotonic() + 20
    while True:
        alive = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(" ".join(process.cmdline()))
            except (psutil.Error, ProcessLookupError):
                continue
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.5)


def expect_calm(ended: Ended) -> None:
    """Exit code 130 and one sentence on how to go on, as the last line."""
    assert ended.code == 130, ended.shown
    assert not UNFIT.search(ended.shown), ended.shown
    assert re.search(r"[Ii]nterrupted.*(resumes|nothing|before)", ended.shown.strip().splitlines()[-1]), ended.shown


def stages_of(config: Path) -> dict[str, str]:
    ledger = config.parent / "runs" / "small" / "run.json"
    return {name: stage["status"] for name, stage in json.loads(ledger.read_text(encoding="utf-8"))["stages"].items()}


@pytest.mark.parametrize("signals", [(SIGINT,), (SIGTERM,), (SIGINT, SIGINT)])
@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.9])
def test_before_anything_began(config: Path, signals: tuple[signal.Signals, ...], after_s: float) -> None:
    expect_calm(interrupted(["prepare", str(config)], after_s, signals))


@pytest.mark.parametrize(
    ("stage", "when", "signals"),
    [
        ("check", "Reading rows|rows", (SIGINT,)),
        ("prepare", "prepare", (SIGTERM,)),
        ("train", r"step [1-9]", (SIGINT, SIGINT)),
        pytest.param("train", 4.0, (SIGTERM,), marks=pytest.mark.slow),
        pytest.param("search", r"step [1-9]", (SIGINT,), marks=pytest.mark.slow),
        ("search", 4.0, (SIGTERM, SIGTERM)),
        ("run", r"step [1-9]", (SIGTERM,)),
    ],
)
def test_a_stage_ends_calmly_and_is_not_done(
    config: Path, stage: str, when: str | float, signals: tuple[signal.Signals, ...]
) -> None:
    expect_calm(interrupted([stage, str(config)], when, signals))
    if stage == "check":
        return
    assert stages_of(config)["search" if stage == "run" else stage] in ("interrupted", "running")
    assert "evaluate" not in stages_of(config)
    assert not (config.parent / "runs" / "small" / "trials.jsonl").exists()


def test_the_same_command_goes_on_where_it_was(config: Path) -> None:
    ended = interrupted(["search", str(config)], 10_000.0, ())
    assert ended.code == 0, ended.shown
    assert "Resuming" in ended.shown
    lines = (config.parent / "runs" / "small" / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    best, other = map(json.loads, lines)
    assert (best["steps"], best["stop_reason"]) == (6, "finished")
    # The worse trial is stopped at its rung if the better one, of another engine, was there before it.
    assert (other["steps"], other["stop_reason"]) == (6, "finished") or other["stop_reason"] == "lagging"


@pytest.mark.parametrize(
    ("stage", "when", "signals"),
    [
        pytest.param("evaluate", "for the base", (SIGINT,), marks=pytest.mark.slow),
        ("evaluate", "replies: 0", (SIGTERM,)),
        ("report", "report", (SIGINT, SIGINT)),
    ],
)
def test_scoring_and_the_report_end_calmly_too(
    config: Path, stage: str, when: str | float, signals: tuple[signal.Signals, ...]
) -> None:
    expect_calm(interrupted([stage, str(config)], when, signals))
    assert stages_of(config)[stage] in ("interrupted", "running")
    assert not (config.parent / "runs" / "small" / "report" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_at_any_moment(config: Path, seed: int) -> None:
    """Random signals at random moments of a whole run, which in the end is as if nothing had happened."""
    draw = random.Random(seed)
    signals = draw.choices((SIGINT, SIGTERM), k=draw.choice((1, 2, 3)))
    ended = interrupted(["run", str(config)], draw.uniform(0.05, 90.0), signals)
    if ended.code != 0:
        expect_calm(ended)
    assert all(status != "failed" for status in stages_of(config).values())
