import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jsonl import parse_line
from orchestrator.records import EvalPoint, JsonObject
from orchestrator.training.reporting import DIVERGED_LOSS, Decision, Progress, RecordProgress, curve_of, decide

LOSSES = st.lists(st.floats(0, 100), min_size=1, max_size=12)
PATIENCE = st.integers(1, 6)


@pytest.mark.parametrize(
    ("losses", "patience", "decision"),
    [
        ([1.0], 1, Decision.CONTINUE),
        ([1.0, 0.9, 0.8], 1, Decision.CONTINUE),
        ([1.0, 1.1], 1, Decision.STOP),
        ([1.0, 1.0], 1, Decision.STOP),
        ([1.0, 1.1], 2, Decision.CONTINUE),
        ([1.0, 1.1, 1.2], 2, Decision.STOP),
        ([1.0, 1.1, 0.9], 2, Decision.CONTINUE),
        ([1.0, 5.0, 9.0], None, Decision.CONTINUE),
        ([math.nan], None, Decision.DIVERGED),
        ([1.0, math.inf], 3, Decision.DIVERGED),
    ],
)
def test_the_decision(losses: list[float], patience: int | None, decision: Decision) -> None:
    assert decide(losses, patience) is decision


@given(LOSSES)
def test_without_patience_a_finite_loss_never_stops(losses: list[float]) -> None:
    assert decide(losses, None) is Decision.CONTINUE


@given(LOSSES, st.none() | PATIENCE, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_loss_that_is_not_finite_always_ends_it(losses: list[float], patience: int | None, last: float) -> None:
    assert decide([*losses, last], patience) is Decision.DIVERGED


@given(LOSSES, PATIENCE)
def test_a_new_best_always_goes_on(losses: list[float], patience: int) -> None:
    assert decide([*losses, min(losses) - 1], patience) is Decision.CONTINUE


@given(LOSSES, PATIENCE)
def test_it_stops_after_just_that_many_evaluations_without_a_better_one(losses: list[float], patience: int) -> None:
    best = [*losses, min(losses) - 1]
    decisions = [decide([*best, *[min(losses)] * more], patience) for more in range(1, patience + 1)]
    assert decisions == [Decision.CONTINUE] * (patience - 1) + [Decision.STOP]


@given(LOSSES, PATIENCE)
def test_more_patience_never_stops_earlier(losses: list[float], patience: int) -> None:
    if decide(losses, patience) is Decision.CONTINUE:
        assert decide(losses, patience + 1) is Decision.CONTINUE


@given(LOSSES, PATIENCE, st.floats(0.5, 4))
def test_the_decision_does_not_depend_on_the_unit_of_the_loss(losses: list[float], patience: int, unit: float) -> None:
    ranks = [float(sorted(set(losses)).index(loss)) for loss in losses]
    assert decide([rank * unit for rank in ranks], patience) is decide(losses, patience)


def test_a_curve_pairs_each_eval_loss_with_the_training_loss_before_it() -> None:
    log: list[JsonObject] = [
        {"step": 1, "loss": 3.0, "learning_rate": 1e-3},
        {"step": 2, "loss": 2.0},
        {"step": 2, "eval_loss": 2.5, "eval_runtime": 1.0},
        {"step": 4, "eval_loss": 2.25},
        {"step": 5, "loss": 1.0},
        {"step": 6, "eval_loss": 2.0},
        {"step": 6, "train_runtime": 9.0, "train_loss": 1.5},
    ]
    assert curve_of(log) == [
        EvalPoint(step=2, eval_loss=2.5, train_loss=2.0),
        EvalPoint(step=4, eval_loss=2.25, train_loss=2.0),
        EvalPoint(step=6, eval_loss=2.0, train_loss=1.0),
    ]


def test_a_curve_may_be_empty_or_start_with_an_evaluation() -> None:
    assert curve_of([]) == []
    assert curve_of([{"step": 0, "eval_loss": 3.0}]) == [EvalPoint(step=0, eval_loss=3.0)]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 9))))
def test_a_curve_has_one_point_an_evaluation_in_order(entries: list[tuple[bool, float]]) -> None:
    log: list[JsonObject] = [
        {"step": step, "eval_loss" if is_eval else "loss": loss} for step, (is_eval, loss) in enumerate(entries)
    ]
    evaluations = [(step, loss) for step, (is_eval, loss) in enumerate(entries) if is_eval]
    assert [(point.step, point.eval_loss) for point in curve_of(log)] == evaluations


def test_the_loss_of_a_diverged_trial_is_finite_and_worse_than_any_real_one() -> None:
    assert math.isfinite(DIVERGED_LOSS)
    assert DIVERGED_LOSS > 1e6


def test_progress_keeps_the_latest_report_of_rank_0(tmp_path: Path) -> None:
    path = tmp_path / "job" / "progress.json"
    record = RecordProgress(path)
    for step in (2, 4):
        curve = [{"step": each, "eval_loss": 1 / each, "train_loss": None} for each in range(2, step + 1, 2)]
        metrics = {"step": step, "eval_loss": 1 / step, "diverged": False, "curve": curve, "time": 1.0}
        record.after_report(None, [metrics, {**metrics, "step": 99}], None)
    progress = parse_line(path.read_text(encoding="utf-8"), Progress, where="x")
    assert progress == Progress(
        step=4, diverged=False, curve=(EvalPoint(step=2, eval_loss=0.5), EvalPoint(step=4, eval_loss=0.25))
    )
    assert set(json.loads(path.read_text(encoding="utf-8"))) == {"step", "diverged", "curve"}
