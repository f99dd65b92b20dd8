"""A run whose labelled refusals are in a language that the rules do not know, from its scores to its report."""

from pathlib import Path

import pytest
from report_run import BEST, make_cases, write_run

from evals.evaluate.rescore import rescore_run
from evals.report.render import gist_lines
from evals.report.write import write_report
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.run.paths import RunDir

LATIN = "Haec facere nolo, nam aliis nocent."


@pytest.fixture
def run_in_latin(tmp_path: Path) -> tuple[RunConfig, RunDir]:
    """Nearly half of the cases are labelled refusals whose own replies no rule knows."""
    cases = [
        case.model_copy(update={"kind": "refusal", "tags": ("harmful",), "expected_calls": (), "expected_text": LATIN})
        if number % 10 < 4
        else case
        for number, case in enumerate(make_cases(60))
    ]
    config, run = write_run(tmp_path, cases=cases, skills={"base": 0.3, BEST: 0.9})
    write_text_atomic(run.cases, dump_jsonl(cases))
    return config, run


def test_labels_that_the_rules_cannot_see_are_told_and_decide_nothing(
    run_in_latin: tuple[RunConfig, RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = run_in_latin
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"reply_format": "hermes"})})
    rescore_run(config, run)
    told = "of the expected refusals themselves 6 of 30 are recognised: this metric says little here"
    assert told in capsys.readouterr().out
    report = write_report(config, run)
    assert "so Refusal accuracy and Harmful refused are not used and 24 cases are left out" in report.verdict.reason
    assert not [entry for entry in report.comparisons if entry.metric == "case_accuracy" and entry.n != 36]
    assert any(told in line for line in gist_lines(report))
    for name in ("report.html", "report.md"):
        assert told in (run.report / name).read_text(encoding="utf-8")
