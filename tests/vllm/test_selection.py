"""Searches that choose by generated replies: with real engines, killed scorers, and constraints that nobody meets."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from builders import prepared
from safetensors.torch import load_file, save_file

from evals.selection.select import Selector, open_selector
from evals.stats.selected import Selection, read_selection
from jobs._results import code_of_search, say_searched
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import GATE_NOT_MET, ConfigError
from orchestrator.core.records import JsonObject
from orchestrator.models.adapters import WEIGHTS, SavedTrial, Told
from orchestrator.run.cluster import cluster_session
from orchestrator.run.paths import RunDir
from orchestrator.search.run import run_search

pytestmark = [pytest.mark.vllm, pytest.mark.ray]

STEPS, RUNG = 110, 60
"""Long enough for whole calls at the rung."""
RATES = [5e-3, 4e-3, 3e-3]


def content(storage: Path, name: str, *, steps: int = 12, rung: int = 6, **search: object) -> JsonObject:
    """Three trials in one engine, and a rung at which two of them are stopped."""
    space = {"r": [8], "alpha": [16], "learning_rate": RATES}
    return {
        "name": name,
        "model": {"base": "tiny"},
        "data": {
            "sources": [{"path": "synthetic", "catalogue": "easy", "limit": 400}],
            "max_length": 512,
            "split": {"val": 0.15, "test": 0.05},
        },
        "train": {
            "max_steps": steps,
            "eval_steps": rung,
            "batch_size": 8,
            "micro_batch_size": 8,
            "warmup_ratio": 0.05,
        },
        "search": {"searcher": "grid", "max_concurrent": 3, "keep": 1, "space": space, **search},
        "eval": {"max_new_tokens": 64},
        "resources": {"storage_path": str(storage), "cpus_per_worker": 2},
    }


def prepared_run(settings: JsonObject) -> tuple[RunConfig, RunDir]:
    config = RunConfig.model_validate(settings)
    return config, prepared(config)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def cluster(storage: Path, joins_cluster: None) -> Iterator[None]:
    with cluster_session(RunConfig.model_validate(content(storage, "any"))):
        yield


def broken(saved: SavedTrial) -> None:
    """Damage an adapter so that its replies are broken, whatever its eval loss was."""
    path = saved.folder / WEIGHTS
    weights = {name: tensor * -3.0 if ".lora_B." in name else tensor for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


class Trap:
    """A selector to which the trial of the lowest eval loss at the first rung comes damaged."""

    def __init__(self, selector: Selector) -> None:
        self._selector, self.trapped = selector, ""
        self.is_set = True

    def behind(self, there: Sequence[SavedTrial]) -> frozenset[str]:
        if self.is_set and not self.trapped:
            best = min(there, key=lambda one: one.eval_loss)
            self.trapped = best.trial
            broken(best)
        return self._selector.behind(there)

    def told(self, trial: str, step: int) -> Told | None:
        return self._selector.told(trial, step)

    def dropped(self, trials: Iterable[str]) -> None:
        self._selector.dropped(trials)

    def kept(self, finalists: Sequence[SavedTrial], *, keep: int) -> list[str]:
        return self._selector.kept(finalists, keep=keep)


def selection_of(run: RunDir) -> Selection:
    found = read_selection(run)
    assert found is not None
    return found


@pytest.mark.slow
def test_the_trial_of_lowest_loss_is_stopped_where_its_calls_are_broken(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evals.selection.select.RUNG_WAIT_S", 600.0)  # a slow machine scores as a fast one does
    config, run = prepared_run(content(storage, "trap", steps=STEPS, rung=RUNG, objective="tool_call_validity"))
    with open_selector(config, run) as selector:
        assert selector is not None
        stated = selection_of(run)
        assert stated.finalists == ()
        trap = Trap(selector)
        records = {record.trial_id: record for record in run_search(config, run, trap)}
    selection = selection_of(run)
    at_rung = {one.trial_id: one for one in selection.rungs if one.step == RUNG}
    assert len(at_rung) == len(RATES)
    assert at_rung[trap.trapped].is_behind
    assert records[trap.trapped].stop_reason == "lagging"
    went_on = [name for name, record in records.items() if record.steps == STEPS]
    assert selection.kept == tuple(went_on)
    assert {name for name, record in records.items() if record.adapter_id} == {
        *went_on,
        *filter(None, [selection.held_against]),
    }
    assert not (run.selection.root / "adapters").exists()
    assert selection.scoring_s > 0


def scorers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::EngineHost" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_scorer_that_is_killed_again_and_again_costs_scores_and_no_trial(storage: Path) -> None:
    config, run = prepared_run(content(storage, "killed", objective="tool_call_accuracy"))
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.1):
            for process in scorers():
                os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    with open_selector(config, run) as selector:
        assert selector is not None

        class Reprieved(Trap):
            def kept(self, finalists: Sequence[SavedTrial], *, keep: int) -> list[str]:
                over.set()
                killer.join()
                return super().kept(finalists, keep=keep)

        killer.start()
        reprieved = Reprieved(selector)
        reprieved.is_set = False
        records = run_search(config, run, reprieved)
    selection = selection_of(run)
    assert selection.rungs == ()
    assert "judged by eval loss" in " ".join(selection.notes)
    assert {record.status for record in records} <= {"completed", "stopped_early"}
    assert len(records) == len(RATES)
    assert len(selection.kept) == 1
    assert all(one.objective is not None for one in selection.finalists)


def test_a_constraint_that_nobody_meets_names_the_nearest_and_ends_with_two(
    storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = {"tool_call_accuracy": {"min": 0.999}, "no_tool_accuracy": {"min": 1.0}}
    config, run = prepared_run(content(storage, "unmet", constraints=bound, scheduler="none"))
    with open_selector(config, run) as selector:
        run_search(config, run, selector)
    say_searched(run)
    assert code_of_search(run) == GATE_NOT_MET
    selection = selection_of(run)
    assert selection.is_met is False
    assert selection.nearest == selection.kept[0]
    assert len(selection.finalists) == len(RATES)
    said = " ".join(capsys.readouterr().out.split())
    assert "No adapter meets search.constraints" in said
    assert f"the nearest is {selection.nearest}" in said
    assert "search.scheduler none has no rung that asks for scores" in said


def test_an_objective_that_no_case_can_show_is_refused_before_anything_trains(storage: Path) -> None:
    config, run = prepared_run(content(storage, "nothing", objective="tool_call_accuracy"))
    kept = [line for line in run.split("val").read_text(encoding="utf-8").splitlines() if '"tool_call"' not in line]
    run.split("val").write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="tool_call_accuracy says nothing about any adapter"):
        open_selector(config, run).__enter__()
