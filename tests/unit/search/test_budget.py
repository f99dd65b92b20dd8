"""What a budget buys, and when a search ends before it is spent."""

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.config.schema import RangeConfig, RunConfig
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.run.paths import RunDir
from orchestrator.run.spent import Round
from orchestrator.search.budget import NOISE, Account, Clock, expected_gain
from orchestrator.search.samplers import Dimensions, Result, by_chance

SPACE: Dimensions = {"r": (8, 16), "alpha": (16,), "learning_rate": RangeConfig(min=1e-4, max=1e-2)}


def trials(count: int, device_s: float = 100.0, **more: object) -> list[TrialRecord]:
    content: JsonObject = {"status": "completed", "hyperparameters": {"r": 8}, "curve": (), "device_s": device_s}
    return [TrialRecord.model_validate({"trial_id": f"trial-{n}", **content, **more}) for n in range(1, count + 1)]


def account(root: Path, budget: JsonObject, **more: object) -> Account:
    root.mkdir(exist_ok=True)
    return Account(RunConfig.model_validate({"search": {"budget": budget}, **more}), RunDir(root))


def test_rounds_are_of_eight_until_the_rest_buys_fewer(tmp_path: Path) -> None:
    hours = account(tmp_path, {"device_hours": 0.5})  # 1,800 s, 18 such trials
    assert [hours.next_round(trials(count)) for count in (0, 8, 16, 17, 18, 19)] == [8, 8, 2, 1, 0, 0]
    assert hours.next_round(trials(8, device_s=0.0)) == 8


def test_what_was_spent_by_the_clock_is_known_to_the_next_process(tmp_path: Path) -> None:
    budget = {"wall": 1.0}
    account(tmp_path, budget).close_round(Round(first=1, last=8, wall_s=2400.0), Clock(), trials(8))
    later = account(tmp_path, budget)
    assert later.left_s(trials(8)) == pytest.approx(1200.0)
    assert later.next_round(trials(8)) == 4
    later.close_round(Round(first=9, last=12, wall_s=1300.0), Clock(), trials(12))
    assert later.next_round(trials(12)) == 0
    assert account(tmp_path, {"wall": 2.0}).next_round(trials(12)) == 4  # of this turn; it was given more


def test_cost_is_time_at_a_price(tmp_path: Path) -> None:
    priced = account(tmp_path, {"cost": 3.0}, resources={"price_per_hour": 2.0})
    assert priced.record.limit_s == 5400.0


def test_the_clock_stops_who_reports_after_it_and_says_so(tmp_path: Path) -> None:
    assert not Clock(60.0).stops("trial-1")
    over = Clock(-1.0)
    assert over.stops("trial-1")
    assert over.stops("trial-3")
    its = account(tmp_path, {"device_hours": 0.1})
    lagging, finished = trials(2, stop_reason="lagging"), trials(3, stop_reason="finished")[2:]
    its.close_round(Round(first=1, last=3, wall_s=9.0), over, [*lagging, *finished])
    assert its.record.stopped == ("trial-1",), "one that ended by itself was not stopped"
    its.end(trials(3), "spent", "As much again would buy about 3 trials more.")
    assert its.record.text == (
        "The search spent 5 min 00 s of 6 min 00 s (time of devices). The rest buys no other trial. The clock stopped "
        "trial-1 before the end. As much again would buy about 3 trials more."
    )


def known(count: int, height: float) -> dict[int, Result]:
    """Losses of a bowl of this height around a rate of 1e-3."""
    points = [by_chance(SPACE, str(number)) for number in range(count)]
    losses = [1.0 + height * math.log10(its["learning_rate"] / 1e-3) ** 2 for its in points]
    return {number: Result(its, (loss,)) for number, (its, loss) in enumerate(zip(points, losses, strict=True), 1)}


def test_a_search_ends_where_another_trial_is_not_expected_to_help(tmp_path: Path) -> None:
    its = account(tmp_path, {"device_hours": 1.0})
    assert its.gains(SPACE, known(15, 1e-9)), "too few to tell"
    assert not its.gains(SPACE, known(24, 1e-9))
    assert its.record.bound is not None
    assert its.record.bound < NOISE
    its.end(trials(24), "no gain", "")
    assert "another trial is expected to lower the eval loss at the first rung by" in its.record.text
    assert its.gains(SPACE, known(24, 5.0))
    assert expected_gain(SPACE, known(24, 5.0)) == expected_gain(SPACE, known(24, 5.0))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"search": {"budget": {}}}, "a budget is one of device_hours, cost and wall"),
        ({"search": {"budget": {"wall": 1, "cost": 1}}}, "a budget is one of device_hours, cost and wall"),
        ({"search": {"budget": {"cost": 1}}}, "search.budget.cost needs resources.price_per_hour"),
        (
            {"search": {"budget": {"wall": 1}, "searcher": "grid", "space": {"learning_rate": [1e-3]}}},
            "searcher 'grid' trains every combination: leave budget out",
        ),
    ],
)
def test_budgets_that_bound_nothing_are_refused(content: JsonObject, what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        RunConfig.model_validate(content)
