"""Each check on series as trainings record them: what it is for is found, and healthy ones are left alone."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.records import EvalPoint, JsonObject
from orchestrator.core.steps import BaseReading
from orchestrator.training.health.checks import findings_of, rate_at_edge
from orchestrator.training.health.series import Point, Series, Setting

EVERY = 10
HEALTHY_BASE = BaseReading(rows=16, loss=3.0, mark_loss=0.2, guess_loss=11.9)


def make_series(
    loss: Callable[[int], float],
    *,
    steps: int = 60,
    evaluated: Callable[[int], float] | None = None,
    norm: Callable[[int], float] = lambda _: 0.8,
    accuracy: Callable[[int], float] = lambda step: min(0.95, 0.5 + step / 100),
    rows: int = 300,
    **setting: object,
) -> Series:
    """Steps with these losses, an evaluation every ten, 0.1 above the train loss unless given."""
    points = [
        Point(step, loss(step), 2e-4, norm(step), accuracy(step), step * 8 / rows) for step in range(1, steps + 1)
    ]
    curve = []
    for end in range(EVERY, steps + 1, EVERY):
        window = [point.loss for point in points[end - EVERY : end]]
        train = sum(window) / len(window)
        its = train + 0.1 if evaluated is None else evaluated(end)
        if math.isfinite(its):
            curve.append(EvalPoint(step=end, eval_loss=its, train_loss=train if math.isfinite(train) else None))
    fields = {"max_steps": 60, "warmup_steps": 2, "val_rows": 100, "base": HEALTHY_BASE, **setting}
    return Series("t", Setting(**fields), points, curve)  # type: ignore[arg-type]


def falling(step: int) -> float:
    return 0.9 + 2.1 * math.exp(-step / 15)


def names(series: Series) -> set[str]:
    return {found.name for found in findings_of(series)}


FAULTS = {
    "frozen_adapter": make_series(lambda _: 3.0, norm=lambda _: 0.0),
    "not_finite": make_series(lambda step: math.nan if step >= 17 else falling(step), steps=18),
    "diverging": make_series(lambda step: 3.0 + 0.2 * step, norm=lambda _: 30.0),
    "exploding_gradient": make_series(lambda step: 3.0 + 0.01 * step, norm=lambda _: 30.0),
    "loss_flat": make_series(lambda step: 3.0 - 0.0005 * step),
    "learning_slowly": make_series(lambda step: 3.0 - 0.004 * step),
    "accuracy_flat": make_series(lambda _: 2.4, accuracy=lambda _: 0.3),
    "start_loss": make_series(falling, base=BaseReading(rows=16, loss=15.5, mark_loss=0.2, guess_loss=11.9)),
    "unknown_template": make_series(falling, base=BaseReading(rows=16, loss=3.0, mark_loss=12.5, guess_loss=11.9)),
    "rising_after_falling": make_series(falling, evaluated=lambda step: 1.5 + abs(step - 20) / 100),
    "memorising": make_series(lambda step: 3 * math.exp(-step / 8), evaluated=lambda _: 1.4, rows=20),
    "loss_spikes": make_series(
        lambda step: 8.0 if step == 33 else falling(step), norm=lambda step: 20.0 if step == 33 else 0.8
    ),
    "eval_set_leaks": make_series(falling, shared_rows=7),
    "eval_set_small": make_series(falling, val_rows=9),
    "plateau": make_series(
        lambda step: falling(step) if step < 30 else falling(30), evaluated=lambda s: 1.2 + (s < 25)
    ),
}


RECORDED = json.loads((Path(__file__).parent / "health_series.json").read_text(encoding="utf-8"))
"""What benchmarks/health.py recorded: seeded faults of trainings of the toy base, with both trainers."""
NAMED: dict[str, str | dict[str, str]] = {
    "frozen adapter": "frozen_adapter",
    "rate x 30": {"multi_lora": "diverging", "trl": "exploding_gradient"},
    "rate / 100": "loss_flat",
    "shuffled labels": "start_loss",
    "replies of other prompts": "start_loss",
    "20 samples for 40 epochs": "memorising",
    "wrong template": "unknown_template",
    "NaN batch": "not_finite",
    "leaking eval set": "eval_set_leaks",
}
LATEST_STEP = {"rate x 30": 10, "rate / 100": 10, "NaN batch": 20, "20 samples for 40 epochs": 20}
"""A fault is named by the first evaluation, at step 5; these show later."""


def recorded_series(record: JsonObject) -> Series:
    rows: list[list[Any]] = record["steps"]  # a NaN is written as text
    points = [Point._make([row[0], *(value if value is None else float(value) for value in row[1:])]) for row in rows]
    curve = [EvalPoint(step=step, eval_loss=loss, train_loss=train) for step, loss, train in record["curve"]]
    setting = Setting(
        max_steps=record["max_steps"],
        warmup_steps=2,
        val_rows=100,
        shared_rows=record["shared_rows"],
        base=BaseReading.model_validate(record["base"]),
    )
    return Series("t", setting, points, curve)


@pytest.mark.parametrize("record", RECORDED, ids=lambda its: f"{its['name']}, {its['trainer']}")
def test_the_recorded_faults_are_named_in_time_and_the_healthy_left_alone(record: JsonObject) -> None:
    whole = recorded_series(record)
    if record["name"] == "healthy":
        alarms = [found.name for found in findings_of(whole) if found.is_alarm]
        assert alarms == []
        return
    named, seen = NAMED[record["name"]], set[str]()
    for until in range(1, LATEST_STEP.get(record["name"], 5) + 1):
        steps = [point for point in whole.steps if point.step <= until]
        curve = [point for point in whole.curve if point.step <= until]
        seen |= names(Series("t", whole.setting, steps, curve))
    assert (named if isinstance(named, str) else named[record["trainer"]]) in seen


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_evidence_advice_threshold_and_source(name: str) -> None:
    (found,) = [its for its in findings_of(FAULTS[name]) if its.name == name]
    assert all((found.evidence, found.advice, found.threshold, found.source))
    assert found.trial == "t"
    assert found.is_alarm == (name not in ("plateau", "eval_set_small"))


@pytest.mark.parametrize("name", ["frozen_adapter", "not_finite", "diverging", "loss_flat", "eval_set_leaks"])
def test_a_fault_is_named_within_an_evaluation_of_showing(name: str) -> None:
    whole = FAULTS[name]
    early = Series("t", whole.setting, whole.steps[: 2 * EVERY], whole.curve[:2])
    assert name in names(early)


@pytest.mark.parametrize(("cause", "symptom"), [("frozen_adapter", "loss_flat"), ("diverging", "learning_slowly")])
def test_a_cause_is_named_without_its_symptoms(cause: str, symptom: str) -> None:
    assert symptom not in names(FAULTS[cause])


@pytest.mark.parametrize("seed", range(100))
def test_healthy_trainings_are_left_alone(seed: int) -> None:
    """A start of 2.5 to 3.5, an end of 0.6 to 1.2, steps that scatter by a fifth, an eval loss 0 to 0.25 above."""
    draw = random.Random(seed)
    start, end, pace, above = draw.uniform(2.5, 3.5), draw.uniform(0.6, 1.2), draw.uniform(8, 20), draw.uniform(0, 0.25)
    smooth = [end + (start - end) * math.exp(-step / pace) for step in range(61)]
    scattered = [loss * draw.gauss(1, 0.1) for loss in smooth]
    norms = [draw.uniform(0.3, 2.5) for _ in smooth]
    base = BaseReading(rows=16, loss=start, mark_loss=0.3, guess_loss=11.9)
    series = make_series(
        scattered.__getitem__, evaluated=lambda step: smooth[step] + above, norm=norms.__getitem__, base=base
    )
    for steps in range(EVERY, 61, EVERY):
        so_far = Series("t", series.setting, series.steps[:steps], series.curve[: steps // EVERY])
        assert [found.name for found in findings_of(so_far) if found.is_alarm] == []


def test_an_infinite_gradient_under_float16_is_a_skipped_step_and_no_fault() -> None:
    assert names(make_series(falling, norm=lambda step: math.inf if step == 5 else 0.8)) == set()


def test_a_trial_that_was_resumed_near_its_end_is_not_flat() -> None:
    whole = make_series(lambda step: 0.9 + step / 1e4)
    assert "loss_flat" in names(whole)
    assert names(Series("t", whole.setting, whole.steps, whole.curve, resumed=True)) <= {"plateau"}


def test_a_large_gradient_that_comes_with_learning_is_no_fault() -> None:
    assert "exploding_gradient" not in names(make_series(falling, norm=lambda _: 14.0))


def test_a_trial_without_steps_is_judged_by_its_curve() -> None:
    whole = FAULTS["rising_after_falling"]
    assert "rising_after_falling" in names(Series("t", whole.setting, [], whole.curve))
    assert names(Series("t", Setting(max_steps=60))) == set()


@pytest.mark.parametrize(
    ("best", "trials", "is_found"), [(1.02e-5, 8, True), (9.8e-4, 8, True), (1e-4, 8, False), (1e-5, 3, False)]
)
def test_a_best_rate_at_the_edge_of_the_space_is_named(best: float, trials: int, *, is_found: bool) -> None:
    found = rate_at_edge(best, 1e-5, 1e-3, num_trials=trials)
    assert (found is not None) == is_found
