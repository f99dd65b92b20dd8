"""Searches over what an engine's trials share and what they do not, and searches with a budget."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config.schema import RunConfig
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.multi_lora.messages import EngineUse
from orchestrator.run.cluster import cluster_session
from orchestrator.run.folder import open_run
from orchestrator.run.paths import RunDir
from orchestrator.run.spent import BudgetRecord
from orchestrator.search.run import run_search

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, joins_cluster: None) -> Iterator[Path]:
    """A folder of runs, while a cluster runs."""
    folder = tmp_path_factory.mktemp("runs")
    with cluster_session(RunConfig.model_validate(of_cohorts(folder, 8))):
        yield folder


def of_cohorts(storage: Path, num_trials: int) -> JsonObject:
    """Batches of 2 and 4 in turns, each with trainings of two lengths, with and without dropout."""
    space = {"r": [8], "alpha": [16], "learning_rate": [5e-3], "dropout": [0.0, 0.1], "epochs": [0.2, 0.4]}
    search = {"searcher": "grid", "scheduler": "none", "max_concurrent": 2, "keep": 1, "num_trials": num_trials}
    return {
        "name": "cohorts",
        "model": {"base": "tiny", "dtype": "float32"},
        "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 80}], "max_length": 512},
        "train": {"batch_size": 2, "micro_batch_size": 2},
        "search": {**search, "space": {**space, "batch_size": [2, 4]}},
        "resources": {"storage_path": str(storage), "cpus_per_worker": 2},
    }


def searched(settings: JsonObject) -> tuple[list[TrialRecord], RunDir]:
    config = RunConfig.model_validate(settings)
    run = open_run(config)
    prepare_data(config, run, base_dir=Path.cwd())
    return run_search(config, run), run


def test_cohorts_take_turns_each_on_an_engine_of_its_own(storage: Path) -> None:
    partly, _ = searched(of_cohorts(storage, num_trials=3))
    assert {record.hyperparameters["batch_size"] for record in partly} == {2}
    records, run = searched(of_cohorts(storage, num_trials=8))
    curves = {record.trial_id: record.curve for record in records}
    assert all(curves[record.trial_id] == record.curve for record in partly), "none is trained again"
    chosen = {record.trial_id: record.hyperparameters for record in records}
    assert [chosen[f"trial-{number}"]["batch_size"] for number in range(1, 9)] == [2] * 4 + [4] * 4
    steps = {(its.hyperparameters["batch_size"], its.hyperparameters["epochs"]): its.steps for its in records}
    assert steps[2, 0.4] == pytest.approx(2 * (steps[4, 0.4] or 0), abs=1)
    assert steps[2, 0.4] == pytest.approx(2 * (steps[2, 0.2] or 0), abs=1)
    assert all(record.stop_reason == "finished" for record in records)
    losses = {str(its.hyperparameters): its.best_eval_loss for its in records}
    assert len(set(losses.values())) == 8, "each setting changes what is learned"
    uses = [
        EngineUse.model_validate_json(path.read_text()) for path in run.ray.glob("search-*/trials/engine-*-use.json")
    ]
    assert len(uses) == 2
    assert [record.trial_id for record in records if record.adapter_id] == [records[0].trial_id]


def test_a_budget_is_spent_in_rounds_and_its_clock_stops_what_is_late(storage: Path) -> None:
    settings = of_cohorts(storage, 8)
    space = {"r": [8], "alpha": [16], "learning_rate": {"min": 1e-3, "max": 1e-2}}
    budget = {"budget": {"device_hours": 1e-4}, "searcher": "optuna", "scheduler": "halving", "space": space}
    settings |= {"name": "budget", "search": {**settings["search"], **budget}}
    settings["train"] |= {"max_steps": 200, "eval_steps": 4}
    records, run = searched(settings)
    spent = BudgetRecord.model_validate_json(run.budget.read_text())
    assert len(records) == 8
    assert spent.ended == "spent"
    assert set(spent.stopped) <= {record.trial_id for record in records if record.stop_reason == "lagging"}
    assert spent.stopped
    assert all(record.curve for record in records)
    assert max(record.steps or 0 for record in records) < 200
    assert spent.spent_s == pytest.approx(sum(record.device_s or 0 for record in records), abs=0.01)
    settings["search"]["budget"] = {"device_hours": 1.5 * spent.spent_s / 3600}
    further, _ = searched(settings)
    assert 8 < len(further) <= 16
    curves = {record.trial_id: record.curve for record in further}
    assert all(curves[record.trial_id] == record.curve for record in records)
