"""What an engine needs to know at its start, and what vLLM is told of it. Pure: loads no vLLM."""

from typing import Any

from pydantic import Field

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.config.evaluation import Dtype
from orchestrator.config.schema import ModelConfig
from orchestrator.core.records import JsonObject, Record

CPU_BLOCK_TOKENS = 32
"""Prefixes are shared in blocks of this size; vLLM's 128 on a CPU shares little of ordinary tool prompts."""
UNPACKED = "unpacked"
"""The load format of what weights that were saved in few bits stand for."""
FITTING = -1
"""The `max_model_len` that vLLM lowers until the key-value cache holds it."""


class EngineSettings(Record):
    """What an engine needs to know at its start. Sizes in tokens and bytes; None leaves a size to vLLM.

    A `max_model_len` of `FITTING` is the longest that the model and the key-value cache take.

    `dtype` `auto` is decided where the engine is. `max_lora_rank` is None without adapters. `reply_format` is how calls
    are written, None where none are expected, `reasoning_parser` that of a server, None where no one thinks.
    `choices`, if any, are the only texts that a reply may be. `stop_token_ids` end one, as do vLLM's own.
    `tensor_parallel` is over how many GPUs the weights are split. `merges` is whether an adapter is DoRA, which vLLM
    takes merged alone. Of each token of a reply the `likeliest` ones are told too, so many.
    """

    base: ModelConfig
    dtype: Dtype
    on_gpu: bool
    max_model_len: int
    max_lora_rank: int | None
    kv_cache_bytes: int | None
    max_new_tokens: int
    temperature: float
    top_p: float = Field(default=1.0, exclude_if=lambda value: value == 1.0)
    seed: int
    reply_format: str | None = None
    reasoning_parser: str | None = Field(default=None, exclude_if=lambda value: not value)
    choices: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = Field(default=(), exclude_if=lambda value: not value)
    tensor_parallel: int = Field(default=1, exclude_if=lambda value: value == 1)
    merges: bool = Field(default=False, exclude_if=lambda value: not value)
    likeliest: int = Field(default=0, exclude_if=lambda value: not value)

    @property
    def serving_parser(self) -> str | None:
        """The parser of vLLM that each reply is also read with; None where there is none for the format."""
        return REPLY_FORMATS[self.reply_format].vllm_parser if self.reply_format else None


def takes_requests(settings: EngineSettings, dtype: str) -> bool:
    """Whether adapters are LoRA requests to an engine that computes in `dtype`; else their merged matrices are put in.

    vLLM's kernels for LoRA requests take half precision only, and its loader makes no base of 8 bits.
    """
    return settings.on_gpu and dtype != "float32" and settings.base.quantization != "int8" and not settings.merges


def placement(settings: EngineSettings, dtype: str, *, is_packed: bool) -> JsonObject:
    """Arguments of vLLM's `LLM` that say where and how it holds weights; `is_packed` if they were saved in few bits."""
    as_requests = takes_requests(settings, dtype)
    placed: JsonObject = {"load_format": "safetensors"}  # vLLM would read pickles, too
    if as_requests and settings.base.quantization == "nf4":
        placed = {"quantization": "bitsandbytes"}
    if not as_requests and is_packed:
        # vLLM takes such weights on GPUs alone.
        placed.update(load_format=UNPACKED, hf_overrides=_without_quantization)
    if not settings.on_gpu:
        placed.update(distributed_executor_backend="uni", enforce_eager=True, block_size=CPU_BLOCK_TOKENS)
    if settings.tensor_parallel > 1:
        # By processes of its own: Ray has reserved all these GPUs for this one.
        placed.update(tensor_parallel_size=settings.tensor_parallel, distributed_executor_backend="mp")
    if settings.kv_cache_bytes is not None:
        placed["kv_cache_memory_bytes"] = settings.kv_cache_bytes
    if as_requests and settings.max_lora_rank is not None:
        placed.update(enable_lora=True, max_loras=1, max_lora_rank=settings.max_lora_rank)
    return placed


def _without_quantization(config: Any) -> Any:
    """Transformers' configuration of a base that was saved in few bits, as that of a plain one."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config
