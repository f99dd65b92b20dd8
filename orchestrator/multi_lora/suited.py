"""Whether the multi-LoRA engine can train on a base, judged without its weights."""

import copy
from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from orchestrator.multi_lora.base_checks import decoder_and_head, require_causal_rows, require_steady_positions
from orchestrator.multi_lora.layers import adapted_layers

_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 256,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}
"""Sizes of a small model of the same kind, by the names that transformers gives them."""


def require_suited(model: PreTrainedModel, target_modules: str | Sequence[str], *, longest: int) -> None:
    """Refuse a base that the engine cannot train on, by its layers and by passes through a small model of its kind.

    `model` may lie on the meta device. A kind of which no small model can be made is judged by its layers alone.

    Raises:
        InputError: With what the engine lacks for it.
    """
    decoder_and_head(model)
    adapted_layers(model, target_modules)
    require_steady_positions(model, longest=longest)
    small = small_of_its_kind(model.config)
    if small is not None:
        require_causal_rows(small, *decoder_and_head(small))


def small_of_its_kind(config: PretrainedConfig) -> PreTrainedModel | None:
    """A small model of a base's architecture with random weights; None where its sizes cannot be set like this."""
    text = copy.deepcopy(config.get_text_config())
    for name, size in _SMALL.items():
        if getattr(text, name, None) is not None:
            setattr(text, name, size)
    if kinds := getattr(text, "layer_types", None):
        text.layer_types = sorted(set(kinds), key=kinds.index)[-text.num_hidden_layers :] * text.num_hidden_layers
        text.layer_types = text.layer_types[: text.num_hidden_layers]
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, None)
    try:
        made: PreTrainedModel = AutoModelForCausalLM.from_config(text, dtype=torch.float32).eval()
        made(input_ids=torch.arange(4)[None], use_cache=False)
    except Exception:  # noqa: BLE001 - a kind whose sizes belong together in another way may fail in any way here
        return None
    return made
