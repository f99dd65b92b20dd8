import json
from pathlib import Path

import pytest
from report_run import BEST, BROKEN, SECOND, make_cases, write_run

from evals.records import Report
from evals.report.runs import OtherRun, shared_cases
from evals.report.write import write_report
from orchestrator.core.errors import ConfigError, InputError, RunConflictError
from orchestrator.core.files import write_text_atomic
from orchestrator.run.other import find_other_run
from orchestrator.run.paths import RunDir


def beside(report: Report) -> OtherRun:
    return OtherRun.model_validate(report.other_run)


def read(run: RunDir, suffix: str) -> str:
    return (run.report / f"report.{suffix}").read_text(encoding="utf-8")


def test_runs_on_the_same_cases_are_compared_case_by_case(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, "new", skills={"base": 0.3, BEST: 0.9, SECOND: 0.6})
    _, older = write_run(tmp_path, "old", skills={"base": 0.3, SECOND: 0.6}, settings={"train": {"epochs": 2}})
    report = write_report(config, run, older)
    other = beside(report)
    assert Report.model_validate_json(read(run, "json")) == report
    assert (other.num_cases, other.num_cases_there, other.num_shared) == (150, 150, 150)
    assert [adapter.id for adapter in other.adapters] == [SECOND, "base"]
    best = next(entry for entry in other.comparisons if entry.left == f"new/{BEST}")
    assert (best.metric, best.right, best.n) == ("case_accuracy", f"old/{SECOND}", 150)
    here, there = report.adapters[0].metrics["case_accuracy"], other.adapters[0].metrics["case_accuracy"]
    assert best.difference == pytest.approx((here.value or 0.0) - (there.value or 0.0))
    assert best.gained - best.lost == len([f for f in best.flips if f.left_correct]) * 2 - len(best.flips)
    bases = [entry for entry in other.comparisons if entry.left == "new/base"]
    assert bases
    assert {(entry.right, entry.difference) for entry in bases} == {("old/base", 0.0)}
    page, text = read(run, "html"), read(run, "md")
    assert "Both runs have the same 150 cases" in page
    assert f"<h3>new/{BEST} against old/{SECOND} <span" in page
    assert "## Beside run old" in text


def test_what_was_configured_otherwise_is_named_and_nothing_else(tmp_path: Path) -> None:
    cases = make_cases(20)
    config, run = write_run(tmp_path, "new", cases=cases)
    _, older = write_run(
        tmp_path, "old", cases=cases, settings={"train": {"epochs": 2}, "eval": {"max_new_tokens": 64}}
    )
    differences = beside(write_report(config, run, older)).config_differences
    assert {found.key: (found.here, found.there) for found in differences} == {
        "name": ('"new"', '"old"'),
        "train.epochs": (json.dumps(config.train.epochs), "2.0"),
        "eval.max_new_tokens": ("512", "64"),
    }
    assert "<code>train.epochs</code>" in read(run, "html")
    assert "| train.epochs |" in read(run, "md")


def test_only_the_cases_that_are_the_same_are_compared(tmp_path: Path) -> None:
    cases = make_cases(30)
    changed = [case if index < 20 else case.model_copy(update={"tools": ()}) for index, case in enumerate(cases)]
    config, run = write_run(tmp_path, "new", cases=cases)
    _, older = write_run(tmp_path, "old", cases=changed[:25])
    other = beside(write_report(config, run, older))
    assert (other.num_cases, other.num_cases_there, other.num_shared) == (30, 25, 20)
    assert other.note.startswith("The runs share 20 cases, of 30 here and 25 there")
    assert other.note.endswith(f" Not scored in the other run: {BROKEN}.")
    assert next(entry.n for entry in other.comparisons if entry.metric == "case_accuracy") == 20


def test_without_a_case_in_common_it_is_said_that_figures_are_unpaired(tmp_path: Path) -> None:
    cases = make_cases(30)
    config, run = write_run(tmp_path, "new", cases=cases[:15])
    _, older = write_run(tmp_path, "old", cases=cases[15:])
    other = beside(write_report(config, run, older))
    assert (other.num_shared, other.comparisons) == (0, ())
    page = read(run, "html")
    assert "no case in common" in page
    assert "only unpaired figures can be shown" in page
    assert "<h3>Best adapters and bases</h3>" in page
    assert "shared cases</span>" not in page
    assert "only unpaired figures can be shown" in read(run, "md")


@pytest.mark.parametrize("change", [{"messages": ()}, {"expected_text": "else"}, {"kind": "answer"}, {"tools": ()}])
def test_a_case_with_another_prompt_or_demand_is_another_case(change: dict[str, object]) -> None:
    (case,) = make_cases(1)
    assert shared_cases({case.id: case}, {case.id: case.model_copy()}) == {case.id}
    assert shared_cases({case.id: case}, {case.id: case.model_copy(update=change)}) == frozenset()
    assert shared_cases({case.id: case}, {}) == frozenset()


def test_runs_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    cases = make_cases(20)
    config, run = write_run(tmp_path / "here", "demo", cases=cases)
    _, older = write_run(tmp_path / "there", "demo", cases=cases)
    names = {(entry.left, entry.right) for entry in beside(write_report(config, run, older)).comparisons}
    assert ("demo/base", "demo in there/base") in names


def test_the_other_run_is_a_folder_or_a_name_beside_this_one(tmp_path: Path) -> None:
    _, run = write_run(tmp_path / "runs", "new", cases=make_cases(1))
    _, beside_it = write_run(tmp_path / "runs", "old", cases=make_cases(1))
    _, elsewhere = write_run(tmp_path / "far", "old", cases=make_cases(1))
    assert find_other_run("old", run).root == beside_it.root
    assert find_other_run(str(elsewhere.root), run).root == elsewhere.root


@pytest.mark.parametrize("text", ["nothing", "", ".", "\0", "x" * 5000, "~nobody/x", "../new"])
def test_a_run_that_is_not_there_is_one_clear_error(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, run = write_run(tmp_path / "runs", "new", cases=make_cases(1))
    with pytest.raises(InputError) as caught:
        find_other_run("../runs/new" if text == "../new" else text, run)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("--compare: ")


def test_another_run_without_scores_is_an_error(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, "new", cases=make_cases(5))
    empty = RunDir(tmp_path / "empty")
    write_text_atomic(empty.config, run.config.read_text(encoding="utf-8"))
    with pytest.raises(RunConflictError, match="has been scored") as caught:
        write_report(config, run, empty)
    assert caught.value.exit_code == 3
    assert not run.report.exists()


def test_another_run_with_a_configuration_of_another_version_is_an_error(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, "new", cases=make_cases(5))
    _, older = write_run(tmp_path, "old", cases=make_cases(5))
    write_text_atomic(older.config, '{"name": "old", "nosuch": 1}')
    with pytest.raises(ConfigError, match="nosuch"):
        write_report(config, run, older)
