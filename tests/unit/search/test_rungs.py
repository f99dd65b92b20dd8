import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.rungs import Rungs, Verdict, survivors

FIRST, SECOND = 6, 18

losses = st.floats() | st.integers(0, 3).map(float)  # also NaN, infinity and ties
groups = st.lists(losses, min_size=1, max_size=9)
factors = st.integers(2, 5)


def rungs_of(num_trials: int, *, group: int = 8, factor: int = 3, keep: int = 1) -> Rungs:
    return Rungs((FIRST, SECOND), reduction_factor=factor, group=group, num_trials=num_trials, keep=keep)


def decided(rungs: Rungs, found: dict[int, float], step: int = FIRST) -> dict[int, bool]:
    """What is decided at a rung when these losses are heard there."""
    for number, loss in found.items():
        rungs.hear(number, [(step, loss)])
    return {number: goes_on for number, rung, goes_on in rungs.decide() if rung == step}


def numbered(its: list[float]) -> dict[int, float]:
    return dict(enumerate(its, 1))


@given(groups, factors)
def test_of_a_group_the_best_share_rounded_up_goes_on(its: list[float], factor: int) -> None:
    found = numbered(its)
    told = decided(rungs_of(len(its), group=len(its), factor=factor), found)
    on = {number for number, goes_on in told.items() if goes_on}
    finite = {number for number, loss in found.items() if math.isfinite(loss)}
    assert told.keys() == found.keys()
    assert len(on) == min(math.ceil(len(its) / factor), len(finite))
    assert all(found[kept] <= found[stopped] for kept in on for stopped in finite - on)
    assert on == survivors(found, factor)


@given(st.data(), st.lists(losses, min_size=1, max_size=20), factors, st.integers(1, 9), st.integers(1, 3))
def test_the_order_in_which_trials_come_changes_no_verdict(
    data: st.DataObject, its: list[float], factor: int, group: int, keep: int
) -> None:
    def verdicts(order: list[int]) -> set[Verdict]:
        rungs = rungs_of(len(its), group=group, factor=factor, keep=keep)
        told: set[Verdict] = set()
        for number in order:
            rungs.hear(number, [(FIRST, its[number - 1])])
            told |= set(rungs.decide())
        return told

    in_order = list(range(1, len(its) + 1))
    assert len(verdicts(in_order)) == len(its)
    assert verdicts(data.draw(st.permutations(in_order))) == verdicts(in_order)


def test_a_group_waits_for_each_of_its_trials_and_for_the_groups_before_it() -> None:
    rungs = rungs_of(4, group=2)
    assert decided(rungs, {4: 0.1, 3: 0.2, 1: 1.0}) == {}
    assert [rungs.is_held(number) for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert decided(rungs, {2: 2.0}) == {1: True, 2: False, 3: True, 4: True}
    assert not any(rungs.is_held(number) for number in (1, 2, 3, 4))
    assert decided(rungs, {4: 0.1, 3: 0.3}, SECOND) == {}
    assert decided(rungs, {1: 0.2}, SECOND) == {1: True, 3: False, 4: True}  # 2 was stopped, and is not waited for


def test_nobody_waits_for_a_trial_that_ended_until_it_begins_again() -> None:
    rungs = rungs_of(2)
    rungs.ended(1, 0)
    assert decided(rungs, {2: 1.0}) == {2: True}
    rungs.begins_again(1)
    assert decided(rungs, {1: 2.0}) == {1: False}


def test_alone_each_is_held_against_those_with_lower_numbers() -> None:
    assert decided(rungs_of(4, group=1), numbered([1, 2, 3, 0.5])) == {1: True, 2: False, 3: False, 4: True}


def test_at_least_as_many_go_on_as_the_search_keeps() -> None:
    rungs = rungs_of(9, group=3, keep=2)
    assert decided(rungs, {1: 1.0, 2: 2.0, 3: 3.0}) == {1: True, 2: False, 3: False}  # others may be better
    assert decided(rungs, {4: 4.0, 5: 5.0, 6: 6.0, 7: 7.0, 8: 8.0, 9: 9.0}) == {
        4: False, 5: False, 6: False, 7: True, 8: False, 9: False,
    }  # fmt: skip
    assert decided(rungs, {1: 1.0, 7: 7.0}, SECOND) == {1: True, 7: True}


def test_one_that_ended_at_a_rung_is_none_of_those_that_are_kept() -> None:
    rungs = rungs_of(2, group=2, keep=1)
    rungs.ended(1, FIRST)
    assert decided(rungs, {1: 1.0, 2: 2.0}) == {1: True, 2: True}


@given(st.lists(losses, min_size=2, max_size=20), st.integers(1, 9), st.integers(1, 20))
def test_what_is_read_back_gives_the_same_verdicts(its: list[float], group: int, until: int) -> None:
    """After the death of the process that heard the first few; those that had gone on have trained further."""
    whole = rungs_of(len(its), group=group)
    wanted = decided(whole, numbered(its))
    first, again = rungs_of(len(its), group=group), rungs_of(len(its), group=group)
    told = decided(first, dict(list(numbered(its).items())[:until]))
    for number, loss in numbered(its).items():
        again.hear(number, [(FIRST, loss)])
        if told.get(number):
            again.has_passed(number, FIRST + 1)
    assert {number: goes_on for number, _, goes_on in again.decide()} | {
        number: True for number, goes_on in told.items() if goes_on
    } == wanted


def test_equal_losses_are_told_apart_by_number() -> None:
    assert survivors({2: 1.0, 3: 1.0, 1: 1.0, 4: 2.0}, 2) == {1, 2}


def test_what_was_heard_first_stands_and_other_steps_do_not_matter() -> None:
    rungs = rungs_of(2)
    rungs.hear(1, [(FIRST, 1.0), (7, 0.0)])
    rungs.hear(1, [(FIRST, 9.0)])
    assert decided(rungs, {2: 2.0}) == {1: True, 2: False}
    assert rungs.counts() == [(FIRST, 1, 2), (SECOND, 0, 0)]
