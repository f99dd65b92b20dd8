from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from orchestrator.core.errors import ConfigError
from orchestrator.models.base import empty_base
from orchestrator.models.targets import require_shardable, require_targets


@pytest.mark.parametrize(
    "targets", ["all-linear", ("q_proj",), ("q_proj", "down_proj"), ("model.layers.0.self_attn.q_proj",)]
)
def test_names_of_linear_layers_are_taken(model_folder: Path, targets: str | tuple[str, ...]) -> None:
    require_targets(empty_base(model_folder, trust_remote_code=False), targets)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (("q_prj",), "no layer called 'q_prj'.*Allowed: down_proj, .*Perhaps q_proj is meant"),
        (("q_proj", "v_prj"), "no layer called 'v_prj'.*Perhaps v_proj is meant"),
        (("mlp",), "'mlp' is no linear layer but one of the class Qwen3MLP"),
        (("embed_tokens",), "of the class Embedding"),
        (("lm_head",), "the output head, whose weights are those of the embedding"),
    ],
)
def test_any_other_name_is_refused_with_those_there_are(
    model_folder: Path, targets: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        require_targets(empty_base(model_folder, trust_remote_code=False), targets)


def test_the_linear_layers_of_gpt2_are_convolutions_in_name_only() -> None:
    for targets in ("all-linear", ["c_attn", "c_proj"]):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1))
        require_targets(model, targets)
        settings = LoraConfig(task_type="CAUSAL_LM", target_modules=targets, fan_in_fan_out=True)
        assert get_peft_model(model, settings).get_nb_trainable_parameters()[0] > 0


def test_all_linear_layers_of_a_mixture_of_experts_hold_what_is_not_served() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3_moe", num_hidden_layers=2, num_experts=4))
    with pytest.raises(ConfigError, match=r"experts, a Qwen3MoeExperts, and vLLM serves no adapter on that") as caught:
        require_targets(model, "all-linear")
    assert caught.value.fix == "Set it to [k_proj, o_proj, q_proj, v_proj]"
    require_targets(model, ("k_proj", "o_proj", "q_proj", "v_proj"))
    assert not any("lora" in name for name, _ in model.named_modules())


def test_a_base_that_names_no_layers_cannot_be_split(model_folder: Path) -> None:
    model = empty_base(model_folder, trust_remote_code=False)
    require_shardable(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_no_split_modules", None)
        with pytest.raises(ConfigError, match=r"^train.sharding: .* does not name its decoder layers"):
            require_shardable(model)
