"""The search: Ray Tune over rank, alpha and learning rate, its trials on record, its best adapters kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import SearchError
from orchestrator.core.files import digest_of, write_text_atomic
from orchestrator.core.jsonl import dump_jsonl
from orchestrator.core.progress import TrialBoard, say
from orchestrator.core.records import TrialRecord
from orchestrator.models.base import base_folder
from orchestrator.run.cluster import cluster_capacity
from orchestrator.run.paths import RunDir
from orchestrator.search.board import ShowTrials
from orchestrator.search.early_stop import make_scheduler
from orchestrator.search.isolated import concurrent_trials, isolated_trial, read_isolated_trial
from orchestrator.search.multi_lora import open_engines, packed_trial, read_packed_trial
from orchestrator.search.names import HYPERPARAMETERS, name_of_folder, storage_name, trial_name
from orchestrator.search.space import make_searcher, num_trials, param_space, read_base_shape, resolve_space
from orchestrator.training.launch import prepare_plan
from orchestrator.training.outcome import TrainedTrial, keep_best
from orchestrator.training.plan import TrainPlan

TRIAL_RETRIES = 1
"""Times that a trial whose driver died is started again; it goes on from its last checkpoint."""


class _Runner(NamedTuple):
    """How trials are trained: Tune's trainable, how many at once, and what reads what one left."""

    trainable: Any
    concurrent: int
    read: Callable[..., tuple[TrainedTrial, TrialRecord]]


class _Found(NamedTuple):
    """A trial, as what it was to train and what it left."""

    trained: TrainedTrial
    plan: TrainPlan
    record: TrialRecord


def run_search(config: RunConfig, run: RunDir) -> list[TrialRecord]:
    """Run or go on with the search, write `trials.jsonl` and keep the `search.keep` best adapters.

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
        TrialBoard(num_trials(config.search), plan.max_steps) as board,
    ):
        grid = _make_tuner(config, plan, storage, runner, ShowTrials(board)).fit()
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
    if not config.packs_trials:
        capacity, _ = cluster_capacity()
        concurrent = concurrent_trials(config.search.max_concurrent, plan.shape, capacity)
        yield _Runner(isolated_trial(plan, trials), concurrent, read_isolated_trial)
        return
    with open_engines(config, plan, trials, num_trials=num_trials(config.search)) as engines:
        yield _Runner(packed_trial(engines, plan), engines.concurrent_trials, read_packed_trial)


def _make_tuner(config: RunConfig, plan: TrainPlan, storage: Path, runner: _Runner, show: ShowTrials) -> tune.Tuner:
    experiment = storage / "tune"
    base = read_base_shape(base_folder(config.model))
    resolved = resolve_space(config.search.space, base, config.train.batch_size)
    space = param_space(config.search, resolved)
    if tune.Tuner.can_restore(str(experiment)):
        say("An unfinished search is there; it goes on from its trials' last checkpoints.")
        tuner = tune.Tuner.restore(str(experiment), runner.trainable, restart_errored=True, param_space=space)
        tuner._local_tuner.get_run_config().callbacks = [show]  # a display cannot be stored with the experiment
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
            reuse_actors=config.packs_trials,
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(experiment.parent),
            failure_config=tune.FailureConfig(max_failures=TRIAL_RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # trainings keep checkpoints themselves
            callbacks=[show],
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
