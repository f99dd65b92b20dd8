"""Slots on a base in four bits train what PEFT trains on the same base, and company changes nothing."""

from pathlib import Path

import pytest
import torch
from multi_lora_builders import (
    TRAIN,
    difference,
    flat,
    make_engine,
    make_spec,
    relative_differences,
    rows_keep_their_bits,
    same_bits,
    small_base,
    train_steps,
)
from multi_lora_reference import train_alone
from transformers import PreTrainedModel

from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import InputError
from orchestrator.models.base import load_frozen_base
from orchestrator.models.quantised import is_nf4
from orchestrator.multi_lora.slots import initial_state
from orchestrator.toy.tiny import tiny_base_folder

SPECS = {
    "rank 8": make_spec(8, learning_rate=1e-3, seed=1),
    "rsLoRA, dropout": make_spec(4, use_rslora=True, dropout=0.2, weight_decay=0.1, seed=2),
    "rank 32, clipped": make_spec(32, learning_rate=2e-3, max_grad_norm=1e-2, seed=3),
}
BATCH, STEPS = 4, 4


def quantised(folder: Path, *, kind: str = "nf4", dtype: str = "float32", family: str = "") -> PreTrainedModel:
    """The toy base, or a small one of a family, in few bits."""
    base = tiny_base_folder()
    if family:
        small_base(family, dtype=getattr(torch, dtype), hidden_size=64, intermediate_size=128).save_pretrained(folder)
        base = folder
    model = ModelConfig.model_validate({"base": str(base), "quantization": kind, "dtype": dtype})
    return load_frozen_base(base, model)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("family", ["", "llama"])
def test_in_float32_slots_are_the_reference_but_for_rounding(
    family: str, gradient_checkpointing: bool, tmp_path: Path
) -> None:
    """The bounds are those of `test_exactness` for the toy base; its for gradients are of bases of half the width."""
    model = quantised(tmp_path, family=family)
    assert any(is_nf4(module) for module in model.modules())
    engine = make_engine(
        model, SPECS, batch_size=BATCH, micro_batch_size=3, gradient_checkpointing=gradient_checkpointing
    )
    first = engine.train_step()
    gradients = {name: engine.gradient(name) for name in SPECS}
    results = train_steps(engine, STEPS - 1)
    for name, spec in SPECS.items():
        once = train_alone(model, TRAIN, spec, batch_size=BATCH, steps=1)
        assert difference(gradients[name], once.gradient) < 2e-6 * flat(once.gradient).abs().max()
        alone = train_alone(model, TRAIN, spec, batch_size=BATCH, steps=STEPS)
        losses = [result.loss for result in (first[name], *results[name])]
        norms = [result.grad_norm for result in (first[name], *results[name])]
        assert relative_differences(losses, alone.losses) < 1e-6
        assert relative_differences(norms, alone.grad_norms) < 1e-5
        assert min(norms) > 0
        wrong = flat(engine.export(name).adapter) - flat(alone.state.adapter)
        moved = flat(alone.state.adapter) - flat(initial_state(spec, engine.targets).adapter)
        assert wrong.norm() < 1e-3 * moved.norm()


def test_in_bfloat16_a_slot_is_near_the_reference(tmp_path: Path) -> None:
    model = quantised(tmp_path, dtype="bfloat16", family="llama")
    engine = make_engine(model, SPECS, batch_size=BATCH, micro_batch_size=3)
    results = train_steps(engine, STEPS)
    for name, spec in SPECS.items():
        alone = train_alone(model, TRAIN, spec, batch_size=BATCH, steps=STEPS)
        assert relative_differences([result.loss for result in results[name]], alone.losses) < 3e-3


@pytest.mark.skipif(
    not rows_keep_their_bits(torch.bfloat16), reason="the products of this machine depend on the number of rows"
)
def test_no_bit_depends_on_the_company(tmp_path: Path) -> None:
    model = quantised(tmp_path, dtype="bfloat16", family="llama")
    mine = make_spec(8, max_grad_norm=0.5)
    alone = make_engine(model, {"mine": mine}, micro_batch_size=3)
    company = {"a": make_spec(4), "mine": mine, "b": make_spec(64, dropout=0.3)}
    together = make_engine(model, company, micro_batch_size=3)
    assert train_steps(together, 3)["mine"] == train_steps(alone, 3)["mine"]
    assert same_bits(together.export("mine"), alone.export("mine"))
    assert together.eval_loss(["mine"]) == alone.eval_loss(["mine"])


def test_a_base_in_eight_bits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another row, changes what it computes"):
        make_engine(quantised(tmp_path, kind="int8"), {})
