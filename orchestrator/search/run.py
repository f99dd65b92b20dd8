"""The search: Ray Tune over rank, alpha and learning rate; records every trial and keeps the best adapters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import SearchError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.models.base import base_folder
from orchestrator.run.cluster import cluster_capacity, concurrent_trials
from orchestrator.run.deaths import SAVES_TRAINING_MEMORY, why_it_died
from orchestrator.run.paths import RunDir
from orchestrator.search.early_stopping import make_scheduler
from orchestrator.search.multi_lora import read_slot_trial, slot_trainable, start_engines
from orchestrator.search.names import HYPERPARAMETERS, give_name, in_order, name_of_folder, storage_name
from orchestrator.search.space import make_searcher, num_trials, param_space, read_base_shape, resolve_space
from orchestrator.training.launch import build_trainer, fit, prepare_plan
from orchestrator.training.outcome import Progress, TrainedTrial, describe_trial, keep_best, read_trial
from orchestrator.training.plan import TrainPlan
from orchestrator.training.trackers import tracked
from orchestrator.training.tracking import RunInfo, Trackers, TrialEnd

NAMES = "names.json"
"""In a search's storage: the trials that were given a name."""
TRIAL_RETRIES = 1
"""How often a trial whose driver died is restarted; it resumes from its last checkpoint."""
DRIVER_RESOURCES = {"memory": 1024 * 1024}
"""What a trial's driver reserves beside its workers: no share of a CPU, or trials whose workers fill the CPUs would
wait for each other; but not nothing, which Ray Tune refuses."""


class _Runner(NamedTuple):
    """How trials are trained: Tune's trainable, how many run at once, and what a trial left in a storage, by name."""

    trainable: Any
    concurrent: int
    read: Callable[[Path, str], TrainedTrial]


class _Found(NamedTuple):
    """A trial: its plan, what its training left on disk, and its record."""

    trained: TrainedTrial
    plan: TrainPlan
    record: TrialRecord


class TellTrackers(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Passes on to the trackers what Tune hears from its trials, whichever runner trains them."""

    def __init__(self, trackers: Trackers) -> None:
        self._trackers = trackers

    def __reduce__(self) -> tuple[type["TellTrackers"], tuple[Trackers]]:
        # Tune stores its callbacks with the experiment; a terminal cannot be stored.
        return TellTrackers, (Trackers(),)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial was started or restarted."""
        step = int(trial.last_result.get("step", 0))
        self._trackers.trial_started(str(trial), trial.config[HYPERPARAMETERS], step)

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: JsonObject, **_: Any) -> None:
        """A trial evaluated."""
        if "step" in result:
            progress = Progress.model_validate({key: result[key] for key in Progress.model_fields if key in result})
            self._trackers.metrics(str(trial), progress.step, progress.metrics)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial ended by itself or was stopped."""
        status: TrialEnd = "diverged" if trial.last_result.get("diverged") else "ended"
        self._trackers.trial_ended(str(trial), status)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial failed."""
        self._trackers.trial_ended(str(trial), "failed")


def run_search(config: RunConfig, run: RunDir) -> list[TrialRecord]:
    """Run or resume the search, write `trials.jsonl` and keep the `search.keep` best adapters.

    Returns one record per trial, the best first; those that were kept have an adapter id.

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
        fix = SAVES_TRAINING_MEMORY if any(result.error and why_it_died(result.error) for result in grid) else None
        what = f"none of {len(records)} trials saved an adapter ({'; '.join(reasons)})"
        raise SearchError(what, where=str(run.trials), fix=fix)
    say(f"{len(records)} trials, {len(kept)} adapters kept; the best eval loss is {kept[0].best_eval_loss:.4f}.")
    return records


@contextmanager
def _runner(config: RunConfig, plan: TrainPlan, trials: Path) -> Iterator[_Runner]:
    if not config.trains_multi_lora:
        concurrent = concurrent_trials(config.search.max_concurrent, plan.shape, cluster_capacity()[0])
        yield _Runner(_isolated_trainable(plan, trials), concurrent, read_trial)
        return
    with start_engines(config, plan, trials, num_trials=num_trials(config.search)) as engines:
        yield _Runner(slot_trainable(engines, plan), engines.concurrent_trials, read_slot_trial)


def _isolated_trainable(plan: TrainPlan, storage: Path) -> Any:
    """The Tune trainable that trains `plan` with the trial's hyperparameters as a Ray Train job of its own."""

    def train_trial(config: JsonObject) -> None:
        chosen = plan.with_hyperparameters(config[HYPERPARAMETERS])
        name = storage_name(tune.get_context().get_trial_name(), chosen.hyperparameters)
        fit(build_trainer(chosen, name=name, storage=storage, callbacks=(TuneReportCallback(),)))

    return train_trial


def _make_tuner(config: RunConfig, plan: TrainPlan, storage: Path, runner: _Runner, tell: TellTrackers) -> tune.Tuner:
    experiment = storage / "tune"
    base = read_base_shape(base_folder(config.model))
    resolved = resolve_space(config.search.space, base, config.train.batch_size, plan.hyperparameters)
    space = param_space(config.search, resolved)
    trainable = tune.with_resources(runner.trainable, PlacementGroupFactory([DRIVER_RESOURCES]))
    if tune.Tuner.can_restore(str(experiment)):
        say("Resuming the unfinished search from its trials' last checkpoints.")
        tuner = tune.Tuner.restore(str(experiment), trainable, restart_errored=True, param_space=space)
        tuner._local_tuner.get_run_config().callbacks = [tell]  # a display cannot be stored with the experiment
        return tuner
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            search_alg=make_searcher(config.search, resolved, max_concurrent=runner.concurrent),
            scheduler=make_scheduler(config.search, plan),
            num_samples=1 if config.search.searcher == "grid" else config.search.num_trials,
            reuse_actors=config.trains_multi_lora,
            trial_name_creator=partial(give_name, storage / NAMES),
            trial_dirname_creator=str,
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


def _read(result: Any, trials: Path, plan: TrainPlan, runner: _Runner) -> _Found:
    """A `ray.tune.Result` with what its training left."""
    chosen = plan.with_hyperparameters(result.config[HYPERPARAMETERS])
    error = (why_it_died(result.error) or str(result.error).strip().splitlines()[-1]) if result.error else None
    duration_s = (result.metrics or {}).get("time_total_s")
    name = name_of_folder(Path(result.path).name)
    trained = runner.read(trials, storage_name(name, chosen.hyperparameters))
    record = describe_trial(trained, chosen, trial_id=name, duration_s=duration_s, error=error)
    return _Found(trained, chosen, record)


def _keep_best(found: list[_Found], run: RunDir, *, keep: int) -> list[TrialRecord]:
    """Records with the best first; the first `keep` keep the adapter they saved, if any."""

    def rank(its: _Found) -> tuple[bool, float, tuple[int, str]]:
        return its.record.best_eval_loss is None, its.record.best_eval_loss or 0.0, in_order(its.record.trial_id)

    best_first = sorted(found, key=rank)
    kept = [keep_best(trained, run, chosen, record) for trained, chosen, record in best_first[:keep]]
    return kept + [its.record for its in best_first[keep:]]
