"""A report of a search that chose by replies: who may win, what is said of eval loss, and what the data teaches."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from report_run import BEST, SECOND, WEAK, make_cases, write_run

from evals.records import Report, Scores
from evals.report.search_charts import contour_picture
from evals.report.write import write_report
from evals.stats.loss_enough import checkpoints_of, importances, rank_correlation
from evals.stats.objective import Aim
from evals.stats.selected import CheckpointScore, Selection, score_of
from evals.stats.selection import RULE, Asked
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import read_jsonl, write_text_atomic
from orchestrator.core.records import TrialRecord
from orchestrator.run.paths import RunDir

LOSSES = {BEST: 0.30, SECOND: 0.25, WEAK: 0.20}
SEARCH = {"objective": "tool_call_accuracy", "constraints": {"no_call_accuracy": {"min": 0.5}}}


def write_selection(run: RunDir, kept: Sequence[str], *, is_met: bool = True, search: object = None) -> Selection:
    """As a search leaves it that took BEST though WEAK has the lowest eval loss."""
    aim = Aim.of(RunConfig.model_validate({"search": search or SEARCH}).search)
    ordered = [*kept, *(name for name in LOSSES if name not in kept)]
    scores = {name: Scores.model_validate_json(run.scores(name).read_text(encoding="utf-8")) for name in LOSSES}
    asked = [Asked(name, LOSSES[name], scores[name]) for name in ordered]
    finalists = [score_of(aim, one, step=60, is_behind=one.id not in kept) for one in asked]
    selection = Selection(
        objective=aim.text,
        weights=dict(aim.weights),
        constraints=("no_call_accuracy at least 0.5",),
        rule=RULE,
        seed=0,
        cases={"tool_call": 40, "answer": 24},
        num_first=64,
        shared_prompts=3,
        finalists=tuple(finalists),
        kept=tuple(kept),
        by_loss=(WEAK,),
        held_against=WEAK,
        is_met=is_met,
        nearest=None if is_met else kept[0],
        scoring_s=61.0,
    )
    write_text_atomic(run.selected, selection.model_dump_json())
    return selection


def reported(
    tmp_path: Path, *, is_met: bool = True, kept: Sequence[str] = (BEST, SECOND)
) -> tuple[Report, str, RunDir]:
    config, run = write_run(tmp_path, settings={"search": SEARCH})
    write_selection(run, kept, is_met=is_met)
    return write_report(config, run), (run.report / "report.md").read_text(encoding="utf-8"), run


def test_what_eval_loss_would_have_taken_is_held_against_what_was_taken_and_wins_nothing(tmp_path: Path) -> None:
    report, text, _ = reported(tmp_path)
    assert report.verdict.leader in (BEST, SECOND)
    assert WEAK in {adapter.id for adapter in report.adapters}
    assert not any(WEAK in (pair.left, pair.right) for pair in report.comparisons)
    assert report.selection is not None
    gap = report.selection["held_out"]
    assert (gap["left"], gap["right"]) == (BEST, WEAK)
    assert gap["difference"] > 0
    assert f"Eval loss alone would have taken {WEAK}; the search took {BEST}." in text
    assert "on held-out cases" in text
    assert "no held-out case had a say" in text
    assert "3 repeat a prompt of training" in text
    assert "kept to be held against the others" in text
    assert "The search spent 1 min 01 s of engine time on scores, beside" in text


def test_the_verdict_is_by_the_objective_where_it_is_one_share(tmp_path: Path) -> None:
    report, text, run = reported(tmp_path)
    against_base = [pair for pair in report.comparisons if (pair.left, pair.right) == (report.verdict.leader, "base")]
    assert against_base[0].metric == "tool_call_accuracy"
    assert "makes the expected call in" in report.verdict.reason
    assert "kept tool_call_accuracy on held-out cases decides" in text.replace("\\", "")
    summed = {"objective": {"tool_call_accuracy": 1, "no_call_accuracy": 1}}
    config, run = write_run(tmp_path, "summed", settings={"search": summed})
    write_selection(run, (BEST, SECOND), search=summed)
    assert "as asked" in write_report(config, run).verdict.reason


def test_constraints_are_held_against_the_winner_as_gates_are(tmp_path: Path) -> None:
    report, _, _ = reported(tmp_path)
    (gate,) = report.gates
    assert (gate.metric, gate.bound) == ("no_call_accuracy", "at least 0.5")


def test_a_kept_adapter_that_misses_a_constraint_on_held_out_cases_wins_only_if_all_do(tmp_path: Path) -> None:
    strict = {"objective": "tool_call_accuracy", "constraints": {"tool_call_accuracy": {"max": 0.96}}}
    config, run = write_run(tmp_path, settings={"search": strict})
    write_selection(run, (BEST, SECOND), search=strict)
    by_id = {
        adapter.id: adapter.metrics["tool_call_accuracy"].value or 0.0 for adapter in write_report(config, run).adapters
    }
    assert by_id[SECOND] <= 0.96 < by_id[BEST]
    assert write_report(config, run).verdict.leader == SECOND
    none = {**strict, "constraints": {"tool_call_accuracy": {"max": 0.1}}}
    config, run = write_run(tmp_path, "none", settings={"search": none})
    write_selection(run, (BEST, SECOND), search=none)
    report = write_report(config, run)
    assert report.verdict.leader in (BEST, SECOND)
    assert not report.gates[0].passed


def test_constraints_that_no_adapter_met_are_in_the_verdict(tmp_path: Path) -> None:
    report, text, _ = reported(tmp_path, is_met=False)
    assert f"the nearest is {BEST}" in report.verdict.reason
    assert "No adapter meets search.constraints" in text


def test_a_selection_of_other_trials_is_not_shown(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, settings={"search": SEARCH})
    selection = write_selection(run, (BEST, SECOND))
    write_text_atomic(run.selected, selection.model_copy(update={"kept": ("trial-99",)}).model_dump_json())
    assert write_report(config, run).selection is None


def test_the_page_shows_the_objective_over_eval_loss(tmp_path: Path) -> None:
    _, _, run = reported(tmp_path)
    page = (run.report / "report.html").read_text(encoding="utf-8")
    assert "Objective over eval loss" in page
    assert "Best so far over device time" in page
    assert "What eval loss depends on" in page


def test_the_two_settings_that_explain_most_are_drawn_against_each_other(tmp_path: Path) -> None:
    config, run = write_run(tmp_path)
    write_report(config, run)
    trials = list(read_jsonl(run.trials, TrialRecord))
    page = (run.report / "report.html").read_text(encoding="utf-8")
    assert "Best so far over device time" in page
    assert "Eval loss over the two settings that explain most" in page
    assert contour_picture(trials, "r", "learning_rate") is not None
    assert contour_picture(trials, "r", "r") is None, "a line is no area"
    assert contour_picture(trials[:2], "r", "learning_rate") is None


def test_the_page_shows_the_pareto_front_of_several_objectives(tmp_path: Path) -> None:
    search = {"objective": ["tool_call_accuracy", "no_call_accuracy"]}
    config, run = write_run(tmp_path, settings={"search": search})
    selection = write_selection(run, (BEST, SECOND), search=search)
    write_text_atomic(run.selected, selection.model_copy(update={"front": (BEST, SECOND)}).model_dump_json())
    report, page = write_report(config, run), (run.report / "report.html").read_text(encoding="utf-8")
    assert "Pareto front" in page
    assert page.count("on the Pareto front") == 2
    assert "Chosen by the Pareto front of tool_call_accuracy and no_call_accuracy" in page
    assert report.selection is not None
    assert report.selection["front"] == [BEST, SECOND]
    assert "as asked" in report.verdict.reason


def checkpoint(trial: str, step: int, loss: float, objective: float) -> CheckpointScore:
    return CheckpointScore(
        trial_id=trial, step=step, eval_loss=loss, num_cases=64, objective=objective, figures={}, missed={},
        is_behind=False,
    )  # fmt: skip


@pytest.mark.parametrize(("slope", "value"), [(1, 1.0), (-1, -1.0)])
def test_the_rank_correlation_is_of_a_lower_loss_with_a_higher_objective(slope: int, value: float) -> None:
    found = rank_correlation([checkpoint(f"trial-{i}", 6, 1.0 - 0.1 * i, slope * i) for i in range(8)])
    assert found is not None
    assert found.value == pytest.approx(value)
    assert found.n == 8
    assert rank_correlation([checkpoint("trial-1", step, 1.0 / step, step) for step in range(1, 4)]) is None
    assert rank_correlation([checkpoint(f"trial-{i}", 6, i, 0.5) for i in range(8)]) is None


def test_a_checkpoint_counts_once_as_it_was_asked_most(tmp_path: Path) -> None:
    _, run = write_run(tmp_path, settings={"search": SEARCH})
    selection = write_selection(run, (BEST, SECOND))
    at_rung = selection.finalists[0].model_copy(update={"num_cases": 16, "objective": 0.0})
    found = checkpoints_of(selection.model_copy(update={"rungs": (at_rung,)}))
    assert found == list(selection.finalists)


def test_the_setting_that_decides_the_loss_is_the_most_important(tmp_path: Path) -> None:
    _, run = write_run(tmp_path)
    trials = list(read_jsonl(run.trials, TrialRecord))
    by_rank = [
        trial.model_copy(update={"best_eval_loss": 1.0 / int(trial.hyperparameters["r"])})
        for trial in trials
        if trial.best_eval_loss is not None
    ]
    first, *rest = importances(by_rank)
    assert first.setting == "r"
    assert first.share > 0.5
    assert 0 <= first.low <= first.high <= 1
    assert {one.setting for one in rest} == {"alpha", "learning_rate"}
    assert importances(by_rank[:3]) == []


def test_what_mostly_fails_is_told_with_how_much_of_the_data_teaches_it(tmp_path: Path) -> None:
    cases = make_cases()
    calls = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    wrong = {case.id: calls for case in cases if "no_fitting_tool" in case.tags}
    config, run = write_run(tmp_path, cases=cases, replies=wrong)
    write_card(run, {"no_fitting_tool": 6}, samples=150)
    write_report(config, run)
    text = (run.report / "report.md").read_text(encoding="utf-8")
    assert f"fails in {len(wrong)} of {len(wrong)} cases" in text
    assert "4% of the conversations teach it (6 of 150)" in text
    assert "Every other adapter scored here fails likewise" in text
    write_card(run, {}, samples=150)
    write_report(config, run)
    assert "nothing teaches it: add some" in (run.report / "report.md").read_text(encoding="utf-8")


def write_card(run: RunDir, tags: dict[str, int], *, samples: int) -> None:
    counts = ("rows", "quarantined", "repaired_nulls", "groups", "moved_groups", "pruned_tools", "num_tools")
    empty = ("reasons", "flags", "kinds", "parts", "part_kinds", "leaks", "tools")
    card = {
        **dict.fromkeys(counts, 0), **{name: {} for name in empty}, "sources": [], "inferred_kinds": 0,
        "samples": samples, "rows": samples, "tags": tags,
    }  # fmt: skip
    write_text_atomic(run.card, json.dumps(card))


def test_nothing_is_said_of_what_mostly_succeeds(tmp_path: Path) -> None:
    _, text, _ = reported(tmp_path)
    assert "conversations teach it" not in text
