import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray_heads import RayHead, running_head

from orchestrator.toy.synthetic import generate_samples

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]

SUBMIT = (
    "import sys; from pathlib import Path; from orchestrator.config.load import load_config;"
    "from orchestrator import submit; from orchestrator.core.errors import OrchestratorError\n"
    "from orchestrator.core.interrupt import interrupt_once\n"
    "interrupt_once()\n"  # as the command line does
    "submit.LOST_AFTER_S = 8.0\n"
    "try:\n"
    "    sys.exit(submit.submit_job(load_config(Path(sys.argv[1])), sys.argv[2], address=sys.argv[3]))\n"
    "except OrchestratorError as error:\n"
    "    print(error, file=sys.stderr); sys.exit(error.exit_code)\n"
)


@pytest.fixture(scope="module")
def ray_head() -> Iterator[RayHead]:
    """A head that asks for a token, for all tests of this module."""
    with running_head(asks_for_a_token=True) as head:
        yield head


@pytest.fixture
def doomed_head() -> Iterator[RayHead]:
    """A head for one test, which may stop it."""
    with running_head(asks_for_a_token=True) as head:
        yield head


def write_config(folder: Path, name: str, source: str = "synthetic", limit: int = 60, **sections: object) -> Path:
    """A config on the tiny base, small enough to prepare in seconds; its runs go to `folder`/runs."""
    config: dict[str, object] = {
        "name": name,
        "model": {"base": "tiny"},
        "data": {"sources": [{"path": source, "limit": limit}]},
        "resources": {"storage_path": str(folder / "runs")},
        **sections,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def submitting(head: RayHead, config: Path, job: str, **changes: str) -> subprocess.Popen[str]:
    """`submit_job` in a process of its own: Ray reads the token once for each process."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", SUBMIT, str(config), job, head.jobs],
        env={**head.env, "PYTHONPATH": str(ROOT), **changes},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def submitted(head: RayHead, config: Path, job: str, **changes: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a submission that was followed to its end."""
    process = submitting(head, config, job, **changes)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def assert_prepared(run: Path) -> None:
    counts = {part: len((run / "data" / f"{part}.jsonl").read_text().splitlines()) for part in ("train", "val", "test")}
    assert min(counts.values()) >= 1
    assert sum(counts.values()) >= 50
    assert json.loads((run / "run.json").read_text())["stages"]["prepare"]["status"] == "done"


def test_a_submitted_job_does_its_work_and_its_log_is_shown_once(ray_head: RayHead, tmp_path: Path) -> None:
    code, out, err = submitted(ray_head, write_config(tmp_path, "sent"), "prepare")
    assert code == 0, out + err
    assert_prepared(tmp_path / "runs" / "sent")
    assert out.count("prepare ...") == 1
    assert out.count("prepare: done after") == 1
    assert re.search(r"Job sent-prepare-[0-9a-f]{8}: SUCCEEDED", out)


def test_data_is_checked_on_the_cluster(ray_head: RayHead, tmp_path: Path) -> None:
    code, out, err = submitted(ray_head, write_config(tmp_path, "checked"), "check")
    assert code == 0, out + err
    assert re.search(r"^READY( with \d+ warnings?)? \(checked in", out, re.MULTILINE), out
    assert json.loads((tmp_path / "runs" / "checked" / "check" / "check.json").read_text())["not_ready"] == []


def test_a_local_source_travels_with_the_job(ray_head: RayHead, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    samples = generate_samples(60, seed=1, catalogue="easy")
    source.write_text("".join(sample.model_dump_json() + "\n" for sample in samples), encoding="utf-8")
    code, out, err = submitted(ray_head, write_config(tmp_path, "travels", str(source)), "prepare")
    assert code == 0, out + err
    assert_prepared(tmp_path / "runs" / "travels")
    stored = json.loads((tmp_path / "runs" / "travels" / "config.json").read_text())
    (path,) = (each["path"] for each in stored["data"]["sources"])
    assert path.endswith("/sources/0-rows.jsonl")
    assert path != str(source)


def literally_submitted(head: RayHead, job: str, config: Path) -> subprocess.CompletedProcess[str]:
    """Ray's own command line, as the README gives it."""
    command = ["ray", "job", "submit", "--address", head.jobs, "--working-dir", "."]
    return subprocess.run(
        [*command, "--", "python", "-m", f"jobs.{job}", "--config", str(config)],
        cwd=ROOT,
        env=dict(head.env),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_literal_ray_job_submit_command_works(ray_head: RayHead, tmp_path: Path) -> None:
    result = literally_submitted(ray_head, "prepare", write_config(tmp_path, "literal"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert_prepared(tmp_path / "runs" / "literal")


def test_training_and_evaluation_run_as_jobs(ray_head: RayHead, tmp_path: Path) -> None:
    train = {"max_steps": 4, "eval_steps": 2, "batch_size": 2, "micro_batch_size": 2, "learning_rate": 5e-3}
    evaluation = {"max_new_tokens": 16, "max_cases": 4}
    config = write_config(tmp_path, "trained", train=train, eval=evaluation)
    run = tmp_path / "runs" / "trained"

    result = literally_submitted(ray_head, "train", config)
    assert result.returncode == 0, result.stdout + result.stderr
    (adapter,) = (run / "adapters").iterdir()
    assert {file.name for file in adapter.iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "adapter.json",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    }

    code, out, err = submitted(ray_head, config, "evaluate")
    assert code == 0, out + err
    for adapter_id in ("base", adapter.name):
        scores = json.loads((run / "evals" / adapter_id / "scores.json").read_text())
        assert (scores["num_cases"], scores["num_unscored"]) == (4, 0)


def test_a_failing_job_gives_its_own_exit_code(ray_head: RayHead, tmp_path: Path) -> None:
    code, out, _ = submitted(ray_head, write_config(tmp_path, "nodata", "/on/no/node.jsonl"), "prepare")
    assert code == 3
    assert "/on/no/node.jsonl" in out
    assert ": FAILED" in out


@pytest.fixture
def slow_job(ray_head: RayHead, tmp_path: Path) -> tuple[subprocess.Popen[str], str]:
    """A submission whose job makes samples for minutes, and the job's id."""
    return start_slow_job(ray_head, tmp_path)


def start_slow_job(head: RayHead, tmp_path: Path) -> tuple[subprocess.Popen[str], str]:
    process = submitting(head, write_config(tmp_path, "slow", limit=1_000_000), "prepare")
    assert process.stdout is not None
    found = re.match(r"Submitted (\S+) to ", process.stdout.readline())
    assert found
    deadline = time.monotonic() + 90
    while job_status(head, found[1]) != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(1)
    return process, found[1]


def job_status(head: RayHead, job_id: str) -> str:
    return job_command(head, "status", job_id)


def job_command(head: RayHead, *arguments: str) -> str:
    """What `ray job ...` says of a job, as one of Ray's words for its status."""
    result = subprocess.run(
        ["ray", "job", arguments[0], "--address", head.jobs, *arguments[1:]],
        env=dict(head.env),
        capture_output=True,
        text=True,
        check=True,
    )
    words = re.findall(r"PENDING|RUNNING|STOPPED|SUCCEEDED|FAILED|was stopped|succeeded", result.stdout + result.stderr)
    return words[-1] if words else ""


@pytest.mark.fault
def test_a_stopped_job_is_130(ray_head: RayHead, slow_job: tuple[subprocess.Popen[str], str]) -> None:
    process, job_id = slow_job
    job_command(ray_head, "stop", job_id)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert f"Job {job_id}: STOPPED" in out


def test_ctrl_c_detaches_and_the_job_goes_on(ray_head: RayHead, slow_job: tuple[subprocess.Popen[str], str]) -> None:
    process, job_id = slow_job
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert f"ray job logs --address {ray_head.jobs} --follow {job_id}" in out
    assert f"ray job stop --address {ray_head.jobs} {job_id}" in out
    assert "Traceback" not in err
    assert job_status(ray_head, job_id) == "RUNNING"
    job_command(ray_head, "stop", job_id)


@pytest.mark.fault
def test_a_lost_cluster_is_an_error_that_says_how_to_go_on(doomed_head: RayHead, tmp_path: Path) -> None:
    process, job_id = start_slow_job(doomed_head, tmp_path)
    doomed_head.stop()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, out + err
    assert f"while job {job_id} was running" in err
    assert err.count("\n") == 1
    assert "Submit again" in err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "asks for a token and got none"),
        ({"RAY_AUTH_TOKEN": "f" * 64}, "refuses this token"),
    ],
)
def test_without_the_right_token_one_line_says_so(
    ray_head: RayHead, tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    code, _, err = submitted(ray_head, write_config(tmp_path, "denied"), "prepare", **changes)
    assert code == 3
    assert told in err
    assert err.count("\n") == 1


def test_a_token_that_is_nowhere_is_told_in_one_line(ray_head: RayHead, tmp_path: Path) -> None:
    changes = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none"), "HOME": str(tmp_path)}
    code, _, err = submitted(ray_head, write_config(tmp_path, "lost"), "prepare", **changes)
    assert code == 3
    assert "token" in err
    assert "Traceback" not in err
