import pytest

from orchestrator.search.names import name_of_folder, name_of_storage, storage_name, trial_name, tune_id

HYPERPARAMETERS = {"r": 8, "alpha": 16, "learning_rate": 1e-3}


@pytest.mark.parametrize(("tune", "name"), [("7c3a1_00002", "7c3a1-00002"), ("a1b2c3d4", "a1b2c3d4")])
def test_a_trial_is_named_after_tunes_id(tune: str, name: str) -> None:
    assert trial_name(tune) == name
    assert tune_id(name) == tune
    assert name_of_folder(name) == name_of_folder(f"{name}_3e54") == name
    assert name_of_storage(storage_name(name, HYPERPARAMETERS)) == name


def test_a_trial_that_gets_the_id_of_a_lost_one_has_its_checkpoints_only_if_it_is_the_same() -> None:
    lost = storage_name("7c3a1-00002", HYPERPARAMETERS)
    assert lost == storage_name("7c3a1-00002", dict(reversed(HYPERPARAMETERS.items())))
    assert lost != storage_name("7c3a1-00002", {**HYPERPARAMETERS, "learning_rate": 2e-3})
    assert lost != storage_name("7c3a1-00003", HYPERPARAMETERS)
