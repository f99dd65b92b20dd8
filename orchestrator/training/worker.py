"""One worker of a training job: TRL's SFTTrainer on the tokens of its share. The only file that trains with trl."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train
import torch
from datasets import load_from_disk
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from orchestrator.models.adapters import peft_config
from orchestrator.models.base import base_folder, compute_dtype, load_frozen_base, load_tokenizer
from orchestrator.training.plan import TrainPlan
from orchestrator.training.reporting import ReportToRay

LOGS_PER_EVALUATION = 4


def train_worker(settings: dict[str, Any]) -> None:
    """Train this worker's share until the last step, early stopping or divergence; runs on every Ray Train worker.

    Args:
        settings: A `TrainPlan` as JSON-able values (Ray pickles it between Python processes).
    """
    plan = TrainPlan.model_validate(settings)
    if not plan.gpus_per_worker:
        torch.set_num_threads(max(1, int(plan.cpus_per_worker)))
    set_seed(plan.train.seed)
    folder = base_folder(plan.model)
    with tempfile.TemporaryDirectory(prefix="sft-") as output_dir, _latest_checkpoint() as checkpoint:
        trainer = SFTTrainer(
            model=load_frozen_base(folder, plan.model),
            args=SFTConfig(**trainer_settings(plan), output_dir=output_dir),
            train_dataset=load_from_disk(plan.train_tokens),
            eval_dataset=load_from_disk(plan.val_tokens),
            processing_class=load_tokenizer(folder, trust_remote_code=plan.model.trust_remote_code),
            peft_config=peft_config(plan.lora),
            callbacks=[ReportToRay(patience=plan.train.early_stopping_patience)],
        )
        trainer.processing_class = None  # every checkpoint would carry a copy of the tokenizer
        trainer.train(resume_from_checkpoint=checkpoint)


def trainer_settings(plan: TrainPlan) -> dict[str, Any]:
    """TRL's settings for a plan, as arguments of its SFTConfig; what costs speed for nothing is off."""
    on_gpu = plan.gpus_per_worker > 0
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
        "gradient_checkpointing": plan.train.gradient_checkpointing,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": plan.eval_steps,
        "save_steps": plan.eval_steps,
        "save_total_limit": 2,
        "logging_steps": max(1, plan.eval_steps // LOGS_PER_EVALUATION),
        "logging_nan_inf_filter": False,  # a non-finite loss must be seen, not smoothed away
        "seed": plan.train.seed,
        "bf16": compute_dtype(plan.model.dtype) == "bfloat16",
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


@contextmanager
def _latest_checkpoint() -> Iterator[str | None]:
    """Folder of the checkpoint to go on from after a restart, or None at the start."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
    else:
        with checkpoint.as_directory() as folder:
            yield folder
