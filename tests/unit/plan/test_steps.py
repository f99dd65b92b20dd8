import random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.schema import TrainConfig
from orchestrator.plan.steps import Halving, expected_steps, first_rung, rungs_of
from orchestrator.search.rungs import Rungs


def test_the_steps_of_a_training_are_those_of_its_batches() -> None:
    train = TrainConfig(batch_size=16, micro_batch_size=4, epochs=3.0)
    assert TrainConfig(batch_size=16, micro_batch_size=4, epochs=1.0).steps_for(15_694) == 981
    assert train.steps_for(15_694) == 2_943


def test_rungs_lie_a_factor_apart_and_end_before_the_last_step() -> None:
    assert first_rung(100, 10, 3) == 10
    assert first_rung(100, 10, 12) == 20
    assert rungs_of(100, 10, 3, 3) == (10, 30)


@pytest.mark.parametrize(
    ("trials", "rungs", "keep", "steps"),
    [
        (9, (10, 30), 1, 9 * 10 + 3 * 20 + 1 * 70),
        (9, (10, 30), 2, 9 * 10 + 3 * 20 + 2 * 70),
        (2, (10, 30), 2, 2 * 100),
        (8, (), 2, 8 * 100),
    ],
)
def test_early_stopping_leaves_one_trial_in_a_factor_at_each_rung(
    trials: int, rungs: tuple[int, ...], keep: int, steps: int
) -> None:
    assert expected_steps(trials, 100, Halving(rungs, 3, keep), group=trials) == steps


@settings(deadline=None, max_examples=25)
@given(trials=st.integers(6, 20), group=st.integers(1, 9), keep=st.integers(1, 2), factor=st.integers(2, 4))
def test_expected_steps_are_those_of_searches_whose_trials_rank_by_chance(
    trials: int, group: int, keep: int, factor: int
) -> None:
    halving, drawn = Halving((10, 30), factor, keep), random.Random(0)

    def steps_of_a_search() -> int:
        losses = {number: drawn.random() for number in range(1, trials + 1)}
        its = Rungs(halving.rungs, reduction_factor=factor, group=group, num_trials=trials, keep=keep)
        ends = dict.fromkeys(losses, 100)
        for rung in halving.rungs:
            for number in (number for number, end in ends.items() if end == 100):
                its.hear(number, [(rung, losses[number])])
            for verdict in its.decide():
                if not verdict.goes_on:
                    ends[verdict.number] = verdict.rung
                    its.ended(verdict.number, verdict.rung)
        return sum(ends.values())

    seen = mean(steps_of_a_search() for _ in range(200))
    assert expected_steps(trials, 100, halving, group=group) == pytest.approx(seen, rel=0.25)


def test_a_search_that_improves_trains_longer() -> None:
    by_chance, improving = (
        expected_steps(12, 200, Halving((20, 60), 3, 2), group=8, is_improving=improves) for improves in (False, True)
    )
    assert by_chance < improving < 12 * 200
