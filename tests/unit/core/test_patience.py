import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.patience import DIVERGED_LOSS, Decision, decide

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


def test_the_loss_of_a_diverged_trial_is_finite_and_worse_than_any_real_one() -> None:
    assert math.isfinite(DIVERGED_LOSS)
    assert DIVERGED_LOSS > 1e6
