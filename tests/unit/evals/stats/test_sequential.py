"""Error rates and power on simulated logs that are looked at again and again. Seeds are fixed, so nothing flickers."""

import numpy as np
import pytest

from evals.stats.comparison import LEVEL, POWER
from evals.stats.sequential import (
    MIN_UNITS,
    SHARE_ON_AVERAGE,
    Arms,
    Bounds,
    _tightest,
    bound,
    cases_to_rule_out,
    cases_to_show,
    cases_wanted,
    difference_bounds,
    harm_shown,
    reach_to_show,
    split_is_off,
)

LOGS, CASES = 200, 800


def live_log(
    rng: np.random.Generator, old: float, new: float, num_cases: int, *, per_user: int = 1, by_request: bool = False
) -> Arms:
    """A log of a 50/50 split. Users of several cases differ: their shares are of a beta distribution (ICC 1/3)."""
    users = np.arange(num_cases) // per_user
    is_new = rng.random(num_cases) < 0.5
    if not by_request:
        is_new = is_new[users * per_user]
    share = np.where(is_new, new, old)
    if per_user > 1:
        share = rng.beta(2 * share, 2 * (1 - share))[users * per_user]
    return Arms((rng.random(num_cases) < share).astype(np.float64), is_new, users)


def looked_at(arms: Arms, every: int, target: float, level: float = LEVEL) -> list[Bounds]:
    """What each look finds, from the first cases to the last."""
    ends = range(every, len(arms.values) + 1, every)
    parts = (Arms(arms.values[:end], arms.is_new[:end], arms.units[:end]) for end in ends)
    return [difference_bounds(part, target=target, is_share=True, level=level) for part in parts]


def misses(found: list[Bounds], truth: float) -> bool:
    return any(one.low is not None and one.high is not None and not one.low <= truth <= one.high for one in found)


@pytest.mark.parametrize(
    ("share", "target", "more"),
    [
        (0.5, 0.3, {}),
        (0.5, 0.05, {}),
        (0.9, 0.1, {}),
        (0.987, 0.02, {}),
        (1.0, 0.02, {}),
        (0.8, 0.2, {"per_user": 8}),
        (0.8, 0.2, {"per_user": 8, "by_request": True}),
    ],
)
def test_arms_that_do_not_differ_are_seldom_told_apart_however_often_one_looks(
    share: float, target: float, more: dict[str, int]
) -> None:
    rng = np.random.default_rng(7)
    logs = (live_log(rng, share, share, CASES, **more) for _ in range(LOGS))  # type: ignore[arg-type]  # as named
    wrong = sum(misses(looked_at(log, 20, target), 0.0) for log in logs)
    assert wrong <= LEVEL * LOGS


def test_looking_on_with_an_ordinary_test_would_be_wrong_far_more_often() -> None:
    """The simulation can fail: the interval of one look, held against the same logs."""
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(LOGS):
        found = looked_at(live_log(rng, 0.5, 0.5, CASES), 20, 0.1)
        wrong += any(
            abs(one.new - one.old) > 1.96 * one.variance**0.5
            for one in found
            if one.variance is not None and one.new is not None and one.old is not None
        )
    assert wrong > 3 * LEVEL * LOGS


def test_users_with_many_cases_taken_for_independent_would_be_wrong_far_more_often() -> None:
    rng, wrong = np.random.default_rng(7), 0
    for _ in range(LOGS):
        log = live_log(rng, 0.8, 0.8, CASES, per_user=8)
        wrong += misses(looked_at(log._replace(units=np.arange(CASES)), 20, 0.2), 0.0)
    assert wrong > 2 * LEVEL * LOGS


@pytest.mark.parametrize(("old", "new"), [(0.6, 0.7), (0.95, 0.9), (0.06, 0.3)])
def test_the_planned_cases_show_the_planned_difference_as_often_as_planned(old: float, new: float) -> None:
    needs, rng = cases_to_show(old, new), np.random.default_rng(3)
    at_end, shown, used, wrong = 0, 0, 0, 0
    for _ in range(LOGS):
        found = looked_at(live_log(rng, old, new, needs.at_most), max(4, needs.at_most // 50), abs(new - old))
        ends = [one for one in found if one.low is not None and one.high is not None and not one.low <= 0 <= one.high]
        shown += bool(ends)
        at_end += bool(ends) and ends[-1] is found[-1]
        used += ends[0].n_old + ends[0].n_new if ends else needs.at_most
        wrong += bool(ends) and ((ends[0].low or 0.0) > 0) != (new > old)
    assert at_end / LOGS == pytest.approx(POWER, abs=0.07)  # who looks once
    assert POWER <= shown / LOGS < 0.95  # who looks 50 times
    assert used / LOGS == pytest.approx(needs.on_average, rel=0.15)
    assert wrong <= 0.01 * LOGS
    assert needs.one_look < needs.at_most < 2.1 * needs.one_look


def test_the_drift_that_plans_are_made_with_is_that_of_a_brownian_motion() -> None:
    rng, steps, paths = np.random.default_rng(0), 1500, 3000
    moment = np.arange(1, steps + 1) / steps
    noise = np.cumsum(rng.standard_normal((paths, steps)), axis=1) / np.sqrt(steps)
    limits = np.array([bound(_tightest() * one) for one in moment]) * np.sqrt(moment)
    over = np.abs(noise + reach_to_show() * moment) > limits
    assert over[:, -1].mean() == pytest.approx(POWER, abs=0.02)
    assert over.any(axis=1).mean() == pytest.approx(0.876, abs=0.02)
    when = np.where(over.any(axis=1), moment[over.argmax(axis=1)], 1.0)
    assert when.mean() == pytest.approx(SHARE_ON_AVERAGE, abs=0.02)
    assert (np.abs(noise) > limits).any(axis=1).mean() < LEVEL


def test_the_bound_is_narrowest_where_it_is_said_to_be() -> None:
    widths = {scale: bound(_tightest() * scale) / (scale * 1.0) ** 0.5 for scale in (0.25, 0.5, 1.0, 2.0)}
    beside = {scale: bound(_tightest() * scale) for scale in (0.5, 1.0, 2.0)}
    assert min(beside, key=lambda scale: beside[scale]) == 1.0
    assert widths[2.0] < widths[1.0] < widths[0.5]


def test_so_many_cases_rule_out_a_difference_that_matters() -> None:
    num_cases, rng, within = cases_to_rule_out(0.9, 0.05), np.random.default_rng(5), 0
    for _ in range(150):
        (found,) = looked_at(live_log(rng, 0.9, 0.9, num_cases), num_cases, 0.05)
        within += found.low is not None and found.high is not None and found.low > -0.05 and found.high < 0.05
    assert within / 150 == pytest.approx(POWER, abs=0.08)


def test_a_harm_as_large_as_told_is_seen_as_often_as_told() -> None:
    level, num_cases, rng, seen = LEVEL / 4, 3000, np.random.default_rng(5), 0
    harm = harm_shown(0.5, num_cases, level=level)
    for _ in range(150):
        found = looked_at(live_log(rng, 0.5, 0.5 + harm, num_cases), num_cases, harm, level)[-1]
        seen += found.low is not None and found.low > 0
    assert seen / 150 == pytest.approx(POWER, abs=0.1)


def test_the_order_of_arrival_changes_nothing() -> None:
    log = live_log(np.random.default_rng(1), 0.7, 0.8, 400, per_user=3)
    order = np.random.default_rng(2).permutation(400)
    mixed = Arms(log.values[order], log.is_new[order], log.units[order])
    one, other = (difference_bounds(arms, target=0.1, is_share=True) for arms in (log, mixed))
    assert one == pytest.approx(other)


def test_of_few_users_nothing_is_said() -> None:
    many_cases_of_few = live_log(np.random.default_rng(1), 0.1, 0.9, 2000, per_user=50)
    found = difference_bounds(many_cases_of_few, target=0.1, is_share=True)
    assert len(np.unique(many_cases_of_few.units)) < 2 * MIN_UNITS
    assert (found.low, found.high) == (None, None)
    assert found.new is not None
    assert found.old is not None
    one_arm = many_cases_of_few._replace(is_new=np.ones(2000, dtype=bool))
    assert difference_bounds(one_arm, target=0.1, is_share=True) == Bounds(0, 2000)


def test_values_that_are_all_alike_bound_nothing_but_shares_that_are() -> None:
    arms = Arms(np.ones(200), np.arange(200) % 2 == 0, np.arange(200))
    assert difference_bounds(arms, target=0.1, is_share=False).low is None
    share = difference_bounds(arms, target=0.1, is_share=True)
    assert share.low is not None
    assert -0.2 < share.low < 0


def test_what_is_left_shrinks_as_cases_come() -> None:
    log = live_log(np.random.default_rng(1), 0.7, 0.7, 4000)
    left = [cases_wanted(one, 0.05, 0.05) for one in looked_at(log, 1000, 0.05)]
    assert all(one is not None for one in left)
    assert left == sorted(left, reverse=True)  # type: ignore[type-var]  # none is None
    assert cases_wanted(Bounds(3, 4, 0.5, 0.5), 0.05, 0.05) is None


def test_a_split_is_called_off_when_it_is_and_hardly_ever_otherwise() -> None:
    rng, wrong = np.random.default_rng(4), 0
    for _ in range(LOGS):
        new = np.cumsum(rng.random(2000) < 0.5)
        wrong += any(split_is_off(int(end - new[end - 1]), int(new[end - 1])) for end in range(1, 2001, 5))
    assert wrong <= 0.01 * LOGS
    assert split_is_off(1000, 800)
    assert not split_is_off(1000, 950)
    assert not split_is_off(0, 0)


def test_equal_shares_have_no_plan() -> None:
    with pytest.raises(ValueError, match="never differ"):
        cases_to_show(0.5, 0.5)
