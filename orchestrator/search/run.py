"""The search: Ray Tune over rank, alpha and learning rate; records every trial and keeps the best adapters."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import SearchError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.models.base import base_folder
from orchestrator.run.cluster import cluster_capacity
from orchestrator.run.paths import RunDir
from orchestrator.search.early_stopping import make_scheduler
from orchestrator.search.isolated import concurrent_trials, isolated_trainable, read_isolated_trial
from orchestrator.search.multi_lora import read_slot_trial, slot_trainable, start_engines
from orchestrator.search.names import HYPERPARAMETERS, name_of_folder, storage_name, trial_name
from orchestrator.search.space import make_searcher, num_trials, param_space, read_base_shape, resolve_space
from orchestrator.training.launch import prepare_plan
from orchestrator.training.outcome import TrainedTrial, keep_best
from orchestrator.training.plan import TrainPlan
from orchestrator.training.trackers import tracked
from orchestrator.training.tracking import RunInfo, Trackers, TrialEnd

TRIAL_RETRIES = 1
"""How often a trial whose driver died is restarted; it resumes from its last checkpoint."""


class _Runner(NamedTuple):
    """How trials are trained: Tune's trainable, how many run at once, and the function that reads a trial's files."""

    trainable: Any
    concurrent: int
    read: Callable[..., tuple[TrainedTrial, TrialRecord]]


class _Found(NamedTuple):
    """A trial: its plan, what its training left on disk, and its record."""

    trained: TrainedTrial
    plan: TrainPlan
    record: TrialRecord


class TellTrackers(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Passes on to the trackers what Tune hears from its trials, whoever trains them."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers

    def __reduce__(self) -> tuple[type["TellTrackers"], tuple[Trackers]]:
        # Tune stores its callbacks with the experiment; a terminal cannot be stored.
        return TellTrackers, (Trackers(),)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial was started, for the first time or again."""
        step = int(trial.last_result.get("step", 0))
        self._trackers.trial_started(trial_name(trial.trial_id), trial.config[HYPERPARAMETERS], step)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: JsonObject, **_: Any) -> None:
        """A trial evaluated."""
        if "step" in result:
            self._trackers.metrics(trial_name(trial.trial_id), int(result["step"]), _metrics(result))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial ended by itself or was stopped."""
        status: TrialEnd = "diverged" if trial.last_result.get("diverged") else "ended"
        self._trackers.trial_ended(trial_name(trial.trial_id), status)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial failed."""
        self._trackers.trial_ended(trial_name(trial.trial_id), "failed")


def _metrics(result: JsonObject) -> dict[str, float]:
    """The numbers of a trial's report that trackers are told."""
    last = result["curve"][-1] if result.get("curve") else {}
    values = {"train_loss": last.get("train_loss"), "tokens": result.get("tokens")}
    if result.get("diverged"):
        return {"eval_loss": math.nan}
    return {"eval_loss": float(result["eval_loss"])} | {k: float(v) for k, v in values.items() if v is not None}


def run_search(config: RunConfig, run: RunDir) -> list[TrialRecord]:
    """Run or resume the search, write `trials.jsonl` and keep the `search.keep` best adapters.

    Returns:
        One record a trial; those that were kept carry an adapter id.

    Raises:
        SearchError: If no trial saved an adapter.
        InputError: If the data, base model or resources cannot work.
    """
    plan = prepare_plan(config, run)
    storage = run.ray / f"search-{digest_of(plan, config.search, run.split('train'), run.split('val'))[:8]}"
    with (
        _runner(config, plan, storage / "trials") as runner,
        tracked(RunInfo(run.root, num_trials(config.search), plan.max_steps)) as trackers,
    ):
        grid = _make_tuner(config, plan, storage, runner, TellTrackers(trackers)).fit()
    found = [_read(result, storage / "trials", plan, runner) for result in grid]
    records = _keep_best(found, run, keep=config.search.keep)
    write_text_atomic(run.trials, dump_jsonl(records))
    kept = [record for record in records if record.adapter_id]
    if not kept:
        reasons = sorted({record.error or record.status for record in records})
        raise SearchError(
            f"none of {len(records)} trials saved an adapter ({'; '.join(reasons)})", where=str(run.trials)
        )
    say(f"{len(records)} trials, {len(kept)} adapters kept; the best eval loss is {kept[0].best_eval_loss:.4f}.")
    return records


@contextmanager
def _runner(config: RunConfig, plan: TrainPlan, trials: Path) -> Iterator[_Runner]:
    if not config.trains_multi_lora:
        capacity, _ = cluster_capacity()
        concurrent = concurrent_trials(config.search.max_concurrent, plan.shape, capacity)
        yield _Runner(isolated_trainable(plan, trials), concurrent, read_isolated_trial)
        return
    with start_engines(config, plan, trials, num_trials=num_trials(config.search)) as engines:
        yield _Runner(slot_trainable(engines, plan), engines.concurrent_trials, read_slot_trial)


def _make_tuner(config: RunConfig, plan: TrainPlan, storage: Path, runner: _Runner, tell: TellTrackers) -> tune.Tuner:
    experiment = storage / "tune"
    base = read_base_shape(base_folder(config.model))
    resolved = resolve_space(config.search.space, base, config.train.batch_size)
    space = param_space(config.search, resolved)
    if tune.Tuner.can_restore(str(experiment)):
        say("Resuming the unfinished search from its trials' last checkpoints.")
        tuner = tune.Tuner.restore(str(experiment), runner.trainable, restart_errored=True, param_space=space)
        tuner._local_tuner.get_run_config().callbacks = [tell]  # a display cannot be stored with the experiment
        return tuner
    return tune.Tuner(
        runner.trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            search_alg=make_searcher(config.search, resolved, max_concurrent=runner.concurrent),
            scheduler=make_scheduler(config.search, plan),
            num_samples=1 if config.search.searcher == "grid" else config.search.num_trials,
            reuse_actors=config.trains_multi_lora,
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(experiment.parent),
            failure_config=tune.FailureConfig(max_failures=TRIAL_RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trainings keep checkpoints themselves
            callbacks=[tell],
            verbose=0,
        ),
    )


def _dirname(trial: Trial) -> str:
    return trial_name(trial.trial_id)


def _read(result: Any, trials: Path, plan: TrainPlan, runner: _Runner) -> _Found:
    """A Tune result (`ray.tune.Result`) together with what its training left."""
    chosen = plan.with_hyperparameters(result.config[HYPERPARAMETERS])
    error = str(result.error).strip().splitlines()[-1] if result.error else None
    duration_s = (result.metrics or {}).get("time_total_s")
    name = storage_name(name_of_folder(Path(result.path).name), chosen.hyperparameters)
    trained, record = runner.read(trials, name, chosen, duration_s=duration_s, error=error)
    return _Found(trained, chosen, record)


def _keep_best(found: list[_Found], run: RunDir, *, keep: int) -> list[TrialRecord]:
    """Records with the best first; the first `keep` of those that saved an adapter keep it."""

    def rank(entry: _Found) -> tuple[bool, float, str]:
        record = entry.record
        return record.best_eval_loss is None, record.best_eval_loss or 0.0, record.trial_id

    records: list[TrialRecord] = []
    for place, (trained, chosen, record) in enumerate(sorted(found, key=rank)):
        records.append(keep_best(trained, run, chosen, record) if place < keep else record)
    return records
