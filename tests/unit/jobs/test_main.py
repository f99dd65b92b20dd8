import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from jobs._main import READ, do_stage, run_job
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import (
    DONE,
    INTERRUPTED,
    AdapterError,
    ConfigError,
    DataError,
    EvaluationError,
    ModelNotFoundError,
    OrchestratorError,
    ResourceError,
    RunConflictError,
    SearchError,
    SubmissionError,
    TrainingError,
    causes,
)
from orchestrator.core.interrupt import handlers_kept
from orchestrator.run.folder import read_ledger
from orchestrator.run.paths import RunDir

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"name": "r", "resources": {"storage_path": str(tmp_path)}}), encoding="utf-8")
    return ["--config", str(config)]


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    with handlers_kept():
        yield


def no_work(config: RunConfig, run: RunDir) -> int:
    return DONE


def raising(error: BaseException) -> Callable[[RunConfig, RunDir], int]:
    def work(config: RunConfig, run: RunDir) -> int:
        raise error

    return work


def in_subprocess(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment, command = {**os.environ, "PYTHONPATH": str(ROOT)}, [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *((kind, 3) for kind in (ConfigError, DataError, ModelNotFoundError, ResourceError, RunConflictError)),
        *((kind, 1) for kind in (AdapterError, TrainingError, SearchError, EvaluationError, SubmissionError)),
    ],
)
def test_an_own_error_is_one_line_and_its_exit_code(
    kind: type[OrchestratorError], code: int, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job("prepare", raising(kind("it is\nbroken", where="here")), arguments) == code
    assert capsys.readouterr().err == "Error: here: it is broken.\n"


def test_work_gets_the_config_with_overrides_and_a_run_that_is_held(arguments: list[str], tmp_path: Path) -> None:
    seen: list[RunConfig] = []

    def work(config: RunConfig, run: RunDir) -> int:
        seen.append(config)
        assert run.root == tmp_path / "r"
        inner = in_subprocess(
            "import sys; from jobs.prepare import prepare; from jobs._main import run_job;"
            "sys.exit(run_job('prepare', prepare, sys.argv[1:]))",
            *arguments,
            "--set",
            "train.seed=7",
        )
        assert inner.returncode == 3
        assert "another process works in this run" in inner.stderr
        return 2

    assert run_job("prepare", work, [*arguments, "--set", "train.seed=7"]) == 2
    assert seen[0].train.seed == 7


def test_a_run_that_is_only_read_stays_as_it_is_and_may_be_held_by_another(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(config: RunConfig, run: RunDir) -> int:
        warnings.warn("mind the gap", stacklevel=1)
        return config.eval.seed

    changed = [*arguments, "--set", "eval.seed=5"]
    assert run_job("generate", look, changed, scene=READ) == 5
    assert not (tmp_path / "r").exists()  # nothing is made, and the warning has no place to go to

    def while_held(config: RunConfig, run: RunDir) -> int:
        before = run.config.read_bytes()
        assert run_job("generate", look, changed, scene=READ) == 5
        assert run.config.read_bytes() == before
        return DONE

    assert run_job("prepare", while_held, arguments) == DONE
    RunDir(tmp_path / "r").ledger.write_text(
        '{"stages": {"prepare": {"status": "done", "input_digest": "", "started_at": ""}}}', encoding="utf-8"
    )
    assert run_job("generate", look, [*arguments, "--set", "train.seed=7"], scene=READ) == 3
    assert "train.seed was 0, is 7" in capsys.readouterr().err


def test_an_unexpected_error_leaves_its_traceback_in_the_runs_log(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(config: RunConfig, run: RunDir) -> int:
        return 1 // 0

    assert run_job("train", work, arguments) == 1
    log = tmp_path / "r" / "job.log"
    expected = (
        f"Error: train failed: ZeroDivisionError: integer division or modulo by zero; the traceback is in {log}\n"
    )
    assert capsys.readouterr().err == expected
    assert "return 1 // 0" in log.read_text(encoding="utf-8")


def test_a_warning_of_a_library_is_in_the_log_alone(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, warnings; from jobs._main import run_job\n"
        "sys.exit(run_job('train', lambda config, run: warnings.warn('mind the gap') or 0, sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")
    assert "mind the gap" in (tmp_path / "r" / "job.log").read_text(encoding="utf-8")


def test_interrupted_is_130(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job("train", raising(KeyboardInterrupt()), arguments) == INTERRUPTED
    assert capsys.readouterr().err.startswith("train interrupted")


def test_sigterm_ends_a_job_with_130_and_a_failed_stage(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys, time; from jobs._main import do_stage, run_job\n"
        "def work(config, run):\n"
        "    do_stage(run, 'train', 'digest', lambda: (print('READY', flush=True), time.sleep(60)))\n"
        "sys.exit(run_job('train', work, sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as job:
        assert job.stdout is not None
        while "READY" not in (line := job.stdout.readline()):
            assert line, "the job ended before it was ready"
        started = time.monotonic()
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=20) == INTERRUPTED
        assert time.monotonic() - started < 10
    assert read_ledger(RunDir(tmp_path / "r")).stages["train"].status == "interrupted"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--config"),
        (["--config", "/does/not/exist.yaml"], "there is no such file"),
        (["--config", "x.yaml", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_exits_3_in_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job("prepare", no_work, arguments) == 3
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_help_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_job("prepare", no_work, ["--help"])
    assert stop.value.code == 0
    assert "--set KEY=VALUE" in capsys.readouterr().out


def as_raised_by_ray(cause: Exception) -> Exception:
    """What `ray.get` raises for a task that raised `cause`: it crosses processes and poses as its class."""
    sent = pickle.loads(cloudpickle.dumps(RayTaskError("f", "Traceback ...", cause, "ray::f", 1, "127.0.0.1")))
    error: Exception = sent.as_instanceof_cause()
    return error


DATA_ERROR = DataError("the file is empty", where="a.jsonl")


@pytest.mark.parametrize(
    "error",
    [
        as_raised_by_ray(DATA_ERROR),
        as_raised_by_ray(as_raised_by_ray(DATA_ERROR)),
        WorkerGroupError("workers failed", {0: RuntimeError("peer lost"), 1: DATA_ERROR}),
        ControllerError(WorkerGroupError("workers failed", {0: as_raised_by_ray(DATA_ERROR)})),
    ],
)
def test_an_own_error_is_found_inside_what_ray_makes_of_it(
    error: Exception, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job("train", raising(error), arguments) == 3
    assert capsys.readouterr().err == "Error: a.jsonl: the file is empty.\n"


def test_the_line_names_what_the_worker_raised_not_rays_wrapper(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    error = WorkerGroupError("long text", {0: as_raised_by_ray(KeyError("input_ids"))})
    assert run_job("train", raising(error), arguments) == 1
    assert capsys.readouterr().err.startswith("Error: train failed: KeyError: 'input_ids'; the traceback is in ")


def test_an_error_that_was_only_being_handled_does_not_explain() -> None:
    error = ZeroDivisionError()
    error.__context__ = DATA_ERROR
    assert list(causes(error)) == [error]


def test_an_own_error_that_was_named_as_the_cause_explains() -> None:
    error = RuntimeError()
    error.__cause__ = DATA_ERROR
    assert list(causes(error)) == [error, DATA_ERROR]


def test_causes_of_a_cycle_end() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]


def test_a_stage_is_done_once_for_one_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    run = RunDir(tmp_path)
    for digest in ("a", "a", "b"):
        do_stage(run, "search", digest, lambda digest=digest: done.append(digest))  # type: ignore[misc]
    assert done == ["a", "b"]
    assert capsys.readouterr().out.count("search: skipped") == 1
    assert json.loads(run.ledger.read_text(encoding="utf-8"))["stages"]["search"]["input_digest"] == "b"


@pytest.mark.parametrize("job", ["prepare", "train", "search", "prefer", "evaluate", "report", "pipeline"])
def test_every_job_answers_help_without_heavy_imports(job: str) -> None:
    code = (
        f"import sys; sys.argv = ['jobs.{job}']; import jobs.{job};"
        "print([m for m in ('torch', 'ray', 'vllm', 'transformers', 'trl') if m in sys.modules])"
    )
    result = in_subprocess(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_evaluate_without_adapters_says_what_to_run_first(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "jobs.evaluate", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 3
    assert "the run has no adapter" in result.stderr
    assert "Run search or train first" in result.stderr
    assert result.stderr.count("\n") == 1
