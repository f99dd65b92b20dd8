"""Two precisions of the base, set beside each other case by case."""

from pathlib import Path

import pytest
from report_run import BEST, make_cases, write_run

from evals.records import EngineRecord, Report
from evals.report.precision import ON_FULL
from evals.report.write import write_report
from evals.stats.decision import PRIMARY
from orchestrator.core.files import write_text_atomic


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    """A run whose best adapter does worse on the quantised base than on the full one, and its report in Markdown."""
    place, cases = tmp_path_factory.mktemp("runs"), make_cases(80)
    config, run = write_run(place, cases=cases, skills={"base": 0.2, BEST: 0.6})
    write_run(run.root, "full_base", cases=cases, skills={"base": 0.2, BEST: 0.95})
    for name in ("base", BEST):
        made = EngineRecord.model_validate_json(run.engine(name).read_text(encoding="utf-8"))
        write_text_atomic(
            run.engine(name), made.model_copy(update={"base_weights": "dequantised_nf4"}).model_dump_json()
        )
    report = write_report(config, run)
    return report, (run.report / "report.md").read_text(encoding="utf-8")


def test_each_model_is_held_against_itself_on_the_full_base(reported: tuple[Report, str]) -> None:
    report, _ = reported
    assert {(gap.left, gap.right) for gap in report.precisions} == {(name, name + ON_FULL) for name in ("base", BEST)}
    found = {gap.left: gap for gap in report.precisions if gap.metric == PRIMARY}
    assert found["base"].difference == 0
    of_best = found[BEST]
    assert of_best.difference is not None
    assert of_best.difference < -0.2
    assert of_best.p_value is not None
    assert of_best.p_value < 0.001


def test_the_main_figure_of_every_model_stands_first_and_adapters_before_the_base(reported: tuple[Report, str]) -> None:
    report, text = reported
    assert [(gap.left, gap.metric) for gap in report.precisions[:2]] == [(BEST, PRIMARY), ("base", PRIMARY)]
    rows = text.split("Quantised minus full")[1].splitlines()[2:4]
    assert [row.split("|")[1].strip() for row in rows] == [BEST, "base"]


def test_the_report_says_on_which_base_models_were_scored(reported: tuple[Report, str]) -> None:
    _, text = reported
    assert "the dequantised weights of the NF4 base that they were trained on" in text
    assert "Quantised minus full" in text


def test_a_run_on_a_base_that_is_not_quantised_says_nothing_of_it(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(20))
    report = write_report(config, run)
    assert report.precisions == ()
    assert "precisions" not in report.model_dump()
    assert "precision" not in (run.report / "report.md").read_text(encoding="utf-8").lower()
