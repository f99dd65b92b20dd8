"""The model of a plan as Unsloth makes it: its kernels in the base's layers, an adapter of PEFT on them.

Written against Unsloth's published source, and not run: no machine with a GPU was at hand. The trainer, the rows and
all that is saved are those of `train.backend: trl`.
"""

from typing import Any

import torch

from orchestrator.models.base import base_folder, compute_dtype, empty_base
from orchestrator.models.targets import linear_names
from orchestrator.training.plan import TrainPlan


def unsloth_model(plan: TrainPlan, *, longest: int) -> Any:
    """The frozen base with a new adapter, on this process's GPU, for rows of up to `longest` tokens.

    It is loaded from the run's own folder, never from another repository that Unsloth would take for it, and its
    tokenizer is left alone.
    """
    from unsloth import FastLanguageModel

    folder, lora, seed = base_folder(plan.model), plan.lora, plan.train.seed
    checkpointing = "unsloth" if plan.train.gradient_checkpointing is True else False
    base, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=longest,
        dtype=getattr(torch, compute_dtype(plan.model.dtype)),
        load_in_4bit=plan.model.quantization == "nf4",
        fix_tokenizer=False,
        trust_remote_code=plan.model.trust_remote_code,
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,
        random_state=seed,
    )
    layers = linear_names(empty_base(folder, trust_remote_code=plan.model.trust_remote_code), lora.target_modules)
    return FastLanguageModel.get_peft_model(
        base,
        r=lora.r,
        target_modules=layers,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias="none",
        use_rslora=lora.use_rslora,
        use_gradient_checkpointing=checkpointing,
        random_state=seed,
        max_seq_length=longest,
    )
