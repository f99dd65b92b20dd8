"""What the base would do to a run: can it be adapted, packed, held in memory and served?"""

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from evals.check.card import Finding, fatal, warning
from evals.generate.engine import served_architectures
from evals.judge.second_opinion import judge_model
from orchestrator.config.evaluation import JudgeConfig
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.models.base import (
    BaseWeights,
    base_folder,
    base_tokenizer,
    empty_base,
    load_frozen_base,
    load_tokenizer,
    require_its_precision,
)
from orchestrator.models.start import require_start
from orchestrator.models.targets import require_shardable, require_targets
from orchestrator.multi_lora.base_checks import decoder_and_head, require_causal_rows
from orchestrator.multi_lora.suited import require_suited

SMALL_BYTES = 2**30
"""Weights up to this size are loaded and tried; of larger ones the layers and the files' headers are looked at."""


def base_findings(config: RunConfig, *, longest: int) -> Iterator[Finding]:
    """Everything that concerns the base and the judge; `longest` is the longest trained sample in tokens."""
    folder = base_folder(config.model)
    try:
        require_its_precision(config)
        model = empty_base(folder, trust_remote_code=config.model.trust_remote_code)
        size = BaseWeights(folder).require_whole()
        require_start(config, model)
        require_targets(model, config.lora.target_modules)
        if config.train.sharding == "fsdp":
            require_shardable(model)
        small = _try_weights(config, folder) if size <= SMALL_BYTES else None
    except InputError as error:
        yield Finding(stops=True, text=str(error))
        return
    if config.trains_multi_lora:
        yield from _engine(config, model, small, longest=longest)
    yield from _architecture(model, "model.base")
    known = model.get_input_embeddings().num_embeddings
    tokens = len(base_tokenizer(config.model))
    if tokens > known:
        what = f"the tokenizer has {tokens:,} tokens and the base has embeddings of only {known:,}"
        yield fatal(what, where="model.base", fix="Use the tokenizer that the base was trained with")
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest > limit:
        what = f"the longest sample has {longest:,} tokens and the base knows {limit:,} positions"
        yield warning(what, where="data.max_length", allowed=f"up to {limit}", fix="Lower it to what the base knows")
    if config.eval.judge is not None:
        yield from _judge(config.eval.judge)


def _try_weights(config: RunConfig, folder: Path) -> PreTrainedModel:
    logging.disable_progress_bar()
    return load_frozen_base(folder, config.model, on_gpu=torch.cuda.is_available()).eval()


def _engine(
    config: RunConfig, model: PreTrainedModel, loaded: PreTrainedModel | None, *, longest: int
) -> Iterator[Finding]:
    """Whether the multi-LoRA engine can train on the base; where it cannot, `auto` takes the other runner by itself."""
    try:
        require_suited(model, config.lora.target_modules, longest=longest)
        if loaded is not None:
            require_causal_rows(loaded, *decoder_and_head(loaded))
    except InputError as error:
        if config.search.runner != "auto":
            yield Finding(stops=True, text=str(error))
            return
        what = f"auto will train each trial as a job of its own, which takes longer: {error.what}"
        yield warning(what, where="search.runner", fix="Set it to isolated to say so yourself")


def _architecture(model: PreTrainedModel, where: str) -> Iterator[Finding]:
    """Whether vLLM has the model; without vLLM on this machine nothing is known."""
    served = served_architectures()
    names = model.config.architectures or [type(model).__name__]
    if served and not set(names) & served:
        what = f"vLLM lists no model of the class {names[0]}, so evaluation may fail after all training"
        yield warning(what, where=where, fix="Use a base of a family that vLLM serves, such as Qwen3 or Llama")


def _judge(judge: JudgeConfig) -> Iterator[Finding]:
    try:
        folder = base_folder(judge_model(judge))
        load_tokenizer(folder, trust_remote_code=judge.trust_remote_code)
        BaseWeights(folder).require_whole()
        model = empty_base(folder, trust_remote_code=judge.trust_remote_code)
    except InputError as error:
        fix = (error.fix or "Name another model").replace("model.base", "eval.judge.base")
        yield fatal(f"the judge cannot be used: {error.what}", where="eval.judge.base", fix=fix)
        return
    yield from _architecture(model, "eval.judge.base")
