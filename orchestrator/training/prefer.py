"""Preferences on top of an adapter of the run: one training job on pairs, by the isolated runner."""

import math
import time

from datasets import Dataset, load_from_disk

from orchestrator.config.preferences import KTO
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DivergedError, TrainingError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.records import AdapterRecord, StopReason, TrialRecord
from orchestrator.data.preferences.choose import REPLY_COLUMNS
from orchestrator.data.preferences.store import pairs_path
from orchestrator.data.tokens.store import tokens_folder
from orchestrator.models.base import base_folder, empty_base
from orchestrator.models.start import copy_start, going_on_from
from orchestrator.run.cluster import worker_shape
from orchestrator.run.paths import RunDir, preferred_id
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.launch import as_trial, build_trainer, fit
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import TrainedTrial, describe_trial, keep_best, read_trial, stop_reason
from orchestrator.training.plan import PairLearning, TrainPlan, plan_training
from orchestrator.training.trackers import OF_PAIRS, tracked

RATE_SHARE = 0.1
"""The learning rate of preferences as a share of the adapter's own, where the configuration gives none."""
ENDED: tuple[StopReason, ...] = ("finished", "no_improvement", "diverged")
"""Why a training does not go on."""


def plan_preferences(config: RunConfig, run: RunDir, record: AdapterRecord) -> list[TrainPlan]:
    """Resolve steps and places of the trainings of one of the run's adapters on its pairs, one for each learning.

    Raises:
        AdapterError: If training cannot express the adapter.
        ResourceError: If the cluster can never hold the workers.
    """
    place, prefer = run.preferences(record.id), config.prefer
    going_on = going_on_from(config, run.adapter(record.id))
    own_rate = RATE_SHARE * (record.learning_rate or config.train.learning_rate)
    changes = {"epochs": prefer.epochs, "max_steps": None, "eval_steps": None, "seed": prefer.seed}
    going_on = going_on.model_copy(update={"train": going_on.train.model_copy(update=changes)})
    base = empty_base(base_folder(config.model), trust_remote_code=config.model.trust_remote_code)
    start, shape = copy_start(going_on, base, place), worker_shape(config.resources)
    tokens = load_from_disk(str(tokens_folder(place, "train")))
    plans = []
    for one in prefer.learnings:
        samples = len(tokens) if one.loss != KTO else num_pairs_of_replies(tokens)
        plan = plan_training(going_on, place, shape, num_samples=samples, start=start)
        train = plan.train.model_copy(update={"learning_rate": one.learning_rate or own_rate})
        pairs = PairLearning(beta=one.beta, loss=one.loss, sft_weight=one.sft_weight)
        plans.append(plan.model_copy(update={"train": train, "pairs": pairs, "started_from": record.id}))
    return plans


def num_pairs_of_replies(tokens: Dataset) -> int:
    """As many replies as make so many pairs."""
    return math.ceil(sum(bool(ids) for name in REPLY_COLUMNS for ids in tokens[name]) / 2)


def train_preferences(config: RunConfig, run: RunDir, record: AdapterRecord) -> TrialRecord:
    """Train one of the run's adapters further on its pairs, and keep the best checkpoint as an adapter of its own.

    Of several learnings, each of which starts from that adapter, the one with the lowest loss on the pairs of val is
    kept; `trials.jsonl` has them all, the best first. Resumes from the last checkpoint of the same plan and pairs.

    Raises:
        DivergedError: If the loss stopped being finite, in every learning.
        TrainingError: If a job failed or saved nothing.
        InputError: If the base or the resources cannot work.
    """
    plans, place, name = plan_preferences(config, run, record), run.preferences(record.id), preferred_id(record.id)
    names = [name] if len(plans) == 1 else [f"{name}-{number}" for number in range(1, len(plans) + 1)]
    info = RunInfo(run.root, len(plans), plans[0].max_steps)
    with tracked(info, config.tracking, OF_PAIRS) as trackers, Listener(trackers) as listener:
        done = [_train(plan, place, trial, listener) for plan, trial in zip(plans, names, strict=True)]
    done.sort(key=lambda one: math.inf if one[2].best_eval_loss is None else one[2].best_eval_loss)
    plan, trial, best = done[0]
    if trial.diverged:
        raise DivergedError("the loss stopped being finite", where=best.trial_id, fix="Lower prefer.learning_rate")
    kept = keep_best(trial, run, plan, best.model_copy(update={"trial_id": name}))
    if kept.adapter_id is None:
        raise TrainingError("the training job ended without a checkpoint", where=best.trial_id)
    write_text_atomic(place.trials, dump_jsonl([kept, *(record for _, _, record in done[1:])]))
    return kept


def _train(
    plan: TrainPlan, place: RunDir, trial_id: str, listener: Listener
) -> tuple[TrainPlan, TrainedTrial, TrialRecord]:
    assert plan.pairs is not None
    storage, job = place.ray / "train", f"prefer-{digest_of(plan, pairs_path(place))[:8]}"
    started = time.monotonic()
    with as_trial(trial_id, listener, storage, job, plan):
        if stop_reason(read_trial(storage, job), plan, failed=False) not in ENDED:  # else cut off in a later one
            fit(build_trainer(plan, name=job, storage=storage))
    trial, duration_s = read_trial(storage, job), time.monotonic() - started
    record = describe_trial(trial, plan, trial_id=trial_id, duration_s=duration_s, error=None)
    learned = {"pairs": len(load_from_disk(plan.train_tokens)), "loss": plan.pairs.loss}
    return plan, trial, record.model_copy(update=learned)
