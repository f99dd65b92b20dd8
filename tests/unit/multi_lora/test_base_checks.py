import copy
from contextlib import nullcontext

import pytest
import torch
from multi_lora_builders import (
    TRAIN,
    VAL,
    difference,
    make_engine,
    make_spec,
    same_bits,
    small_base,
    train_steps,
)
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from orchestrator.core.errors import InputError
from orchestrator.multi_lora.base_checks import (
    checkpoint_layers,
    decoder_and_head,
    require_causal_rows,
    require_steady_positions,
)
from orchestrator.multi_lora.engine import MultiLoraEngine

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3_text", "mistral", "gpt_neox", "bloom", "qwen3_next"])
def test_causal_models_pass(kind: str, dtype: torch.dtype) -> None:
    model = small_base(kind, dtype=dtype)
    require_causal_rows(model, *decoder_and_head(model))


def test_the_toy_base_passes(tiny_base: PreTrainedModel) -> None:
    decoder, head = decoder_and_head(tiny_base)
    require_causal_rows(tiny_base, decoder, head)
    assert head is tiny_base.lm_head
    assert decoder is tiny_base.model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.02, 0.2])
@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ("gemma2", {}, "changes the logits behind its output head"),
        ("gemma2", {"final_logit_softcapping": 1000.0}, "changes the logits behind its output head"),
        ("granite", {}, "changes the logits behind its output head"),
        ("granite", {"logits_scaling": 1.02}, "changes the logits behind its output head"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "what follows a token"),
    ],
)
def test_bases_that_do_more_than_causal_rows_and_a_head_are_refused_in_every_type(
    kind: str, settings: dict[str, object], why: str, scale: float, dtype: torch.dtype
) -> None:
    model = small_base(kind, dtype=dtype, initializer_range=scale, **settings)
    with pytest.raises(InputError, match=why) as caught:
        MultiLoraEngine(model, TRAIN, VAL, batch_size=2, micro_batch_size=2)
    assert "Set search.runner to isolated" in str(caught.value)


class DoublesItsHiddenStates(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: object) -> CausalLMOutput:
        hidden = self.model.model(**inputs).last_hidden_state
        return CausalLMOutput(logits=self.model.lm_head(2 * hidden))


def test_hidden_states_that_change_in_front_of_the_head_are_refused() -> None:
    model = small_base()
    with pytest.raises(InputError, match="it changes the hidden states in front of its output head"):
        require_causal_rows(DoublesItsHiddenStates(model), *decoder_and_head(model))


def test_a_head_with_a_bias_is_refused() -> None:
    model = small_base()
    model.lm_head = torch.nn.Linear(32, 208, bias=True)
    with pytest.raises(InputError, match="its output head is not a plain linear layer"):
        decoder_and_head(model)


def test_a_decoder_that_cannot_be_told_from_its_head_is_refused() -> None:
    model = small_base()
    model.get_decoder = lambda: model
    with pytest.raises(InputError, match="cannot be told apart from its output head"):
        decoder_and_head(model)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3_text", "gpt_neox", "qwen3_next"])
def test_checkpointing_changes_no_bit(kind: str) -> None:
    model = small_base(kind)
    specs = {"a": make_spec(4), "b": make_spec(32, dropout=0.3, seed=8)}
    kept, recomputed = (
        make_engine(model, specs, micro_batch_size=3, gradient_checkpointing=each) for each in (False, True)
    )
    assert train_steps(kept, 3) == train_steps(recomputed, 3)
    assert kept.eval_loss(["a", "b"]) == recomputed.eval_loss(["a", "b"])
    for name in specs:
        assert same_bits(kept.export(name), recomputed.export(name))
        assert difference(kept.gradient(name), recomputed.gradient(name)) == 0


def test_checkpointing_recomputes_layers() -> None:
    model = small_base()
    calls = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    for recompute, number in ((False, 2), (True, 4)):
        engine = make_engine(model, {"a": make_spec()}, gradient_checkpointing=recompute)
        calls.clear()
        engine.train_step()
        assert len(calls) == number


def test_checkpointing_leaves_the_bases_own_dropout_off() -> None:
    """XGLM's layers drop a tenth of their hidden states while they count as training."""
    model = small_base("xglm")
    kept, recomputed = (make_engine(model, {"a": make_spec()}, gradient_checkpointing=each) for each in (False, True))
    assert train_steps(kept, 2) == train_steps(recomputed, 2)
    assert kept.eval_loss(["a"]) == recomputed.eval_loss(["a"])


def test_a_layer_counts_as_training_again_after_a_failed_pass() -> None:
    model = copy.deepcopy(small_base())
    checkpoint_layers(model)
    layer = model.model.layers[0]
    failing = layer.mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(input_ids=torch.zeros(1, 3, dtype=torch.long))
    failing.remove()
    assert layer.training
    assert not layer.mlp.training


@pytest.mark.parametrize(("longest", "is_refused"), [(32, False), (33, True)])
def test_positions_that_the_longest_row_scales_are_refused_beyond_their_limit(longest: int, is_refused: bool) -> None:
    model = small_base("llama")
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model.config.max_position_embeddings = 32
    with pytest.raises(InputError, match="beyond 32 tokens") if is_refused else nullcontext():
        require_steady_positions(model, longest=longest)
