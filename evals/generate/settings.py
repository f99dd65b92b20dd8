"""What an engine is told so that it replies as the configuration says."""

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from evals.generate.engine import EngineSettings, Prompt
from evals.generate.engines import engine_kv_cache_bytes
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.rendering import reply_format_of, template_stop_ids
from orchestrator.chat.serve_command import smallest_served_rank
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.models.base import base_folder, load_settings


def settings_of_run(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[Prompt],
    *,
    ranks: Sequence[int],
    on_gpu: bool,
    merges: bool = False,
) -> EngineSettings:
    """Settings under which the run's base and adapters of these ranks are scored on the prompts.

    `merges` is whether one of them is DoRA.

    Raises:
        ConfigError: If nothing says how the base writes calls, or GPUs cannot share the base evenly.
    """
    reply_format = reply_format_of(config.eval.reply_format, tokenizer)
    require_divisible_heads(config)
    if merges and config.eval.tensor_parallel > 1:
        what = "DoRA is merged into one process's weights, and an engine over several GPUs has several"
        raise ConfigError(what, where="eval.tensor_parallel", fix="Leave it out, or leave the DoRA adapter out")
    return engine_settings(
        config,
        config.served_model,
        prompts,
        max_model_len=config.eval.max_model_len,
        on_gpu=on_gpu,
        max_lora_rank=smallest_served_rank(ranks),
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.eval.temperature,
        reply_format=reply_format,
        reasoning_parser=REPLY_FORMATS[reply_format].reasoning_parser if config.data.thinking else None,
        stop_token_ids=template_stop_ids(tokenizer),
        tensor_parallel=config.eval.tensor_parallel,
        merges=merges,
    )


def require_divisible_heads(config: RunConfig) -> None:
    """Refuse a base whose attention heads `eval.tensor_parallel` GPUs cannot share evenly: vLLM does not start then.

    Raises:
        ConfigError: Naming both numbers.
    """
    parts = config.eval.tensor_parallel
    if parts == 1:
        return
    text = load_settings(base_folder(config.model), trust_remote_code=config.model.trust_remote_code).get_text_config()
    if text.num_attention_heads % parts:
        what = f"{parts} GPUs cannot share the {text.num_attention_heads} attention heads of the base evenly"
        raise ConfigError(what, where="eval.tensor_parallel", fix="Set it to a divisor of that number")


def engine_settings(
    config: RunConfig, model: ModelConfig, prompts: Iterable[Prompt], *, max_model_len: int | None = None, **fields: Any
) -> EngineSettings:
    """Settings for prompts to a model; without a limit, its engines take the longest of them and a whole reply."""
    wanted = max_model_len or max(len(prompt.token_ids) for prompt in prompts) + fields["max_new_tokens"]
    return EngineSettings(
        base=model,
        dtype=model.dtype,
        max_model_len=min(wanted, longest_of_model(model)),
        kv_cache_bytes=engine_kv_cache_bytes(config.eval.kv_cache_gib, on_gpu=fields["on_gpu"]),
        seed=config.eval.seed,
        **fields,
    )


def longest_of_model(model: ModelConfig) -> int:
    """Tokens of the longest prompt and reply that the model takes."""
    limits = AutoConfig.from_pretrained(base_folder(model), trust_remote_code=model.trust_remote_code)
    longest: int = limits.get_text_config().max_position_embeddings
    return longest
