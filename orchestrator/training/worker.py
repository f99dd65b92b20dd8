"""One worker of a training job: TRL's SFTTrainer on the tokens of its share. The only file that trains with trl."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from datasets import load_from_disk
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from trl import SFTConfig, SFTTrainer

from orchestrator.core.memory import give_back_freed_memory
from orchestrator.core.records import DIVERGED_LOSS, EvalPoint, JsonObject, reason_to_stop
from orchestrator.models.adapters import fill_new, peft_config
from orchestrator.models.base import base_folder, base_tokenizer, compute_dtype, empty_base, load_frozen_base
from orchestrator.plan.devices import this_cpu, this_machine
from orchestrator.plan.settle import Wanted, settle
from orchestrator.plan.shapes import base_shape
from orchestrator.training.plan import TrainPlan

LOGS_PER_EVALUATION = 4
PROCESSES = "processes"
TOKENS = "tokens"
"""Key in the trainer's log for the tokens trained on so far."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train this worker's share until the last step, early stopping or divergence; runs on every Ray Train worker.

    `settings` is a `TrainPlan` as JSON-able values, because Ray pickles it between Python processes; and how many such
    `PROCESSES` may share this machine.
    """
    beside = settings.pop(PROCESSES)
    plan = TrainPlan.model_validate(settings)
    give_back_freed_memory()
    if not plan.gpus_per_worker:
        torch.set_num_threads(max(1, int(plan.cpus_per_worker)))
    set_seed(plan.train.seed)
    plan = settle_checkpointing(plan, beside)
    with tempfile.TemporaryDirectory(prefix="sft-") as output_dir, _latest_checkpoint() as checkpoint:
        report = ReportToRay(patience=plan.train.early_stopping_patience)
        make_trainer(plan, output_dir, callbacks=[report]).train(resume_from_checkpoint=checkpoint)


def make_trainer(plan: TrainPlan, output_dir: str, *, callbacks: Sequence[TrainerCallback]) -> SFTTrainer:
    """TRL's trainer of a plan, ready to train."""
    trainer = SFTTrainer(
        model=load_frozen_base(base_folder(plan.model), plan.model),
        args=SFTConfig(**trainer_settings(plan), output_dir=output_dir),
        train_dataset=load_from_disk(plan.train_tokens),
        eval_dataset=load_from_disk(plan.val_tokens),
        processing_class=base_tokenizer(plan.model),
        peft_config=peft_config(plan.lora),
        callbacks=list(callbacks),
    )
    if plan.start is not None:
        fill_new(trainer.model, Path(plan.start))  # a checkpoint that is resumed replaces it
    scale_loss_on_cpu(trainer)
    trainer.processing_class = None  # every checkpoint would carry a copy of the tokenizer
    return trainer


def settle_checkpointing(plan: TrainPlan, beside: int) -> TrainPlan:
    """The plan with `train.gradient_checkpointing` decided by the memory of this worker's device.

    `beside` training processes share the memory of a machine without GPUs.
    """
    if plan.train.gradient_checkpointing != "auto":
        return plan
    tokens = load_from_disk(plan.train_tokens).with_format("arrow")[:]
    base = empty_base(base_folder(plan.model), trust_remote_code=plan.model.trust_remote_code)
    wanted = Wanted(
        runner="isolated",
        dtype=compute_dtype(plan.model.dtype),
        on_gpu=plan.gpus_per_worker > 0,
        rank=plan.lora.r,
        micro_batch=plan.train.micro_batch_size,
        longest=int(np.max(tokens.column("input_ids").combine_chunks().value_lengths().to_numpy(zero_copy_only=False))),
        learned_share=1.0,
        threads=torch.get_num_threads(),
    )
    device = this_machine() if wanted.on_gpu else this_cpu()
    choice = settle(base_shape(base, plan.lora), wanted, device.room(beside))
    train = plan.train.model_copy(update={"gradient_checkpointing": choice.training.checkpointing})
    return plan.model_copy(update={"train": train})


def trainer_settings(plan: TrainPlan) -> dict[str, Any]:
    """Arguments of TRL's SFTConfig for a plan; what only costs speed is off."""
    on_gpu, dtype = plan.gpus_per_worker > 0, compute_dtype(plan.model.dtype)
    return {
        "max_steps": plan.max_steps,
        "learning_rate": plan.train.learning_rate,
        "lr_scheduler_type": plan.train.scheduler,
        "warmup_steps": plan.warmup_steps,
        "weight_decay": plan.train.weight_decay,
        "max_grad_norm": plan.train.max_grad_norm,
        "per_device_train_batch_size": plan.train.micro_batch_size,
        "per_device_eval_batch_size": plan.train.micro_batch_size,
        "gradient_accumulation_steps": plan.accumulation_steps,
        "gradient_checkpointing": plan.train.gradient_checkpointing is True,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": plan.eval_steps,
        "save_steps": plan.eval_steps,
        "save_total_limit": 2,
        "logging_steps": max(1, plan.eval_steps // LOGS_PER_EVALUATION),
        "logging_nan_inf_filter": False,  # a non-finite loss must be seen, not smoothed away
        "seed": plan.train.seed,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": not on_gpu,
        "ddp_backend": "nccl" if on_gpu else "gloo",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": on_gpu,
        "train_sampling_strategy": "group_by_length",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "report_to": "none",
        "disable_tqdm": True,
    }


def scale_loss_on_cpu(trainer: SFTTrainer) -> None:
    """Give a float16 training on a CPU the autocast and loss scaling that accelerate sets up on GPUs alone."""
    accelerator = trainer.accelerator
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu")


@contextmanager
def _latest_checkpoint() -> Iterator[str | None]:
    """Folder of the checkpoint to resume from after a restart, None at the start."""
    checkpoint = ray.train.get_checkpoint()
    with checkpoint.as_directory() if checkpoint else nullcontext() as folder:
        yield folder


def curve_of(log_history: Sequence[JsonObject]) -> list[EvalPoint]:
    """Eval losses by step, each with the latest training loss before it."""
    curve: list[EvalPoint] = []
    train_loss: float | None = None
    for entry in log_history:
        train_loss = entry.get("loss", train_loss)
        if "eval_loss" in entry:
            curve.append(EvalPoint(step=entry["step"], eval_loss=entry["eval_loss"], train_loss=train_loss))
    return curve


def tokens_of(log_history: Sequence[JsonObject]) -> int:
    """Tokens trained on up to the latest entry that says so."""
    return next((entry[TOKENS] for entry in reversed(log_history) if TOKENS in entry), 0)


class ReportToRay(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Reports each evaluation with its checkpoint; every rank calls `report` equally often, rank 0 uploads.

    All ranks see the same averaged losses, so they decide alike.
    """

    def __init__(self, *, patience: int | None) -> None:
        self._patience = patience
        self._diverged = False
        self._tokens_before = 0

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Go on counting tokens where the checkpoint, if there is one, left off."""
        self._tokens_before = tokens_of(state.log_history)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate and save the last step too, whatever the cadence."""
        if state.global_step >= state.max_steps:
            control.should_log = control.should_evaluate = control.should_save = True

    def on_log(
        self, _args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: JsonObject, **_: Any
    ) -> None:
        """Count tokens, and stop at once when the training loss is not finite."""
        # TRL counts what it feeds the model without padding (its attention mask), but from 0 after every start.
        counted = logs.get("num_tokens", logs.get("eval_num_tokens"))
        if counted is not None:
            state.log_history[-1][TOKENS] = self._tokens_before + int(counted)
        if not math.isfinite(logs.get("loss", 0.0)) and not self._diverged:
            self._report_divergence(state)
            control.should_training_stop = True
            control.should_evaluate = control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report the evaluation that was just saved, and stop if it says so."""
        curve = curve_of(state.log_history)
        reason = reason_to_stop([point.eval_loss for point in curve], self._patience)
        if reason == "diverged":
            self._report_divergence(state)
        else:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._report(state, curve[-1].eval_loss, curve, folder)
        control.should_training_stop |= reason is not None

    def _report_divergence(self, state: TrainerState) -> None:
        self._diverged = True
        curve = [point for point in curve_of(state.log_history) if math.isfinite(point.eval_loss)]
        self._report(state, DIVERGED_LOSS, curve, None)

    def _report(self, state: TrainerState, eval_loss: float, curve: list[EvalPoint], folder: Path | None) -> None:
        uploads = folder is not None and ray.train.get_context().get_world_rank() == 0
        metrics = {
            "step": state.global_step,
            "eval_loss": eval_loss,
            "diverged": folder is None,
            "curve": [point.model_dump() for point in curve],
            "tokens": tokens_of(state.log_history),
        }
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder) if uploads else None)
