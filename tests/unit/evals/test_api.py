"""The Python API on a run's folder, and its door."""

import ast
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from report_run import BEST, write_run

import orchestrator as o
from evals.api import Run
from evals.report.write import write_report
from orchestrator.core.errors import ConfigError, InputError, OrchestratorError, RunConflictError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, run = write_run(tmp_path_factory.mktemp("runs"))
    run.config.write_text(config.model_dump_json(), encoding="utf-8")
    write_report(config, run)
    return run.root


def test_a_run_tells_what_its_files_say(folder: Path) -> None:
    run = o.load_run(folder)
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert run == Run(folder) == o.load_run(str(folder))
    assert run.adapter().id == run.adapter("winner").id == report["verdict"]["leader"] == BEST
    assert run.adapter(BEST).folder == folder / "adapters" / BEST
    assert run.adapter().serve_command == report["serve_command"]["command"]
    assert run.adapter().record.r > 0
    assert [adapter.id for adapter in run.adapters()] == sorted(path.name for path in (folder / "adapters").iterdir())
    scores = run.scores()
    assert scores.keys() >= {"base", BEST}
    by_id = {adapter["id"]: adapter for adapter in report["adapters"]}
    for name in ("base", BEST):
        assert scores[name].metrics["case_accuracy"].value == by_id[name]["metrics"]["case_accuracy"]["value"]
    assert run.report().model_dump(mode="json") == report
    assert run.passed is all(gate["passed"] for gate in report["gates"])
    assert len(run.trials()) == report["search"]["num_trials"]
    assert run.config.name == folder.name
    assert run.ledger.stages


def test_what_a_run_lacks_is_said_with_the_stage_that_makes_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copyfile(folder / "config.json", tmp_path / "bare" / "config.json")
    run = o.load_run(tmp_path / "bare")
    with pytest.raises(RunConflictError, match=r"no scores.*Run evaluate first"):
        run.scores()
    with pytest.raises(RunConflictError, match=r"no report.*Run report first"):
        run.report()
    with pytest.raises(RunConflictError, match=r"no adapter.*Run search or train first"):
        run.adapter()
    with pytest.raises(RunConflictError, match=rf"no adapter 'trial-9'.*{BEST}"):
        o.load_run(folder).adapter("trial-9")
    assert run.trials() == []
    assert run.adapters() == []


def test_a_run_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="neither a configuration file nor a run called so"):
        o.load_run("nowhere")
    Path("new.yaml").write_text("name: new\n")
    with pytest.raises(ConfigError, match="there is no run yet"):
        o.load_run("new.yaml")


@pytest.mark.parametrize(
    ("settings", "stage", "said"),
    [
        ({}, "dance", "no stage 'dance'"),
        ({"train.epochz": 2}, "run", "epochz"),
        ({"train.epochs": "x"}, "run", "epochs"),
    ],
)
def test_what_cannot_be_run_is_told_before_it_starts(
    settings: dict[str, object], stage: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("name: small\n")
    with pytest.raises(InputError, match=said):
        o.run(tmp_path / "c.yaml", settings, stage=stage)


def test_a_setting_that_no_configuration_can_have_is_told() -> None:
    with pytest.raises(ConfigError, match=r"train.epochs: a value of the type object cannot.*text, numbers"):
        o.run("nowhere.yaml", {"train.epochs": object()})
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):  # a path can be one
        o.run("nowhere.yaml", {"resources.storage_path": Path("runs")})


def test_an_adapter_without_its_record_is_told(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    (copy / "adapters" / BEST / "adapter.json").unlink()
    with pytest.raises(RunConflictError, match=r"adapter.json: it cannot be read \(No such file"):
        o.load_run(copy).adapter(BEST)


def test_a_stage_runs_with_the_settings_and_one_that_fails_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    source = {"path": "synthetic", "catalogue": "easy", "limit": 40}
    path.write_text(yaml.safe_dump({"name": "small", "resources": {"storage_path": str(tmp_path / "runs")}}))
    settings = {"data.sources": [source], "model.base": "tiny", "gates": {"tool_call_validity": {"min": 0.9}}}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    run = o.run(path, settings, stage="prepare")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    assert run.folder == tmp_path / "runs" / "small"
    assert run.ledger.stages["prepare"].status == "done"
    assert run.config.data.sources[0].limit == 40
    assert run.config.gates["tool_call_validity"].min == 0.9
    with pytest.raises(OrchestratorError, match="the stage report ended with exit code 3"):
        o.run(path, settings, stage="report")  # nothing is scored


def test_the_door_is_light_and_no_module_goes_through_it() -> None:
    script = "import orchestrator, sys; print(*sys.modules); import orchestrator.run.paths; orchestrator.run.__call__"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"evals", "pydantic", "torch", "ray"} & set(loaded)
    packages = ("orchestrator", "evals", "jobs")
    for path in (path for package in packages for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            through = isinstance(node, ast.ImportFrom) and node.module == "orchestrator" and {*names} & {*o.__all__}
            assert not through, path
            assert not (isinstance(node, ast.Import) and "orchestrator" in names), path
