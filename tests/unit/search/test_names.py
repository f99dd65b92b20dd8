from pathlib import Path

import pytest
from ray.tune.experiment import Trial

from orchestrator.search.names import forget_names, give_name, in_order, name_of_folder, number_of, storage_name

HYPERPARAMETERS = {"r": 8, "alpha": 16, "learning_rate": 1e-3}


def stub(tune_id: str) -> Trial:
    return Trial("stub", stub=True, trial_id=tune_id)


def test_trials_are_numbered_in_the_order_in_which_they_are_made(tmp_path: Path) -> None:
    known = tmp_path / "search" / "names.json"
    ids = ["7c3a1_00000", "7c3a1_00001", "a1b2c3d4"]
    assert [give_name(known, stub(each)) for each in ids] == ["trial-1", "trial-2", "trial-3"]
    assert [give_name(known, stub(each)) for each in reversed(ids)] == ["trial-3", "trial-2", "trial-1"]


def test_a_trial_that_was_lost_with_the_driver_is_made_again_under_its_name(tmp_path: Path) -> None:
    known = tmp_path / "names.json"
    forget_names(known, [])
    for each in ("a1b2c3d4", "b2c3d4e5", "lost_with_the_driver"):
        give_name(known, stub(each))
    forget_names(known, ["trial-2", "trial-1"])
    assert give_name(known, stub("d4c3b2a1")) == "trial-3"
    assert number_of("trial-12") == 12


def test_names_sort_by_number() -> None:
    names = [f"trial-{number}" for number in (10, 9, 100, 1)]
    assert sorted(names, key=in_order) == ["trial-1", "trial-9", "trial-10", "trial-100"]


@pytest.mark.parametrize("name", ["trial-1", "trial-12"])
def test_a_trial_is_found_by_its_folders(name: str) -> None:
    assert name_of_folder(name) == name_of_folder(f"{name}_3e54") == name


def test_a_trial_that_gets_the_id_of_a_lost_one_has_its_checkpoints_only_if_it_is_the_same() -> None:
    lost = storage_name("trial-2", HYPERPARAMETERS)
    assert lost == storage_name("trial-2", dict(reversed(HYPERPARAMETERS.items())))
    assert lost != storage_name("trial-2", {**HYPERPARAMETERS, "learning_rate": 2e-3})
    assert lost != storage_name("trial-3", HYPERPARAMETERS)
