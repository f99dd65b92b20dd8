import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.records import DIVERGED_LOSS, StopReason, reason_to_stop

LOSSES = st.lists(st.floats(0, 100), min_size=1, max_size=12)
PATIENCE = st.integers(1, 6)


@pytest.mark.parametrize(
    ("losses", "patience", "reason"),
    [
        ([1.0], 1, None),
        ([1.0, 0.9, 0.8], 1, None),
        ([1.0, 1.1], 1, "no_improvement"),
        ([1.0, 1.0], 1, "no_improvement"),
        ([1.0, 1.1], 2, None),
        ([1.0, 1.1, 1.2], 2, "no_improvement"),
        ([1.0, 1.1, 0.9], 2, None),
        ([1.0, 5.0, 9.0], None, None),
        ([math.nan], None, "diverged"),
        ([1.0, math.inf], 3, "diverged"),
    ],
)
def test_the_reason_to_stop(losses: list[float], patience: int | None, reason: StopReason | None) -> None:
    assert reason_to_stop(losses, patience) == reason


@given(LOSSES)
def test_without_patience_a_finite_loss_never_stops(losses: list[float]) -> None:
    assert reason_to_stop(losses, None) is None


@given(LOSSES, st.none() | PATIENCE, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_loss_that_is_not_finite_always_ends_it(losses: list[float], patience: int | None, last: float) -> None:
    assert reason_to_stop([*losses, last], patience) == "diverged"


@given(LOSSES, PATIENCE)
def test_a_new_best_always_goes_on(losses: list[float], patience: int) -> None:
    assert reason_to_stop([*losses, min(losses) - 1], patience) is None


@given(LOSSES, PATIENCE)
def test_it_stops_after_just_that_many_evaluations_without_a_better_one(losses: list[float], patience: int) -> None:
    best = [*losses, min(losses) - 1]
    reasons = [reason_to_stop([*best, *[min(losses)] * more], patience) for more in range(1, patience + 1)]
    assert reasons == [None] * (patience - 1) + ["no_improvement"]


@given(LOSSES, PATIENCE)
def test_more_patience_never_stops_earlier(losses: list[float], patience: int) -> None:
    if reason_to_stop(losses, patience) is None:
        assert reason_to_stop(losses, patience + 1) is None


@given(LOSSES, PATIENCE, st.floats(0.5, 4))
def test_the_reason_to_stop_does_not_depend_on_the_unit_of_the_loss(
    losses: list[float], patience: int, unit: float
) -> None:
    ranks = [float(sorted(set(losses)).index(loss)) for loss in losses]
    assert reason_to_stop([rank * unit for rank in ranks], patience) == reason_to_stop(losses, patience)


def test_the_loss_of_a_diverged_trial_is_finite_and_worse_than_any_real_one() -> None:
    assert math.isfinite(DIVERGED_LOSS)
    assert DIVERGED_LOSS > 1e6
