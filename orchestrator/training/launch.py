"""Training one adapter: a Ray Train job of one or more workers around `worker.train_worker`."""

import math
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
from orchestrator.core.files import digest_of, dump_jsonl, parse_line, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import TrialRecord
from orchestrator.data.card import TokenCard
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.run.cluster import worker_shape
from orchestrator.run.paths import RunDir, SplitName
from orchestrator.training.outcome import Progress, RecordProgress, describe_trial, keep_best, progress_path, read_trial
from orchestrator.training.plan import TrainPlan, plan_training
from orchestrator.training.trackers import tracked
from orchestrator.training.tracking import RunInfo, Trackers
from orchestrator.training.worker import train_worker

CONTROLLER_FAILURES = 3
"""Restarts of a job whose worker group could not start; Ray's own default is to try for ever."""
POLL_S = 1.0


def prepare_plan(config: RunConfig, run: RunDir) -> TrainPlan:
    """Tokenise the data once for all trials and resolve what one training job is on the connected cluster."""
    shape = worker_shape(config.resources)
    cards = tokenize_run(config, run)
    _tell_left_out(cards)
    return plan_training(config, run, shape, num_samples=cards["train"].samples)


def _tell_left_out(cards: dict[SplitName, TokenCard]) -> None:
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
            say(f"{card.unlearned_turns} earlier turns of {part} are not learned: the chat template rewrites them.")


def build_trainer(
    plan: TrainPlan, *, name: str, storage: Path, callbacks: tuple[ray.train.UserCallback, ...] = ()
) -> TorchTrainer:
    """A Ray Train job for one adapter. The same name in the same storage goes on from its last checkpoint."""
    resources = {"CPU": plan.cpus_per_worker}
    if plan.gpus_per_worker:
        resources["GPU"] = plan.gpus_per_worker
    return TorchTrainer(
        train_worker,
        train_loop_config=plan.model_dump(mode="json"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.num_workers, use_gpu=plan.gpus_per_worker > 0, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            callbacks=[RecordProgress(progress_path(storage, name)), *callbacks],
            failure_config=ray.train.FailureConfig(
                max_failures=plan.train.max_failures, controller_failure_limit=CONTROLLER_FAILURES
            ),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="eval_loss", checkpoint_score_order="min"
            ),
        ),
    )


def fit(trainer: TorchTrainer) -> None:
    """Run a training job to its end.

    Raises:
        OrchestratorError: The worker's own error where it raised one of ours, else TrainingError.
    """
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise explain_failure(error) from error


def explain_failure(error: BaseException) -> OrchestratorError:
    """The error of ours inside one of Ray's, or a TrainingError that repeats its last line."""
    explanations = list(causes(error))
    ours = next((cause for cause in explanations if isinstance(cause, OrchestratorError)), None)
    if ours:
        return ours
    last = explanations[-1]
    lines = [line for line in str(last).splitlines() if line.strip()] or ["no message"]
    return TrainingError(f"the training job failed with {type(last).__name__}: {lines[-1].strip()}")


@contextmanager
def _as_trial(trackers: Trackers, storage: Path, name: str, plan: TrainPlan) -> Iterator[None]:
    """Tell the trackers of a job as of one trial while its driver waits in `fit`."""
    before = read_trial(storage, name)
    trackers.trial_started(name, plan.hyperparameters, before.steps)
    try:
        with _followed(storage, name, trackers):
            yield
    except BaseException:
        trackers.trial_ended(name, "failed")
        raise
    trackers.trial_ended(name, "diverged" if read_trial(storage, name).diverged else "ended")


@contextmanager
def _followed(storage: Path, name: str, trackers: Trackers) -> Iterator[None]:
    """Pass on every new report of a job, which Ray's controller records in a file."""
    path, finished = progress_path(storage, name), threading.Event()

    def follow() -> None:
        told = -1
        while True:
            last_look = finished.wait(POLL_S)
            if path.is_file():
                progress = parse_line(path.read_text(encoding="utf-8"), Progress, where=str(path))
                if progress.step != told:
                    trackers.metrics(name, progress.step, _metrics(progress))
                    told = progress.step
            if last_look:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _metrics(progress: Progress) -> dict[str, float]:
    if progress.diverged or not progress.curve:
        return {"eval_loss": math.nan}
    last = progress.curve[-1]
    known = {"eval_loss": last.eval_loss, "tokens": float(progress.tokens)}
    return known if last.train_loss is None else known | {"train_loss": last.train_loss}


def train_one(config: RunConfig, run: RunDir) -> TrialRecord:
    """Train one adapter with the configuration's own r, alpha and learning rate, and keep its best checkpoint.

    Raises:
        DivergedError: If the loss stopped being finite.
        TrainingError: If the job failed or saved nothing.
        InputError: If the data, base model or resources cannot work.
    """
    plan = prepare_plan(config, run)
    storage, name = run.ray / "train", f"train-{digest_of(plan, run.split('train'), run.split('val'))[:8]}"
    started = time.monotonic()
    with tracked(RunInfo(run.root, 1, plan.max_steps)) as trackers, _as_trial(trackers, storage, name, plan):
        fit(build_trainer(plan, name=name, storage=storage))
    trial = read_trial(storage, name)
    if trial.diverged:
        raise DivergedError(
            "the loss stopped being finite", where=name, fix="Lower train.learning_rate or raise train.warmup_ratio"
        )
    described = describe_trial(trial, plan, trial_id="train", duration_s=time.monotonic() - started, error=None)
    record = keep_best(trial, run, plan, described)
    if record.adapter_id is None:
        raise TrainingError("the training job ended without a checkpoint", where=name)
    write_text_atomic(run.trials, dump_jsonl([record]))
    return record
