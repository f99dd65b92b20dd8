"""Preferences on top of an adapter of the run: one training job on pairs, by the isolated runner."""

import time

from datasets import load_from_disk

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DivergedError, TrainingError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.records import AdapterRecord, TrialRecord
from orchestrator.data.preferences.store import pairs_path
from orchestrator.data.tokens.store import tokens_folder
from orchestrator.models.base import base_folder, empty_base
from orchestrator.models.start import copy_start, going_on_from
from orchestrator.run.cluster import worker_shape
from orchestrator.run.paths import RunDir, preferred_id
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.launch import as_trial, build_trainer, fit
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import describe_trial, keep_best, read_trial
from orchestrator.training.plan import PairLearning, TrainPlan, plan_training
from orchestrator.training.trackers import OF_PAIRS, tracked

RATE_SHARE = 0.1
"""The learning rate of preferences as a share of the adapter's own, where the configuration gives none."""


def plan_preferences(config: RunConfig, run: RunDir, record: AdapterRecord) -> TrainPlan:
    """Resolve steps and places of the training of one of the run's adapters on its pairs.

    Raises:
        AdapterError: If training cannot express the adapter.
        ResourceError: If the cluster can never hold the workers.
    """
    place, prefer = run.preferences(record.id), config.prefer
    going_on = going_on_from(config, run.adapter(record.id))
    rate = prefer.learning_rate or RATE_SHARE * (record.learning_rate or config.train.learning_rate)
    changes = {"learning_rate": rate, "epochs": prefer.epochs, "max_steps": None, "eval_steps": None}
    going_on = going_on.model_copy(update={"train": going_on.train.model_copy(update={**changes, "seed": prefer.seed})})
    base = empty_base(base_folder(config.model), trust_remote_code=config.model.trust_remote_code)
    start = copy_start(going_on, base, place)
    num_pairs = len(load_from_disk(str(tokens_folder(place, "train"))))
    plan = plan_training(going_on, place, worker_shape(config.resources), num_samples=num_pairs, start=start)
    pairs = PairLearning(beta=prefer.beta, loss=prefer.loss, sft_weight=prefer.sft_weight)
    return plan.model_copy(update={"pairs": pairs, "started_from": record.id})


def train_preferences(config: RunConfig, run: RunDir, record: AdapterRecord) -> TrialRecord:
    """Train one of the run's adapters further on its pairs, and keep the best checkpoint as an adapter of its own.

    Resumes from the last checkpoint of the same plan and pairs.

    Raises:
        DivergedError: If the loss stopped being finite.
        TrainingError: If the job failed or saved nothing.
        InputError: If the base or the resources cannot work.
    """
    plan, place, name = plan_preferences(config, run, record), run.preferences(record.id), preferred_id(record.id)
    storage, job = place.ray / "train", f"prefer-{digest_of(plan, pairs_path(place))[:8]}"
    started = time.monotonic()
    with (
        tracked(RunInfo(run.root, 1, plan.max_steps), config.tracking, OF_PAIRS) as trackers,
        Listener(trackers) as listener,
        as_trial(name, listener, storage, job, plan),
    ):
        fit(build_trainer(plan, name=job, storage=storage))
    trial = read_trial(storage, job)
    if trial.diverged:
        raise DivergedError("the loss stopped being finite", where=job, fix="Lower prefer.learning_rate")
    trained = describe_trial(trial, plan, trial_id=name, duration_s=time.monotonic() - started, error=None)
    trained = trained.model_copy(update={"pairs": len(load_from_disk(plan.train_tokens))})
    trained = keep_best(trial, run, plan, trained)
    if trained.adapter_id is None:
        raise TrainingError("the training job ended without a checkpoint", where=job)
    write_text_atomic(place.trials, dump_jsonl([trained]))
    return trained
