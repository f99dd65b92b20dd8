from pathlib import Path

import pytest
import yaml

from evals.records import Case, Generation, Metric, Scores
from jobs._main import DONE, GATE_NOT_MET, run_job
from jobs.report import report
from orchestrator.jsonl import dump_jsonl
from orchestrator.records import AdapterRecord, Message
from orchestrator.runs import RunDir, write_text_atomic

ADAPTER = "aaaaaaaaaaaaaaaa"


def write_scores(run: RunDir, adapter_id: str, validity: float) -> None:
    metrics = {"tool_call_validity": Metric(value=validity, n=100, low=validity - 0.05, high=validity + 0.05)}
    scores = Scores.model_validate(
        {"adapter_id": adapter_id, "num_cases": 100, "num_unscored": 0, "metrics": metrics, "verdicts": ()}
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


def report_with_gate(tmp_path: Path, lowest: float) -> int:
    config = tmp_path / "c.yaml"
    settings = {
        "name": "r",
        "model": {"base": "tiny"},
        "resources": {"storage_path": str(tmp_path)},
        "gates": {"tool_call_validity": {"min": lowest}},
    }
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return run_job("report", report, ["--config", str(config)])


def test_the_gist_is_printed_and_a_gate_that_is_met_exits_0(
    scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_with_gate(tmp_path, 0.9) == DONE
    lines = capsys.readouterr().out.splitlines()
    adapter = next(line for line in lines if line.startswith(ADAPTER))
    assert "r 16 alpha 32 learning_rate 0.005" in adapter
    assert "0.900 [0.850, 0.950] n=100" in adapter
    assert adapter.count("not scored") == 2
    assert any(line.startswith("base") and "0.050 [0.000, 0.100] n=100" in line for line in lines)
    assert lines[-1] == f"Report: {scored_run.report / 'report.html'}"
    assert (scored_run.report / "report.html").is_file()


def test_a_gate_that_is_missed_exits_2(scored_run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_with_gate(tmp_path, 0.95) == GATE_NOT_MET
    assert "Gate not met: tool_call_validity is 0.900, wanted " in capsys.readouterr().out


def test_a_report_is_made_anew_each_time(scored_run: RunDir, tmp_path: Path) -> None:
    report_with_gate(tmp_path, 0.9)
    (scored_run.report / "report.md").unlink()
    assert report_with_gate(tmp_path, 0.9) == DONE
    assert (scored_run.report / "report.md").is_file()


def test_nothing_scored_is_an_error_not_an_empty_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_with_gate(tmp_path, 0.9) == 3
    assert "has been scored" in capsys.readouterr().err
