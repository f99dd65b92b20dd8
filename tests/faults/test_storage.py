"""Storage that fails under a job: full, torn, or used by two at once. The jobs are real processes."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.fault

ROOM = 6_000
"""Bytes that a file may have where storage is short: enough for the configuration, too few for the data."""


def settings(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    content = {
        "name": "small",
        "model": {"base": "tiny"},
        "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 60}], "max_length": 512},
        "resources": {"storage_path": str(tmp_path / "runs")},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def prepare(config: Path, *, room: int | None = None) -> "subprocess.CompletedProcess[str]":
    """`python -m jobs.prepare`, whose files may have so many bytes; the system tells it as it tells of a full disk."""

    def limit() -> None:
        if room is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    command = [sys.executable, "-m", "jobs.prepare", "--config", str(config)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=limit, env=environment, timeout=300
    )


def test_short_storage_ends_a_job_in_one_line_and_the_same_command_goes_on_when_there_is_room(tmp_path: Path) -> None:
    config = settings(tmp_path)
    short = prepare(config, room=ROOM)
    assert short.returncode == 1
    last = short.stderr.strip().splitlines()[-1]
    assert "files may not become as large as this one. Make room or mend it" in last
    assert "Traceback" not in short.stderr
    run = tmp_path / "runs" / "small"
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["stages"]["prepare"]["status"] == "failed"
    assert not [path for path in run.rglob(".*") if path.name not in (".lock",)], "half-written files"

    whole = prepare(config)
    assert whole.returncode == 0, whole.stderr
    assert "prepare failed after it began at" in (run / "happened.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("cut", [0, 40])
def test_a_ledger_that_is_torn_is_named_in_one_line(tmp_path: Path, cut: int) -> None:
    config = settings(tmp_path)
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"stages": {"prepare": {"status": "done", "input_digest": "x"}}}'[:cut])
    (run / "config.json").write_text("{}")
    torn = prepare(config)
    assert torn.returncode == 3
    assert torn.stderr.count("\n") == 1
    assert f"{run}/run.json" in torn.stderr
