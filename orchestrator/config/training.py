"""The sections `lora` and `train` of the configuration: one adapter, and how it is optimised."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.evaluation import Fraction, PositiveInt, Section, Seed

ServableRank = Literal[1, 2, 4, 8, 16, 32, 64, 128, 256]
"""LoRA ranks that vLLM serves without waste: each fits an allowed `max_lora_rank` (1, 8, 16, 32, 64, 128, 256, ...)."""

Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
Sharding = Literal["none", "fsdp"]
SamplePacking = Annotated[Literal["off", "auto"], BeforeValidator(lambda value: "off" if value is False else value)]
"""YAML reads `off` as false."""
LoraInit = Literal["kaiming", "gaussian", "orthogonal"]

EVALUATIONS_PER_RUN = 10
"""Evaluations of a training, where the configuration does not say how often."""

CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")
LOOK_AT_DATA = ("eva", "lora_ga")


def _leaves_the_base(init: Any) -> Any:
    """Say why a start that PEFT has is not to be had here."""
    name = str(init).lower()
    if name.startswith(CHANGE_THE_BASE):
        what = f"'{init}' takes the adapter's start out of the base's own weights"
        raise ValueError(f"{what}, so that the adapter would be wrong on the base that is served")
    if name in LOOK_AT_DATA:
        raise ValueError(f"'{init}' starts from activations or gradients of the data, which is not done here")
    return init


class LoraConfig(Section):
    """The adapter."""

    r: ServableRank = 16
    """Rank."""
    alpha: PositiveInt = 16
    """Scale: updates are multiplied by alpha / r (alpha / sqrt(r) with rsLoRA)."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Module names to adapt; `all-linear` is every linear layer but the output head (LoRA Without Regret, 2025)."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r), which keeps one learning rate usable over ranks (arXiv 2312.03732)."""
    use_dora: bool = Field(default=False, exclude_if=lambda value: not value)
    """Learn the length of each output's weights apart from their direction (DoRA, arXiv 2402.09353). It trains with
    `search.runner: isolated` alone, and vLLM serves none: such an adapter is scored, and has to be served, merged."""
    init: Annotated[LoraInit, BeforeValidator(_leaves_the_base)] = Field(
        default="kaiming", exclude_if=lambda value: value == "kaiming"
    )
    """How a new adapter starts, always as the base itself. `kaiming`: A uniform, B zero, as PEFT does by default.
    `gaussian`: A normal with a deviation of 1 / r, B zero. `orthogonal`: A and B orthogonal to each other, for even
    ranks. The latter two train with `search.runner: isolated` alone. What changes the base (PiSSA, OLoRA, CorDA, LoftQ)
    is refused."""


class TrainConfig(Section):
    """Optimisation of one adapter."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-4
    """Peak learning rate."""
    epochs: Annotated[float, Field(gt=0.0)] = 1.0
    """Passes over the training data; ignored when max_steps is set."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; None trains for `epochs`."""
    batch_size: PositiveInt = 8
    """Samples per optimizer step, over all workers."""
    micro_batch_size: PositiveInt = 2
    """Samples per forward pass on one worker."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps with a rising learning rate."""
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Learning rate after warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW weight decay on the adapter."""
    loraplus_lr_ratio: Annotated[float, Field(ge=1.0)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """How many times B's learning rate is A's, which is `learning_rate` (LoRA+, arXiv 2402.12354, which finds 16 good).
    None: the same. It trains with `search.runner: isolated` alone."""
    neftune_noise_alpha: Annotated[float, Field(gt=0.0)] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    """Noise on embeddings in training, by this over the square root of length times features (NEFTune, arXiv
    2310.05914, which takes 5 to 15). None: none. It trains with `search.runner: isolated` alone."""
    optimizer: Optimizer = Field(default="adamw", exclude_if=lambda value: value == "adamw")
    """`adamw_8bit` keeps AdamW's moments in 8 bits, `paged_adamw_8bit` also moves them out of a GPU that is full. Both
    need bitsandbytes and train with `search.runner: isolated` alone; an adapter's moments are small in any case."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are clipped to this norm."""
    eval_steps: PositiveInt | None = None
    """Optimizer steps between evaluations, each of which also saves; None evaluates ten times a run."""
    save_total_limit: PositiveInt = 1
    """Checkpoints kept of each trial: so many with the lowest eval loss, and always the latest, to resume from."""
    early_stopping_patience: PositiveInt | None = 3
    """Stop after this many evaluations without a better eval loss; None never stops early."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute layers in the backward pass, which takes half as long again and far less memory. `auto` does so where
    `orchestrator plan` says that training would not fit otherwise. Losses are the same."""
    sample_packing: SamplePacking = Field(default="off", exclude_if=lambda value: value == "off")
    """`auto` lays the rows of a pass end to end, without padding: each attends to itself alone, and steps and losses
    are those of `off`. On a GPU with the package flash-attn it takes that. It trains with `search.runner: isolated`
    alone."""
    kernels: Literal["none", "auto", "liger"] = Field(default="none", exclude_if=lambda value: value == "none")
    """`liger` takes Liger's Triton kernels for norms and feed-forward layers, on a GPU with the package liger-kernel,
    with `search.runner: isolated` alone. `auto` does so where all of that is so."""
    backend: Literal["trl", "unsloth"] = Field(default="trl", exclude_if=lambda value: value == "trl")
    """What makes the model that TRL trains. `unsloth` takes its kernels, on one GPU with the package unsloth, with
    `search.runner: isolated` alone; rows, plan and records stay the same."""
    sharding: Sharding = Field(default="none", exclude_if=lambda value: value == "none")
    """`fsdp` splits base, adapter and AdamW's moments among the workers of a training (FSDP2), so that a base may be
    larger than a GPU; with `none` each worker has all of it. Losses are the same. It needs several workers
    (resources.num_workers), and a base that is not quantised."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Restarts from the last checkpoint after a worker or node is lost."""
    seed: Seed = 0
    """Adapter initialisation, data order and dropout."""
    init_from: Annotated[str, Field(min_length=1)] | None = Field(default=None, exclude_if=lambda value: value is None)
    """A LoRA adapter to go on from, in `train` and in every trial of `search`: a folder that PEFT saved, relative to
    the config file's folder, or a hub id. Rank, alpha, rsLoRA and layers are the adapter's. None starts anew."""

    def steps_for(self, num_samples: int) -> int:
        """Optimizer steps of a training on so many samples that is not stopped early."""
        return self.max_steps or math.ceil(self.epochs * num_samples / self.batch_size)

    def eval_steps_for(self, steps: int) -> int:
        """Optimizer steps between the evaluations of a training of so many steps."""
        return min(self.eval_steps or math.ceil(steps / EVALUATIONS_PER_RUN), steps)

    def warmup_steps(self, steps: int) -> int:
        """How many of these steps have a rising learning rate."""
        return round(self.warmup_ratio * steps)

    @model_validator(mode="after")
    def _batches_divide(self) -> "TrainConfig":
        size, micro = self.batch_size, self.micro_batch_size
        if size % micro:
            raise ValueError(f"batch_size {size} must be a multiple of micro_batch_size {micro}")
        return self
