"""What a search knows of earlier runs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.config.schema import RangeConfig, RunConfig, SearchConfig
from orchestrator.core.errors import InputError
from orchestrator.core.files import dump_jsonl
from orchestrator.core.records import EvalPoint, JsonObject, TrialRecord
from orchestrator.run.paths import RunDir
from orchestrator.search.proposals import beside, point
from orchestrator.search.samplers import Dimensions, Result
from orchestrator.search.space import BaseShape, resolve_space
from orchestrator.search.warm_start import comparable, earlier_results, shares

SPACE: Dimensions = {"r": (8, 16), "alpha": (16,), "learning_rate": RangeConfig(min=1e-4, max=1e-2), "dropout": (0.0, 0.1)}  # fmt: skip  # noqa: E501


def trial(number: int, losses: Sequence[float], rate: float = 1e-3, **more: object) -> TrialRecord:
    curve = tuple(EvalPoint(step=5 * (at + 1), eval_loss=loss) for at, loss in enumerate(losses))
    content: JsonObject = {"status": "completed", "hyperparameters": {"r": 8, "alpha": 16, "learning_rate": rate}}
    best = {"best_eval_loss": min(losses)} if losses else {}
    return TrialRecord.model_validate({"trial_id": f"trial-{number}", **content, "curve": curve, **best, **more})


def written(folder: Path, trials: Sequence[TrialRecord], **settings: object) -> RunDir:
    run = RunDir(folder)
    folder.mkdir(parents=True)
    run.config.write_text(RunConfig.model_validate({"model": {"base": "tiny"}, **settings}).model_dump_json())
    if trials:
        run.trials.write_text(dump_jsonl(trials))
    return run


def config(*names: str) -> RunConfig:
    return RunConfig.model_validate({"model": {"base": "tiny"}, "search": {"warm_start": names}})


def test_trials_are_compared_at_the_last_step_that_all_reached_and_by_order_alone() -> None:
    diverged = trial(3, [], status="diverged", steps=5)
    losses = comparable([trial(1, [3.0, 2.0, 1.0]), trial(2, [2.5, 2.2]), diverged, trial(4, [2.0, 1.0])])
    assert losses == {"trial-1": 2.0, "trial-2": 2.2, "trial-4": 1.0, "trial-3": 1e9}
    assert shares(losses) == {"trial-4": 0.0, "trial-1": pytest.approx(1 / 3), "trial-2": pytest.approx(2 / 3), "trial-3": 1.0}  # fmt: skip  # noqa: E501
    assert shares({"trial-1": 2.0}) == {"trial-1": 0.0}
    assert comparable([diverged]) == {}


def test_results_in_the_space_are_known_and_stay_as_they_were_first_read(tmp_path: Path) -> None:
    old = written(tmp_path / "old", [trial(1, [2.0]), trial(2, [1.0], 5e-3), trial(3, [1.5], 0.5)])
    written(tmp_path / "older", [trial(1, [7.0])], lora={"dropout": 0.1})
    run, storage = RunDir(tmp_path / "new"), tmp_path / "new" / "ray"
    found = earlier_results(config("old", str(tmp_path / "older")), run, storage, SPACE)
    assert list(found) == [0, -1, -2]
    assert [its.values for its in found.values()] == [(1.0,), (0.0,), (0.0,)]
    assert [its.point["dropout"] for its in found.values()] == [0.0, 0.0, 0.1]
    old.trials.unlink()
    assert earlier_results(config("old", "older"), run, storage, SPACE) == found
    assert earlier_results(config(), run, storage, SPACE) == {}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone", "no run is in the folder 'gone'"),
        ("other", "'other' trained on a/b, and this run trains on tiny"),
        ("empty", "'empty' has no trial with an eval loss"),
    ],
)
def test_runs_that_tell_nothing_are_refused_by_name(tmp_path: Path, name: str, what: str) -> None:
    written(tmp_path / "other", [trial(1, [2.0])], model={"base": "a/b"})
    written(tmp_path / "empty", [])
    with pytest.raises(InputError, match=what) as refused:
        earlier_results(config(name), RunDir(tmp_path / "new"), tmp_path / "ray", SPACE)
    assert refused.value.where == "search.warm_start"


def test_what_is_known_from_the_beginning_draws_the_first_points_towards_it() -> None:
    search = SearchConfig.model_validate({"warm_start": ["old"]})
    space = resolve_space(search.space, BaseShape(1024, "qwen3"), 8)
    rates = space.learning_rate
    assert isinstance(rates, RangeConfig)
    high = [rates.max * 0.98**number for number in range(30)]
    old = {
        -number: Result({"r": 16, "alpha": 16, "learning_rate": rate}, (0.0 if number < 8 else 1.0,))
        for number, rate in enumerate(high)
    }
    warm = sorted(point(search, space, number, beside(old, {}))["learning_rate"] for number in range(3, 9))
    cold = sorted(point(search, space, number, {})["learning_rate"] for number in range(3, 9))
    assert warm[3] > cold[3]
    own = beside(old, {1: Result({"r": 8}, (0.4,)), 2: Result({"r": 8}, (0.2,)), 3: Result({"r": 8}, ())})
    assert [own[number].values for number in (1, 2, 3)] == [(1.0,), (0.0,), ()]
    assert beside({}, {1: Result({}, (0.4,))})[1].values == (0.4,)
