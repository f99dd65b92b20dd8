"""One worker of a training job: a trainer of TRL on the tokens of its share."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from datasets import load_from_disk
from transformers import PreTrainedModel, TrainerCallback, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTConfig, SFTTrainer

from orchestrator.config.schema import Optimizer
from orchestrator.core.memory import give_freed_memory_back, hold_little_memory
from orchestrator.core.records import JsonObject
from orchestrator.core.steps import BASE
from orchestrator.data.preferences.choose import PROMPT_COLUMN, REPLY_COLUMNS
from orchestrator.data.tokens.tokenize import IGNORED
from orchestrator.models.adapters import fill_new, loraplus_optimizer, peft_config
from orchestrator.models.base import base_folder, base_tokenizer, compute_dtype, empty_base, load_frozen_base
from orchestrator.models.reading import ROWS, note_reading
from orchestrator.plan.devices import this_cpu, this_machine
from orchestrator.plan.settle import Wanted, settle
from orchestrator.plan.shapes import base_shape
from orchestrator.run.methods import FLASH_ATTENTION, LIGER, has_package
from orchestrator.training.pair_trainer import make_pair_trainer
from orchestrator.training.plan import TrainPlan
from orchestrator.training.sharding import SETTINGS as OF_SHARDING
from orchestrator.training.sharding import Sharded
from orchestrator.training.unsloth import unsloth_model
from orchestrator.training.worker_reports import Hold, ReportToRay

PROCESSES, RUNGS = "processes", "rungs"
OF_SAMPLES = {"train_sampling_strategy": "group_by_length", "dataset_kwargs": {"skip_prepare_dataset": True}}
"""Arguments of TRL's SFTConfig for rows that are tokens already."""


def train_worker(settings: dict[str, Any]) -> None:
    """Train this worker's share until the last step, early stopping or divergence; runs on every Ray Train worker.

    `settings` are a `TrainPlan` under `plan`, the job's `folder`, how many such `PROCESSES` may share this machine, and
    the `RUNGS` at which it waits, as JSON-able values, because Ray pickles them between Python processes.
    """
    plan = TrainPlan.model_validate(settings["plan"])
    hold_little_memory()
    if not plan.gpus_per_worker:
        torch.set_num_threads(max(1, int(plan.cpus_per_worker)))
    set_seed(plan.train.seed)
    plan = settle_checkpointing(plan, settings[PROCESSES])
    notes = Path(settings["folder"]) if ray.train.get_context().get_world_rank() == 0 else None
    with tempfile.TemporaryDirectory(prefix="sft-") as output_dir, _latest_checkpoint() as checkpoint:
        hold = Hold(Path(settings["folder"]), tuple(settings[RUNGS]))
        report = ReportToRay(notes, patience=plan.train.early_stopping_patience, hold=hold)
        reading = None if notes is None else notes.parent / BASE
        if plan.pairs is None:
            trainer = make_trainer(plan, output_dir, callbacks=[report], reading=reading)
        else:
            arguments = trainer_settings(plan) | {"output_dir": output_dir}
            trainer = make_pair_trainer(plan, arguments, callbacks=[report, *_of_processor(plan)])
            keep_in_float32(trainer)
            scale_loss_on_cpu(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)


def make_trainer(
    plan: TrainPlan, output_dir: str, *, callbacks: Sequence[TrainerCallback], reading: Path | None = None
) -> SFTTrainer:
    """TRL's trainer of a plan, ready to train. What the untouched base makes of the rows is written to `reading`."""
    train, is_trl = load_from_disk(plan.train_tokens), plan.train.backend == "trl"
    model = _base_of(plan) if is_trl else unsloth_model(plan, longest=_longest(plan))
    if reading is not None and is_trl:
        note_reading(model, [(row["input_ids"], row["labels"]) for row in train.take(ROWS)], reading)
    make = StepTrainer if plan.train.sharding == "none" else ShardedTrainer
    trainer = make(
        model=model,
        args=SFTConfig(**trainer_settings(plan), **_sample_settings(plan), output_dir=output_dir),
        train_dataset=train,
        eval_dataset=load_from_disk(plan.val_tokens),
        processing_class=base_tokenizer(plan.model),
        peft_config=peft_config(plan.lora) if is_trl else None,
        callbacks=[*callbacks, *_of_processor(plan)],
    )
    trainer.loraplus_lr_ratio = plan.train.loraplus_lr_ratio
    keep_in_float32(trainer)
    if plan.start is not None:
        fill_new(trainer.model, Path(plan.start))  # a checkpoint that is resumed replaces it
    scale_loss_on_cpu(trainer)
    trainer.processing_class = None  # every checkpoint would carry a copy of the tokenizer
    return trainer


def _base_of(plan: TrainPlan) -> PreTrainedModel:
    """The frozen base, with attention that takes rows laid end to end without a mask, where that is installed."""
    on_gpu = plan.gpus_per_worker > 0
    flash = plan.train.sample_packing == "auto" and on_gpu and has_package(FLASH_ATTENTION)
    attention = "flash_attention_2" if flash else None
    return load_frozen_base(base_folder(plan.model), plan.model, on_gpu=on_gpu, attention=attention)


def settle_checkpointing(plan: TrainPlan, beside: int) -> TrainPlan:
    """The plan with `train.gradient_checkpointing` decided by the memory of this worker's device.

    `beside` training processes share the memory of a machine without GPUs.
    """
    if plan.train.gradient_checkpointing != "auto":
        return plan
    base = empty_base(base_folder(plan.model), trust_remote_code=plan.model.trust_remote_code)
    wanted = Wanted(
        runner="isolated",
        dtype=compute_dtype(plan.model.dtype),
        quantization=plan.model.quantization,
        optimizer=plan.train.optimizer,
        on_gpu=plan.gpus_per_worker > 0,
        rank=plan.lora.r,
        micro_batch=plan.train.micro_batch_size * (1 if plan.pairs is None else 2),  # a pair is two rows
        longest=_longest(plan),
        learned_share=1.0,
        threads=torch.get_num_threads(),
        workers=plan.num_workers,
        is_sharded=plan.train.sharding == "fsdp",
        use_dora=plan.lora.use_dora,
    )
    device = this_machine() if wanted.on_gpu else this_cpu()
    choice = settle(base_shape(base, plan.lora), wanted, device.room(beside))
    train = plan.train.model_copy(update={"gradient_checkpointing": choice.training.checkpointing})
    return plan.model_copy(update={"train": train})


def _longest(plan: TrainPlan) -> int:
    """Tokens of the longest row that is trained on."""
    tokens = load_from_disk(plan.train_tokens).with_format("arrow")[:]

    def lengths(column: str) -> np.ndarray:
        return np.asarray(tokens.column(column).combine_chunks().value_lengths())

    if plan.pairs is None:
        return int(np.max(lengths("input_ids")))
    prompt, chosen, rejected = map(lengths, (PROMPT_COLUMN, *REPLY_COLUMNS))
    return int(np.max(prompt + np.maximum(chosen, rejected)))


class FreedMemory(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Gives memory that a pass freed back to the system; of use where that is the memory of the device."""

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        """After a pass."""
        give_freed_memory_back()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After the last pass of a step, and its update."""
        give_freed_memory_back()


def _of_processor(plan: TrainPlan) -> list[TrainerCallback]:
    return [] if plan.gpus_per_worker else [FreedMemory()]


class StepTrainer(SFTTrainer):  # type: ignore[misc]  # trl ships no types
    """SFTTrainer whose token accuracy weighs every supervised token of a step alike, not every pass."""

    optimizer: Any

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.loraplus_lr_ratio: float | None = None
        self._supervised: list[torch.Tensor] = []

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As transformers', in the same order for any number of workers: rows of a step are alike, not of a share."""
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.batch_size *= self.args.world_size
        return sampler

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As transformers', or with LoRA+ two learning rates."""
        if self.optimizer is None and self.loraplus_lr_ratio is not None:
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            settings |= {"loraplus_weight_decay": self.args.weight_decay}
            self.optimizer = loraplus_optimizer(self.model, kind, settings, ratio=self.loraplus_lr_ratio)
        return super().create_optimizer(model)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *given: Any, **named: Any) -> Any:
        """As TRL's; the supervised tokens of the pass are counted beside it."""
        if self.model.training:
            supervised = (inputs["labels"][:, 1:] != IGNORED).sum()
            self._supervised.append(self.accelerator.gather_for_metrics(supervised).sum())
        return super().compute_loss(model, inputs, *given, **named)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL's, with one token accuracy for all passes of a step."""
        of_passes = self._metrics["train"].get("mean_token_accuracy")
        if self.model.training and of_passes:
            weights = torch.stack(self._supervised).double()
            mean = (torch.tensor(of_passes, device=weights.device) * weights).sum() / weights.sum().clamp(min=1)
            self._metrics["train"]["mean_token_accuracy"] = [mean.item()]
            self._supervised.clear()
        super().log(logs, start_time)


class ShardedTrainer(Sharded, StepTrainer):
    """StepTrainer whose model is split among the workers."""


OPTIMIZERS: dict[Optimizer, str] = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""Names of transformers."""


def trainer_settings(plan: TrainPlan) -> dict[str, Any]:
    """Arguments of TRL's configurations for a plan; what only costs speed is off."""
    on_gpu, dtype = plan.gpus_per_worker > 0, compute_dtype(plan.model.dtype)
    return {
        "max_steps": plan.max_steps,
        "learning_rate": plan.train.learning_rate,
        "optim": OPTIMIZERS[plan.train.optimizer],
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
        "logging_steps": 1,  # costs little: TRL waits for the device in every pass anyway
        "logging_nan_inf_filter": False,  # a non-finite loss must be seen, not smoothed away
        "seed": plan.train.seed,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16",
        "use_cpu": not on_gpu,
        "ddp_backend": "nccl" if on_gpu else "gloo",
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": on_gpu,
        "max_length": None,
        "report_to": "none",
        "disable_tqdm": True,
        **(OF_SHARDING if plan.train.sharding == "fsdp" else {}),
    }


def _sample_settings(plan: TrainPlan) -> JsonObject:
    """Arguments of TRL's SFTConfig beside those of `trainer_settings`: what concerns samples, not pairs."""
    return {
        **OF_SAMPLES,
        "neftune_noise_alpha": plan.train.neftune_noise_alpha,
        "padding_free": plan.train.sample_packing == "auto",
        "use_liger_kernel": _takes_liger(plan),
    }


def _takes_liger(plan: TrainPlan) -> bool:
    if plan.train.kernels == "auto":
        return plan.gpus_per_worker > 0 and has_package(LIGER)
    return plan.train.kernels == "liger"


def keep_in_float32(trainer: SFTTrainer) -> None:
    """Undo TRL's cast of an adapter on a quantised base to bfloat16, in which small updates are lost."""
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


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
