import json
import shutil
from pathlib import Path

import pytest
import yaml

from evals.records import Case, FailedAdapter, Generation, Metric, Scores
from jobs.report import main
from orchestrator.core.errors import DONE, GATE_NOT_MET
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.core.records import AdapterRecord, Message
from orchestrator.run.paths import RunDir

ADAPTER = "aaaaaaaaaaaaaaaa"


def write_scores(run: RunDir, adapter_id: str, validity: float) -> None:
    metrics = {"tool_call_validity": Metric(value=validity, n=100, low=validity - 0.05, high=validity + 0.05)}
    scores = Scores.model_validate(
        {
            "adapter_id": adapter_id,
            "num_cases": 100,
            "num_unscored": 0,
            "metrics": metrics,
            "cells": {},
            "suites": {},
            "verdicts": (),
        }
    )
    write_text_atomic(run.scores(adapter_id), scores.model_dump_json())
    reply = Generation(case_id="c", text="", finish_reason="stop", prompt_tokens=1, output_tokens=1, latency_s=0.1)
    write_text_atomic(run.generations(adapter_id), dump_jsonl([reply]))


@pytest.fixture
def scored_run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "r")
    case = Case(
        id="c",
        messages=(Message(role="user", content="hello"),),
        tools=(),
        kind="tool_call",
        tags=(),
        expected_calls=(),
        expected_text="",
    )
    write_text_atomic(run.root / "evals" / "cases.jsonl", dump_jsonl([case]))
    record = AdapterRecord(
        id=ADAPTER, base="tiny", r=16, alpha=32, target_modules=("q_proj",), sha256=ADAPTER * 4, learning_rate=0.005,
        eval_loss=0.25, step=60, trial_id="t0",
    )  # fmt: skip
    write_text_atomic(run.adapter(ADAPTER) / "adapter.json", record.model_dump_json())
    write_scores(run, "base", 0.05)
    write_scores(run, ADAPTER, 0.9)
    return run


def report_with_gate(tmp_path: Path, lowest: float, *options: str) -> int:
    config = tmp_path / "c.yaml"
    settings = {
        "name": "r",
        "model": {"base": "tiny"},
        "resources": {"storage_path": str(tmp_path)},
        "gates": {"tool_call_validity": {"min": lowest}},
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return main(["--config", str(config), *options])


def test_the_gist_is_printed_and_a_gate_that_is_met_exits_0(
    scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_with_gate(tmp_path, 0.9) == DONE
    lines = capsys.readouterr().out.splitlines()
    head = lines.index(next(line for line in lines if line.split() == [ADAPTER, "base"]))
    table = {line[:20].strip(): line[20:].split() for line in lines[head + 1 : head + 5]}
    assert table["r"] == ["16", "-"]
    assert table["learning rate"] == ["0.005", "-"]
    validity = next(line for line in lines if line.startswith("Tool-call validity (100)"))
    assert "0.90 [0.85, 0.95]" in validity
    assert "0.05 [0.00, 0.10]" in validity
    assert lines[-1] == f"Report: {scored_run.report / 'report.html'}"
    assert (scored_run.report / "report.html").is_file()


def test_a_gate_that_is_missed_exits_2(scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_with_gate(tmp_path, 0.95) == GATE_NOT_MET
    assert f"Gate not met: tool_call_validity of {ADAPTER} is 0.90, wanted " in capsys.readouterr().out


def test_a_report_is_made_anew_each_time(scored_run: RunDir, tmp_path: Path) -> None:
    report_with_gate(tmp_path, 0.9)
    (scored_run.report / "report.md").unlink()
    assert report_with_gate(tmp_path, 0.9) == DONE
    assert (scored_run.report / "report.md").is_file()


def test_nothing_scored_is_an_error_not_an_empty_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_with_gate(tmp_path, 0.9) == 3
    assert "has been scored" in capsys.readouterr().err


def test_a_run_beside_this_one_is_set_beside_it(
    scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_with_gate(tmp_path, 0.9) == DONE
    older = shutil.copytree(scored_run.root, tmp_path / "older")
    (older / "config.json").write_text((older / "config.json").read_text().replace('"name": "r"', '"name": "older"'))
    for other in ("older", str(older)):
        assert report_with_gate(tmp_path, 0.9, "--compare", other) == DONE
        assert "Beside older: Both runs have the same 1 case," in capsys.readouterr().out
    made = json.loads((scored_run.report / "report.json").read_text())
    assert made["other_run"]["folder"] == str(older)


@pytest.mark.parametrize("other", ["nothing", "r"])
def test_a_run_that_cannot_be_compared_is_one_line_and_exits_3(
    scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    assert report_with_gate(tmp_path, 0.9, "--compare", other) == 3
    said = capsys.readouterr().err
    assert said.startswith("Error: --compare: ")
    assert said.count("\n") == 1
    assert not scored_run.report.exists()


def test_an_adapter_that_could_not_be_scored_is_told(
    scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = FailedAdapter(adapter_id="b" * 16, error="AdapterError", message="the file ends early")
    write_text_atomic(scored_run.failure("b" * 16), failure.model_dump_json())
    assert report_with_gate(tmp_path, 0.9) == DONE
    assert f"Not scored: {'b' * 16}: AdapterError: the file ends early" in capsys.readouterr().out
