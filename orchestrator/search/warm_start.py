"""What earlier runs on the same base found, as results that a search knows from its beginning.

Their data and steps may be other ones, so only the order within each run counts: losses become shares of the run's
trials that are better. They are copied once, so that a search that is resumed proposes what it would have.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import ConfigError, InputError
from orchestrator.core.files import read_jsonl, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import DIVERGED_LOSS, JsonObject, TrialRecord
from orchestrator.core.text import counted
from orchestrator.run.other import find_other_run
from orchestrator.run.paths import RunDir
from orchestrator.search.parts import losses_of
from orchestrator.search.samplers import Dimensions, Result, Results, holds

WHERE = "search.warm_start"
COPY = "warm-start.json"
"""In a search's storage: points and shares, in the order of the configuration."""


def earlier_results(config: RunConfig, run: RunDir, storage: Path, dimensions: Dimensions) -> Results:
    """The earlier runs' results that lie in the space, under numbers below 1.

    Raises:
        InputError: If one of them is not there, has no trials, or trained on another base.
    """
    if not config.search.warm_start:
        return {}
    path = storage / COPY
    if not path.is_file():
        made = [pair for name in config.search.warm_start for pair in _results_of(name, config.model, run)]
        inside = sum(holds(dimensions, point) for point, _ in made)
        runs = counted(len(config.search.warm_start), "earlier run")
        say(f"Of {counted(len(made), 'trial')} of {runs} the search knows {inside}, which lie in its space.")
        storage.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(made) + "\n")
    found = json.loads(path.read_text(encoding="utf-8"))
    points = [({name: point[name] for name in dimensions}, share) for point, share in found if holds(dimensions, point)]
    return {-number: Result(point, (share,)) for number, (point, share) in enumerate(points)}


def _results_of(name: str, model: ModelConfig, run: RunDir) -> list[tuple[JsonObject, float]]:
    other = find_other_run(name, run, where=WHERE)
    its = RunConfig.model_validate_json(other.config.read_text(encoding="utf-8"))
    if (its.model.base, its.model.revision) != (model.base, model.revision):
        what = f"{name!r} trained on {_named(its.model)}, and this run trains on {_named(model)}"
        raise ConfigError(what, where=WHERE, fix="Name runs on the same base, or leave this one out")
    trials = list(read_jsonl(other.trials, TrialRecord)) if other.trials.is_file() else []
    losses = comparable(trials)
    if not losses:
        raise InputError(f"{name!r} has no trial with an eval loss", where=WHERE, fix="Run its search first")
    usual = {**its.train.model_dump(), **its.lora.model_dump()}
    points = {trial.trial_id: {**_plain(usual), **trial.hyperparameters} for trial in trials}
    return [(points[trial], share) for trial, share in shares(losses).items()]


def _plain(settings: JsonObject) -> JsonObject:
    """Those that a space can hold: numbers."""
    return {name: value for name, value in settings.items() if isinstance(value, int | float)}


def _named(model: ModelConfig) -> str:
    return model.base if model.revision is None else f"{model.base} at {model.revision}"


def comparable(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Losses by trial at the last step at which every trial was evaluated that has a loss and did not diverge."""
    known = {trial.trial_id: trial for trial in trials if trial.best_eval_loss is not None}
    curves = {name: dict(losses_of(trial)) for name, trial in known.items()}
    common = set.intersection(*map(set, curves.values())) if curves else set[int]()
    found = {name: curve[max(common)] if common else min(curve.values()) for name, curve in curves.items()}
    diverged = [trial.trial_id for trial in trials if trial.status == "diverged"]
    return found | dict.fromkeys(diverged, DIVERGED_LOSS) if found else {}


def shares(losses: Mapping[str, float]) -> dict[str, float]:
    """By trial, the share of the others that have a lower loss."""
    others = max(1, len(losses) - 1)
    return {name: sum(other < loss for other in losses.values()) / others for name, loss in losses.items()}
