"""The search: Ray Tune over rank, alpha and learning rate, its trials on record, its best adapters kept."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.cluster import cluster_capacity, worker_shape
from orchestrator.config import RunConfig
from orchestrator.errors import SearchError
from orchestrator.jsonl import dump_jsonl
from orchestrator.progress import TrialBoard, say
from orchestrator.records import TrialRecord
from orchestrator.runs import RunDir, digest_of, write_text_atomic
from orchestrator.search.board import ShowTrials
from orchestrator.search.early_stop import make_scheduler
from orchestrator.search.isolated import concurrent_trials, isolated_trial, trial_name
from orchestrator.search.space import HYPERPARAMETERS, make_searcher, num_trials, param_space
from orchestrator.training.launch import prepare_plan
from orchestrator.training.outcome import TrainedTrial, describe_trial, keep_best, read_trial
from orchestrator.training.plan import TrainPlan

TRIAL_RETRIES = 1
"""Times that a trial whose driver died is started again; it goes on from its last checkpoint."""


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
    with TrialBoard(num_trials(config.search), plan.max_steps) as board:
        grid = _make_tuner(config, plan, storage, ShowTrials(board)).fit()
    found = [_read(result, storage, plan) for result in grid]
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


def _make_tuner(config: RunConfig, plan: TrainPlan, storage: Path, show: ShowTrials) -> tune.Tuner:
    trainable = isolated_trial(plan, storage / "trials")
    experiment = storage / "tune"
    space = param_space(config.search)
    if tune.Tuner.can_restore(str(experiment)):
        say("An unfinished search is there; it goes on from its trials' last checkpoints.")
        tuner = tune.Tuner.restore(str(experiment), trainable, restart_errored=True, param_space=space)
        tuner._local_tuner.get_run_config().callbacks = [show]  # a display cannot be stored with the experiment
        return tuner
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            search_alg=make_searcher(config.search, max_concurrent=_concurrency(config)),
            scheduler=make_scheduler(config.search, plan),
            num_samples=1 if config.search.searcher == "grid" else config.search.num_trials,
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(experiment.parent),
            failure_config=tune.FailureConfig(max_failures=TRIAL_RETRIES),
            callbacks=[show],
            verbose=0,
        ),
    )


def _concurrency(config: RunConfig) -> int:
    capacity, _ = cluster_capacity()
    return concurrent_trials(config.search.max_concurrent, worker_shape(config.resources), capacity)


def _dirname(trial: Trial) -> str:
    return trial_name(trial.trial_id)


def _read(result: Any, storage: Path, plan: TrainPlan) -> tuple[TrainedTrial, TrainPlan, TrialRecord]:
    """A Tune result (`ray.tune.Result`) together with what its training job left."""
    name = Path(result.path).name
    trained = read_trial(storage / "trials", name)
    chosen = plan.with_hyperparameters(result.config[HYPERPARAMETERS])
    error = str(result.error).strip().splitlines()[-1] if result.error else None
    duration_s = (result.metrics or {}).get("time_total_s")
    return trained, chosen, describe_trial(trained, chosen, trial_id=name, duration_s=duration_s, error=error)


def _keep_best(
    found: list[tuple[TrainedTrial, TrainPlan, TrialRecord]], run: RunDir, *, keep: int
) -> list[TrialRecord]:
    """Records with the best first; the first `keep` of those that saved an adapter keep it."""

    def rank(entry: tuple[TrainedTrial, TrainPlan, TrialRecord]) -> tuple[bool, float, str]:
        record = entry[2]
        return record.best_eval_loss is None, record.best_eval_loss or 0.0, record.trial_id

    records: list[TrialRecord] = []
    for place, (trained, chosen, record) in enumerate(sorted(found, key=rank)):
        records.append(keep_best(trained, run, chosen, record) if place < keep else record)
    return records
