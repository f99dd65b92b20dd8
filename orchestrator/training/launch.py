"""Training one adapter: a Ray Train job of one or more workers around `worker.train_worker`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray.train
from ray.train import TrainingFailedError
from ray.train.torch import TorchTrainer

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DivergedError, OrchestratorError, TrainingError, causes
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.progress import doing, say
from orchestrator.core.records import StopReason, TrialRecord
from orchestrator.data.card import TokenCard
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.models.base import base_folder, empty_base, require_its_precision
from orchestrator.models.start import copy_start, describe_start
from orchestrator.models.targets import require_shardable, require_targets
from orchestrator.run.cluster import worker_shape
from orchestrator.run.deaths import SAVES_TRAINING_MEMORY, last_line, why_it_died
from orchestrator.run.paths import RunDir, SplitName
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import (
    RecordProgress,
    describe_trial,
    keep_best,
    read_progress,
    read_trial,
    stop_reason,
)
from orchestrator.training.plan import TrainPlan, plan_training
from orchestrator.training.trackers import tracked
from orchestrator.training.worker import PROCESSES, RUNGS, train_worker

ONLY_TRIAL = "adapter-1"
"""The name of the one trial, and so of the one adapter, of `train`."""
CONTROLLER_FAILURES = 3
"""Restarts of a job whose worker group could not start; Ray's default is to try for ever."""
POLL_S = 1.0


def prepare_plan(config: RunConfig, run: RunDir, *, varied: tuple[str, ...] = ()) -> TrainPlan:
    """Tokenise the data once for all trials and resolve what one training job is on the connected cluster.

    `varied` is what trials vary beside r, alpha and learning_rate.

    Raises:
        InputError: If the data, the base, the layers to adapt or the resources cannot work.
    """
    shape = worker_shape(config.resources)
    require_its_precision(config)
    base = empty_base(base_folder(config.model), trust_remote_code=config.model.trust_remote_code)
    start = copy_start(config, base, run)
    if told := describe_start(config):
        say(told)
    require_targets(base, config.lora.target_modules)
    if config.train.sharding == "fsdp":
        require_shardable(base)
    with doing("tokenising"):
        cards = tokenize_run(config, run)
    _say_what_is_left_out(cards)
    return plan_training(config, run, shape, num_samples=cards["train"].rows, start=start, varied=varied)


def _say_what_is_left_out(cards: dict[SplitName, TokenCard]) -> None:
    for part, card in cards.items():
        if card.left_out:
            first = card.left_out[0]
            say(
                f"{len(card.left_out)} of {card.samples + len(card.left_out)} samples of {part} are left out; "
                f"the first, {first.id} from {first.source}: {first.detail}. All are listed in data/tokens/card.json."
            )
        if card.shortened:
            say(f"{card.shortened} of {card.samples} samples of {part} end at an earlier turn so that they fit.")
        if card.unlearned_turns:
            say(f"{card.unlearned_turns} earlier turns of {part} are not learned: the chat template cannot show them.")


class _Trainer(TorchTrainer):  # type: ignore[misc] # Ray's decorators leave it without a type
    def _register_sigint_handler(self, controller: object) -> None:
        """Leave an interruption to this process; Ray's own handler turns it into a job that failed or was done."""


def build_trainer(
    plan: TrainPlan,
    *,
    name: str,
    storage: Path,
    callbacks: tuple[ray.train.UserCallback, ...] = (),
    beside: int = 1,
    rungs: tuple[int, ...] = (),
) -> TorchTrainer:
    """A Ray Train job for one adapter. It resumes from the last checkpoint of its name in its storage.

    So many jobs run `beside` each other, itself included. At `rungs` it waits to be told whether it goes on.
    """
    resources = {"CPU": plan.cpus_per_worker}
    if plan.gpus_per_worker:
        resources["GPU"] = plan.gpus_per_worker
    return _Trainer(
        train_worker,
        train_loop_config={
            "plan": plan.model_dump(mode="json"),
            "folder": str(storage / name),
            PROCESSES: beside * plan.num_workers,
            RUNGS: rungs,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.num_workers, use_gpu=plan.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            callbacks=[RecordProgress(storage / name), *callbacks],
            failure_config=ray.train.FailureConfig(
                max_failures=plan.train.max_failures, controller_failure_limit=CONTROLLER_FAILURES
            ),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=plan.train.save_total_limit,  # Ray keeps the latest beside these
                checkpoint_score_attribute="eval_loss",
                checkpoint_score_order="min",
            ),
        ),
    )


def fit(trainer: TorchTrainer) -> None:
    """Run a training job to its end.

    Raises:
        OrchestratorError: The worker's own error where it raised one of ours, else TrainingError.
    """
    try:
        with doing("waiting for the next evaluation"):
            trainer.fit()
    except TrainingFailedError as error:
        raise explain_failure(error) from error


def explain_failure(error: BaseException) -> OrchestratorError:
    """Our own error inside one of Ray's, or a TrainingError that says what killed it or repeats its last line."""
    ours = next((cause for cause in causes(error) if isinstance(cause, OrchestratorError)), None)
    if ours:
        return ours
    if death := why_it_died(error):
        return TrainingError(f"the training job failed: {death}", fix=SAVES_TRAINING_MEMORY)
    return TrainingError(f"the training job failed with {last_line(error)}")


@contextmanager
def as_trial(trial: str, listener: Listener, storage: Path, name: str, plan: TrainPlan) -> Iterator[None]:
    """Have the job `name` followed as `trial` while its driver waits in `fit`."""
    before = read_trial(storage, name).steps
    listener.started(trial, plan.hyperparameters, before, storage / name)
    finished = threading.Event()
    reason: StopReason | None = "failed"
    thread = threading.Thread(target=_follow, args=(trial, storage / name, listener, finished), daemon=True)
    thread.start()
    try:
        yield
        reason = stop_reason(read_trial(storage, name), plan, failed=False)
    except KeyboardInterrupt:
        reason = None  # the next command goes on with it
        raise
    finally:
        finished.set()
        thread.join()
        listener.ended(trial, reason)


def _follow(trial: str, job: Path, listener: Listener, finished: threading.Event) -> None:
    """Pass on each report of a job once Ray's controller has recorded it."""
    last_look = False
    while not last_look:
        last_look = finished.wait(POLL_S)
        progress = read_progress(job)
        if progress is not None:
            listener.evaluated(trial, progress)


def train_one(config: RunConfig, run: RunDir) -> TrialRecord:
    """Train one adapter with the r, alpha and learning rate of the configuration, and keep its best checkpoint.

    Raises:
        DivergedError: If the loss stopped being finite.
        TrainingError: If the job failed or saved nothing.
        InputError: If the data, base model or resources cannot work.
    """
    plan = prepare_plan(config, run)
    storage, name = run.ray / "train", f"train-{digest_of(plan, run.split('train'), run.split('val'))[:8]}"
    started = time.monotonic()
    with (
        tracked(RunInfo(run.root, 1, plan.max_steps), config.tracking) as trackers,
        Listener(trackers) as listener,
        as_trial(ONLY_TRIAL, listener, storage, name, plan),
    ):
        fit(build_trainer(plan, name=name, storage=storage))
    trial = read_trial(storage, name)
    if trial.diverged:
        raise DivergedError(
            "the loss stopped being finite", where=name, fix="Lower train.learning_rate or raise train.warmup_ratio"
        )
    record = describe_trial(trial, plan, trial_id=ONLY_TRIAL, duration_s=time.monotonic() - started, error=None)
    record = keep_best(trial, run, plan, record)
    if record.adapter_id is None:
        raise TrainingError("the training job ended without a checkpoint", where=name)
    write_text_atomic(run.trials, dump_jsonl([record]))
    return record
