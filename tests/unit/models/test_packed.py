"""Bases that were saved in few bits are used as they are."""

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear8bitLt
from builders import make_config
from multi_lora_builders import small_base
from transformers import AutoModelForCausalLM

from orchestrator.config.evaluation import EvalConfig
from orchestrator.config.schema import LoraConfig, ModelConfig
from orchestrator.core.errors import ConfigError, ModelNotFoundError
from orchestrator.models.base import (
    BaseWeights,
    empty_base,
    load_frozen_base,
    require_its_precision,
    stored_quantization,
)
from orchestrator.models.dequantised import weights_of
from orchestrator.models.quantised import Quantised, frozen_weight, is_nf4, quantization_settings
from orchestrator.plan.shapes import base_shape

WIDE = {"hidden_size": 64, "intermediate_size": 128}
KINDS: tuple[Quantised, ...] = ("nf4", "int8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small base in full, and as bitsandbytes saves it in few bits."""
    place = tmp_path_factory.mktemp("saved")
    small_base("llama", dtype=torch.bfloat16, **WIDE).save_pretrained(place / "none")
    for kind in KINDS:
        settings = quantization_settings(kind, torch.float16)
        model = AutoModelForCausalLM.from_pretrained(
            place / "none", dtype=torch.bfloat16, quantization_config=settings, device_map={"": "cpu"}
        )
        model.save_pretrained(place / kind)
    return {folder.name: folder for folder in place.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_its_tensors_have_the_names_shapes_and_numbers_of_plain_ones(saved: dict[str, Path], kind: Quantised) -> None:
    plain, packed = BaseWeights(saved["none"]), BaseWeights(saved[kind], packed_as=torch.float32)
    assert (stored_quantization(saved["none"]), stored_quantization(saved[kind])) == (None, kind)
    assert (plain.is_packed, packed.is_packed) == (False, True)
    assert packed.names() == plain.names()
    assert packed.num_parameters() == plain.num_parameters()
    for name in plain.names():
        assert packed.shape(name) == plain.shape(name)
        tensor, full = packed.tensor(name).float(), plain.tensor(name).float()
        assert tensor.shape == full.shape
        assert (tensor - full).norm() <= 0.1 * full.norm()  # some are all zero


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_loaded_as_it_is_and_computes_with_these_numbers(saved: dict[str, Path], kind: Quantised) -> None:
    model = ModelConfig(base=str(saved[kind]), quantization=kind, dtype="float32")
    base, weights = load_frozen_base(saved[kind], model), weights_of(model)
    layer = base.get_submodule("model.layers.0.mlp.up_proj")
    assert is_nf4(layer) if kind == "nf4" else isinstance(layer, Linear8bitLt)
    if kind == "nf4":
        assert layer.compute_dtype == torch.float32
        assert torch.equal(frozen_weight(layer), weights.tensor("model.layers.0.mlp.up_proj.weight"))
    shape, full = (base_shape(empty_base(saved[key], trust_remote_code=False), LoraConfig()) for key in (kind, "none"))
    assert shape == full


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_another_precision_are_refused(saved: dict[str, Path], kind: Quantised, tmp_path: Path) -> None:
    fitting = make_config(tmp_path, model=ModelConfig(base=str(saved[kind]), quantization=kind))
    require_its_precision(fitting)
    require_its_precision(make_config(tmp_path, model=ModelConfig(base=str(saved["none"]), quantization="nf4")))
    with pytest.raises(ConfigError, match=f"were saved in {kind}.*Set it to {kind}") as caught:
        require_its_precision(make_config(tmp_path, base=str(saved[kind])))
    assert caught.value.where == "model.quantization"
    with pytest.raises(ConfigError, match="there is no full base"):
        require_its_precision(fitting.model_copy(update={"eval": EvalConfig(base_precision="full")}))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes, fp4"),
    ],
)
def test_another_method_is_refused_by_its_name(
    saved: dict[str, Path], tmp_path: Path, given: dict[str, object], named: str
) -> None:
    settings = json.loads((saved["none"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "quantization_config": given}))
    with pytest.raises(ModelNotFoundError, match=rf"quantised \({named}\)"):
        stored_quantization(tmp_path)
