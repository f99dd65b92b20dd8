from pathlib import Path

import pytest
from report_run import BEST, SECOND, WEAK, make_cases, write_run

from evals.generate.chosen import read_report
from evals.report.write import write_report
from evals.rollout.plan import harm_rows, plan_lines, plan_rollout
from evals.rollout.sides import find_side
from evals.stats.decision import GUARDED
from evals.stats.sequential import cases_to_rule_out, cases_to_show
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError, RunConflictError
from orchestrator.run.paths import RunDir


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunDir]:
    config, run = write_run(tmp_path_factory.mktemp("runs"), skills={"base": 0.35, BEST: 0.8, SECOND: 0.78, WEAK: 0.5})
    write_report(config, run)
    return config, run


def test_the_plan_is_of_the_difference_that_the_report_measured(made: tuple[RunConfig, RunDir]) -> None:
    _, run = made
    report = read_report(run)
    assert report is not None
    old, new = find_side(run, WEAK, "--old"), find_side(run, BEST, "--new")
    plan = plan_rollout(old, new, 0.02)
    shares = {entry.id: entry.metrics["case_accuracy"].value for entry in report.adapters}
    assert (plan.old, plan.new) == (WEAK, BEST)
    assert (plan.old_share, plan.new_share) == pytest.approx((shares[WEAK], shares[BEST]))
    needs = cases_to_show(plan.old_share, plan.new_share)
    assert (plan.at_most, plan.one_look, plan.on_average) == needs[1:2] + needs[:1] + needs[2:]
    assert plan.low is not None
    assert plan.pessimistic is not None
    assert plan.low < plan.difference
    assert plan.pessimistic > plan.at_most
    first, second, third = plan_lines(plan)
    assert f"n={len(make_cases())}" in first
    assert f"{plan.at_most:,} live cases of a 50/50 split show it with a chance of 80%" in second
    assert f"{plan.pessimistic:,}" in third
    assert [harm.metric for harm in plan.harms] == list(GUARDED)
    assert all(0 < harm.worse_by <= 1 for harm in plan.harms)
    assert len(harm_rows(plan)) == len(GUARDED)


def test_a_difference_below_the_margin_is_planned_to_be_ruled_out(made: tuple[RunConfig, RunDir]) -> None:
    _, run = made
    old, new = find_side(run, SECOND, "--old"), find_side(run, BEST, "--new")
    plan = plan_rollout(old, new, 0.3)
    assert (plan.one_look, plan.on_average) == (None, None)
    assert plan.at_most == cases_to_rule_out((plan.old_share + plan.new_share) / 2, 0.3)
    assert plan.target == 0.3
    assert "less than the 0.3 that matters" in plan_lines(plan)[1]
    larger = plan_rollout(find_side(run, "base", "--old"), new, 0.3)
    assert larger.target == larger.difference > 0.3
    assert plan.at_most < plan_rollout(old, new, 0.1).at_most


def test_another_run_stands_for_its_best_adapter(tmp_path: Path) -> None:
    skills = {"base": 0.3, SECOND: 0.6}
    (_, run), other = write_run(tmp_path, "same", cases=make_cases(40)), write_run(tmp_path, "other", skills=skills)
    with pytest.raises(RunConflictError, match="no report of an adapter"):
        find_side(run, "other", "--old")
    write_report(*other)
    plan = plan_rollout(find_side(run, "other", "--old"), find_side(run, BEST, "--new"), 0.02)
    assert plan.old == f"other/{SECOND}"
    assert "n=40" in plan.measured  # of 150 there


def test_runs_without_a_case_in_common_are_planned_by_their_own_shares(tmp_path: Path) -> None:
    cases = make_cases(120)
    one, other = write_run(tmp_path, "one", cases=cases[:60]), write_run(tmp_path, "other", cases=cases[60:])
    write_report(*other)
    plan = plan_rollout(find_side(one[1], "other", "--old"), find_side(one[1], WEAK, "--new"), 0.02)
    assert (plan.low, plan.pessimistic) == (None, None)
    assert "from cases that they do not share" in plan.measured
    assert plan.at_most > 0


def test_who_is_neither_adapter_nor_run_is_refused(made: tuple[RunConfig, RunDir]) -> None:
    _, run = made
    with pytest.raises(
        InputError, match=rf"--old: there is neither .* 'trial-9'.*Allowed: winner, base, .*{BEST}.*run"
    ):
        find_side(run, "trial-9", "--old")
    with pytest.raises(InputError, match=f"--old and --new: both are {BEST}"):
        plan_rollout(find_side(run, BEST, "--old"), find_side(run, BEST, "--new"), 0.02)
    run.adapter("unscored").mkdir()
    with pytest.raises(RunConflictError, match="unscored has not been scored"):
        find_side(run, "unscored", "--new")
