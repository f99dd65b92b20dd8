"""Each outside tracker, from the trainer's calls to what its own tools read back."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from followed_run import CURVE, follow_run, go_on, report, train_and_interrupt
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from wandb.proto.wandb_internal_pb2 import Record as WandbRecord

from orchestrator.run.paths import RunDir
from orchestrator.tracking import follow
from orchestrator.tracking.project import PROJECT


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(follow, "PATIENCE_S", 120.0)


def runs_of(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name(PROJECT)
    assert experiment is not None
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def assert_has_the_run(client: MlflowClient) -> None:
    runs = runs_of(client)
    assert runs.keys() == {"demo", "demo/trial-1", "demo/trial-2", "demo/base"}
    parent, first, second = runs["demo"], runs["demo/trial-1"], runs["demo/trial-2"]
    assert parent.data.params["lora.r"] == "16"
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "report")] == ["report/report.md"]
    assert {run.data.tags[MLFLOW_PARENT_RUN_ID] for run in (first, second)} == {parent.info.run_id}
    history = client.get_metric_history(first.info.run_id, "eval/loss")
    assert [(point.step, point.value) for point in history] == CURVE
    assert first.data.params == {"r": "8", "learning_rate": "0.001"}
    assert first.data.metrics["scores/case_accuracy"] == 0.75
    assert runs["demo/base"].data.metrics == {"scores/case_accuracy": 0.25}
    assert second.data.tags["ended"] == "diverged"
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_mlflow_has_a_database_beside_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_and_interrupt(tmp_path / "demo", ["mlflow"])
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    states = {name: found.info.status for name, found in runs_of(client).items()}
    assert states == {"demo": "KILLED", "demo/trial-1": "KILLED", "demo/trial-2": "FINISHED"}
    go_on(run.root, ["mlflow"])
    report(run.root, ["mlflow"])
    assert_has_the_run(client)
    assert "failed" not in capsys.readouterr().out


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder)]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            time.sleep(0.5)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_server_that_is_away_delays_nothing_and_misses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = train_and_interrupt(tmp_path / "demo", ["mlflow"])
    told = capsys.readouterr().out
    assert told.count("The tracker mlflow failed with") == 1
    assert "mlflow did not receive everything yet. The next train, search or report of this run sends the rest." in told
    with mlflow_server(tmp_path, port):
        go_on(run.root, ["mlflow"])
        report(run.root, ["mlflow"])
        assert_has_the_run(MlflowClient(f"http://127.0.0.1:{port}"))
    assert "failed" not in capsys.readouterr().out


def wandb_records(path: Path) -> Iterator[Any]:
    """What is in a file of W&B: LevelDB's log format behind a head of seven bytes, one protobuf a record."""
    content, place, parts = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = WandbRecord()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_wandb_without_a_key_is_written_offline_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = follow_run(tmp_path / "demo", ["wandb"])
    told = capsys.readouterr().out
    assert f"W&B has no key in WANDB_API_KEY: its runs are written to {run.tracking / 'wandb'}" in told
    assert "failed" not in told
    files = sorted(run.tracking.glob("wandb/offline-run-*/*.wandb"))
    records = {path: list(wandb_records(path)) for path in files}
    begun = {path: next(record.run for record in found if record.HasField("run")) for path, found in records.items()}
    assert {head.display_name for head in begun.values()} == {
        "demo/trial-1", "demo/trial-2", "demo/base", "demo/report"
    }  # fmt: skip
    assert len({head.run_group for head in begun.values()}) == 1
    ids = {head.display_name: head.run_id for head in begun.values()}
    assert all(head.run_id == ids[head.display_name] for head in begun.values())
    losses = []
    for path, found in records.items():
        if begun[path].display_name == "demo/trial-1":
            for record in found:
                if record.HasField("history"):
                    row = {".".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                    losses.append((int(row["step"]), float(row["eval/loss"])))
    assert losses == CURVE


READ_TRACKIO = """
import json
from trackio.sqlite_storage import SQLiteStorage
project = "tool-lora-orchestrator"
print(json.dumps({run: SQLiteStorage.get_logs(project, run) for run in SQLiteStorage.get_runs(project)}))
"""


def test_trackio_has_a_run_for_each_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    follow_run(tmp_path / "demo", ["trackio"])
    assert "failed" not in capsys.readouterr().out
    read = subprocess.run([sys.executable, "-c", READ_TRACKIO], capture_output=True, text=True, check=True)
    runs = {name.split(" ")[0]: logs for name, logs in json.loads(read.stdout).items()}
    assert runs.keys() == {"demo/trial-1", "demo/trial-2", "demo/base", "demo/report"}
    losses = [(row["step"], row["eval/loss"]) for row in runs["demo/trial-1"] if "eval/loss" in row]
    assert losses == CURVE
    assert runs["demo/trial-1"][-1]["scores/case_accuracy"] == 0.75


def test_a_tracker_that_hangs_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(follow, "PATIENCE_S", 1.0)
        before = time.monotonic()
        run = train_and_interrupt(tmp_path / "demo", ["mlflow"])
        assert time.monotonic() - before < 20
    assert "mlflow did not receive everything yet." in capsys.readouterr().out
    assert not (RunDir(run.root).tracking / "mlflow.sent").exists()
