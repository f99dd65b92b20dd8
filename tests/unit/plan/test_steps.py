import pytest

from orchestrator.config.schema import TrainConfig
from orchestrator.plan.steps import expected_steps, first_rung, rungs_of


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
    assert expected_steps(trials, 100, rungs, 3, keep) == steps
