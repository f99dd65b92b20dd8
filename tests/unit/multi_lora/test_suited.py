"""Bases are judged without their weights: by layers on the meta device, and by passes through a small model alike."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from orchestrator.core.errors import InputError
from orchestrator.multi_lora.suited import require_suited, small_of_its_kind

LARGE = {"hidden_size": 1024, "num_hidden_layers": 40, "vocab_size": 50_000}
EXPERTS = {"num_experts": 8, "moe_intermediate_size": 256}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def meta_model(family: str, **settings: int) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **LARGE, **settings))
    return model


@pytest.mark.parametrize("family", ["qwen3", "llama", "qwen2", "phi3", "olmo2", "gemma3_text"])
def test_plain_decoders_are_suited(family: str) -> None:
    require_suited(meta_model(family), "all-linear", longest=512)


@pytest.mark.parametrize(("family", "settings"), [("gemma2", {}), ("granite", {"logits_scaling": 8}), ("cohere", {})])
def test_logits_that_are_changed_behind_the_head_are_found_without_weights(
    family: str, settings: dict[str, int]
) -> None:
    with pytest.raises(InputError, match="it changes the logits behind its output head"):
        require_suited(meta_model(family, **settings), "all-linear", longest=512)


def test_experts_are_not_adapted_and_the_layers_beside_them_are() -> None:
    model = meta_model("qwen3_moe", **EXPERTS)
    with pytest.raises(InputError, match="adapts only plain linear layers"):
        require_suited(model, "all-linear", longest=512)
    require_suited(model, ATTENTION, longest=512)


def test_the_small_model_has_the_kinds_of_layers_of_the_large_one() -> None:
    config = AutoConfig.for_model("gemma2", **LARGE)
    small = small_of_its_kind(config)
    assert small is not None
    assert set(small.config.layer_types) == set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert small.config.final_logit_softcapping == config.final_logit_softcapping
    assert sum(parameter.numel() for parameter in small.parameters()) < 1e6
    assert config.hidden_size == LARGE["hidden_size"]  # the large one is as it was


def test_a_kind_of_which_no_small_model_can_be_made_is_judged_by_its_layers() -> None:
    config = AutoConfig.for_model("deepseek_v3")
    assert small_of_its_kind(config) is None
