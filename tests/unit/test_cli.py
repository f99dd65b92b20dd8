"""The command line: what it prints, which exit codes it gives, and how it treats its children."""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.config.load import load_config
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.core.interrupt import handlers_kept
from orchestrator.run.find import find_config

COMMANDS = ("init", "schema", "prepare", "train", "search", "prefer", "evaluate", "report", "run", "submit", "doctor")


@pytest.fixture(autouse=True)
def keep_signal_handlers() -> Iterator[None]:
    with handlers_kept():
        yield


def orchestrator(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the real command from a folder that is not the project's."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-m", "orchestrator", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: orchestrator {command}" in result.output


def test_the_help_lists_every_command(tmp_path: Path) -> None:
    result = orchestrator("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert all(f" {command} " in result.stdout for command in COMMANDS)


def test_alone_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command([]) == 0
    shown = capsys.readouterr().out
    assert all(f" {command} " in shown for command in COMMANDS)


def test_the_version_is_the_installed_one(tmp_path: Path) -> None:
    result = orchestrator("--version", cwd=tmp_path)
    assert (result.returncode, result.stdout.strip()) == (0, importlib.metadata.version("tool-lora-orchestrator"))


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "No such command 'nope'"),
        (["run"], "Missing argument"),
        (["run", "a.yaml", "--nope"], "No such option"),
        (["submit", "a.yaml", "nope", "--address", "http://x"], "nope"),
        (["submit", "a.yaml"], "--address"),
        (["run", "missing.yaml"], "missing.yaml: there is no such file"),
        (["submit", "missing.yaml", "--address", "http://x"], "missing.yaml: there is no such file"),
        (["train", "a.yaml", "--epochs", "3"], "A setting is given as --set train.epochs=3 or --set prefer.epochs=3."),
        (["train", "a.yaml", "--learning-rate=1e-4"], "A setting is given as --set train.learning_rate=1e-4 or "),
        (["run", "a.yaml", "--max-concurrent"], "--set search.max_concurrent=VALUE"),
        (["evaluate", "nowhere"], "nowhere: there is neither a configuration file nor a run called so"),
    ],
)
def test_bad_usage_exits_3_with_a_message_and_no_traceback(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run_command(arguments) == 3
    stderr = capfd.readouterr().err
    assert message in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("stage", ["prepare", "train", "search", "prefer", "evaluate", "report", "run"])
def test_a_stage_refuses_a_wrong_config_before_it_starts(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("train: {batchsize: 3}\n")
    assert cli.run_command([stage, "run.yaml", "--set", "lora.r=7"]) == 3
    stderr = capfd.readouterr().err
    assert stderr.startswith("Error: 2 settings are wrong:\n")
    assert "--set: lora.r: 7" in stderr
    assert "run.yaml: train.batchsize" in stderr


def test_the_real_process_exits_3_for_a_wrong_config(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("profile: nope\n")
    result = orchestrator("run", "run.yaml", cwd=tmp_path)
    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr == (
        "Error: run.yaml: profile: 'nope' is not allowed here. Allowed: fast_dev, balanced, max_quality.\n"
    )


def test_a_usage_error_of_the_real_process_exits_3(tmp_path: Path) -> None:
    assert orchestrator("nope", cwd=tmp_path).returncode == 3


# Stages


def stand_in_for(job: str, code: str, folder: Path) -> None:
    """A `jobs` package in the current folder takes the place of the real one, as Python's -m always has it."""
    (folder / "jobs").mkdir()
    (folder / "jobs" / "__init__.py").touch()
    (folder / "jobs" / f"{job}.py").write_text(code)


def test_a_stage_is_started_with_the_resolved_config_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    code = (
        "import shutil, sys\nassert sys.argv[1] == '--config'\nshutil.copy(sys.argv[2], 'received.json')\nsys.exit(2)\n"
    )
    stand_in_for("pipeline", code, tmp_path)
    (tmp_path / "run.yaml").write_text("name: demo\nprofile: fast_dev\n")
    result = orchestrator("run", "run.yaml", "-s", "train.seed=7", "--set", "lora.r=32", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, "")
    received = load_config(tmp_path / "received.json")
    assert (received.name, received.train.seed, received.lora.r, received.train.max_steps) == ("demo", 7, 32, 60)
    assert received.resources.storage_path == str(tmp_path / "runs")


@pytest.mark.parametrize(
    ("job", "options"),
    [("evaluate", ["--rescore"]), ("evaluate", []), ("report", ["--compare", "last week"]), ("report", [])],
)
def test_a_stages_own_options_reach_its_job(job: str, options: list[str], tmp_path: Path) -> None:
    code = "import json, pathlib, sys\npathlib.Path('received.json').write_text(json.dumps(sys.argv[3:]))\n"
    stand_in_for(job, code, tmp_path)
    (tmp_path / "run.yaml").write_text("name: demo\n")
    assert orchestrator(job, "run.yaml", *options, cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "received.json").read_text()) == options


def stored_run(storage: Path, name: str, **settings: object) -> Path:
    """A run's folder with its resolved configuration, made elsewhere."""
    folder = storage / name
    folder.mkdir(parents=True)
    config = RunConfig.model_validate({"name": "elsewhere", "train": {"seed": 7}, **settings})
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


@pytest.mark.parametrize("given", ["demo", "runs/demo", "kept/demo"])
def test_a_run_is_its_own_configuration(given: str, tmp_path: Path) -> None:
    code = "import shutil, sys\nshutil.copy(sys.argv[2], 'received.json')\n"
    stand_in_for("evaluate", code, tmp_path)
    folder = stored_run(tmp_path / given.rpartition("/")[0] if "/" in given else tmp_path / "runs", "demo")
    result = orchestrator("evaluate", given, "--set", "eval.max_cases=5", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    received = load_config(tmp_path / "received.json")
    assert (received.name, received.train.seed, received.eval.max_cases) == ("demo", 7, 5)
    assert received.resources.storage_path == str(folder.parent)


def test_a_run_is_found_in_the_storage_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored_run(tmp_path / "far", "5")
    path, overrides = find_config(Path("5"), ["resources.storage_path=far"])
    config = load_config(path, overrides)
    assert (path, config.name, config.resources.storage_path) == (folder / "config.json", "5", str(tmp_path / "far"))


def test_what_is_both_a_file_and_a_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored_run(tmp_path / "runs", "demo")
    Path("demo").write_text("name: demo\n")
    with pytest.raises(ConfigError, match=r"demo: this may be demo or .*runs/demo\. Write the path"):
        find_config(Path("demo"), [])
    assert find_config(Path("runs/demo"), [])[0] == tmp_path / "runs" / "demo" / "config.json"


# Set up


def test_init_writes_a_config_that_loads_and_never_replaces_one_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run_command(["init", "mine.yaml"]) == 0
    assert "orchestrator check mine.yaml" in capsys.readouterr().out
    assert load_config(Path("mine.yaml")).name == "my-first-run"
    first_line = Path("mine.yaml").read_text().partition("\n")[0]
    assert first_line == f"# yaml-language-server: $schema={cli.SCHEMA_FILE}"
    assert "RunConfig" in json.loads(Path(cli.SCHEMA_FILE).read_text())["title"]
    Path("mine.yaml").write_text("name: precious\n")
    assert cli.run_command(["init", "mine.yaml"]) == 3
    assert Path("mine.yaml").read_text() == "name: precious\n"
    assert cli.run_command(["init", "mine.yaml", "--force"]) == 0
    assert load_config(Path("mine.yaml")).name == "my-first-run"


def test_init_into_a_folder_that_is_not_there_exits_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run_command(["init", str(tmp_path / "missing" / "a.yaml")]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_schema_prints_the_schema_of_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"name", "profile", "model", "data", "train", "search", "gates"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["LoraConfig"]["properties"]["r"]["enum"] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
