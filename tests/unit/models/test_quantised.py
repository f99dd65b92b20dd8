"""The toy base in 4 and 8 bits, on a processor."""

import copy
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from multi_lora_builders import small_base
from transformers import PreTrainedModel

from orchestrator.config.schema import LoraConfig, ModelConfig
from orchestrator.core.errors import InputError
from orchestrator.models.base import empty_base, load_frozen_base
from orchestrator.models.dequantised import DequantisedWeights, weights_of
from orchestrator.models.quantised import NORM, dequantised, frozen_weight, is_nf4, is_quantised
from orchestrator.plan.memory import BYTES, weights_bytes
from orchestrator.plan.shapes import base_shape
from orchestrator.toy.tiny import tiny_base_folder

KINDS = (Linear4bit, Linear8bitLt)
IDS = torch.arange(40).reshape(2, 20)


def loaded(quantization: str, dtype: str = "bfloat16") -> PreTrainedModel:
    model = ModelConfig.model_validate({"base": "tiny", "quantization": quantization, "dtype": dtype})
    return load_frozen_base(tiny_base_folder(), model).eval()


@pytest.mark.parametrize(("quantization", "layer"), [("nf4", Linear4bit), ("int8", Linear8bitLt)])
def test_linear_layers_are_quantised_but_not_the_head(quantization: str, layer: type) -> None:
    model = loaded(quantization)
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    assert is_quantised(model)
    assert {type(module) for module in linear} == {layer}
    assert (type(head), head.weight.dtype) == (torch.nn.Linear, torch.bfloat16)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_the_plan_counts_the_bytes_that_the_weights_take(quantization: str) -> None:
    model = loaded(quantization)
    shape = base_shape(empty_base(tiny_base_folder(), trust_remote_code=False), LoraConfig())
    planned = weights_bytes(shape, "bfloat16", quantization) - shape.largest * BYTES["bfloat16"]  # type: ignore[arg-type]
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if quantization == "nf4":  # its scales are no parameters
        held += sum(
            tensor.numel() * tensor.element_size()
            for module in model.modules()
            if is_nf4(module)
            for tensor in (module.weight.quant_state.absmax, module.weight.quant_state.state2.absmax)
        )
    assert planned == pytest.approx(held, rel=0.01)
    assert planned < 0.75 * shape.parameters * BYTES["bfloat16"]


def test_norms_are_kept_and_computed_in_float32_and_hand_on_the_dtype_of_products() -> None:
    model = loaded("nf4")
    norms = {name: module for name, module in model.named_modules() if type(module).__name__.lower().endswith(NORM)}
    given: dict[str, tuple[torch.dtype, torch.dtype]] = {}
    for name, norm in norms.items():
        norm.register_forward_hook(
            lambda _norm, inputs, output, name=name: given.update({name: (inputs[0].dtype, output.dtype)})
        )
    model(input_ids=IDS)
    assert {norm.weight.dtype for norm in norms.values()} == {torch.float32}
    assert given == dict.fromkeys(norms, (torch.float32, torch.bfloat16))


@pytest.mark.parametrize(("dtype", "alike"), [("bfloat16", 0.999), ("float16", 0.999), ("float32", 0.999999)])
def test_a_base_in_four_bits_computes_what_its_dequantised_matrices_do(dtype: str, alike: float) -> None:
    model = loaded("nf4", dtype)
    plain = loaded("none", dtype)
    exact = copy.deepcopy(plain)
    for name, module in model.named_modules():
        if is_nf4(module):
            exact.get_submodule(name).weight.copy_(frozen_weight(module))
    made, wanted, before = (its(input_ids=IDS).logits.float().flatten() for its in (model, exact, plain))
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(made, wanted, dim=0) > alike
    assert 0.9 < similarity(made, before, dim=0) < alike


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_dequantised_weights_are_those_that_the_quantised_base_computes_with(
    quantization: str, dtype: str, stored: torch.dtype, tmp_path: Path
) -> None:
    small_base("llama", dtype=stored, hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    model = ModelConfig.model_validate({"base": str(tmp_path), "quantization": quantization, "dtype": dtype})
    weights, base = weights_of(model), load_frozen_base(tmp_path, model)
    assert isinstance(weights, DequantisedWeights)
    quantised = {f"{name}.weight" for name, module in base.named_modules() if isinstance(module, KINDS)}
    assert weights.quantised == quantised
    for name in sorted(quantised):
        layer = base.get_submodule(name.removesuffix(".weight"))
        mine = weights.tensor(name)
        assert mine.dtype == getattr(torch, dtype)
        ones = torch.eye(layer.in_features, dtype=mine.dtype)
        theirs = frozen_weight(layer) if quantization == "nf4" else layer(ones).T
        bound = 0.0 if quantization == "nf4" else 0.02 * float(mine.abs().max())
        assert (mine - theirs).abs().max() <= bound
    head = weights.tensor("lm_head.weight")
    assert head.dtype == stored


def test_a_width_that_processors_get_wrong_is_refused_and_dequantised_right(tmp_path: Path) -> None:
    small_base("llama", dtype=torch.float32).save_pretrained(tmp_path)
    model = ModelConfig(base=str(tmp_path), quantization="nf4", dtype="float32")
    with pytest.raises(InputError, match=r"takes 32 features, and on a processor nf4 needs a multiple of 64"):
        load_frozen_base(tmp_path, model)
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    assert 0.05 < (dequantised(weight, "nf4") - weight).norm() / weight.norm() < 0.11
