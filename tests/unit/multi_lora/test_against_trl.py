"""Slots of one engine against TRL and PEFT as `training/worker.py` sets them up, on the same batches in float32."""

import copy
from pathlib import Path

import pytest
import torch
from builders import make_plan
from datasets import Dataset
from multi_lora_builders import flat, make_engine, make_spec, relative_differences, rows_of_at_least, train_steps
from multi_lora_runs import pairs_of
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel
from trl import SFTConfig

from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
from orchestrator.models.adapters import peft_config
from orchestrator.models.base import load_tokenizer
from orchestrator.multi_lora.batch import TokenRows, samples_of_step
from orchestrator.multi_lora.slots import Pair, SlotSpec
from orchestrator.toy.tiny import tiny_base_folder
from orchestrator.training.worker import OF_SAMPLES, StepTrainer, scale_loss_on_cpu, trainer_settings

STEPS, BATCH, MICRO_BATCH = 50, 4, 2
ROWS = rows_of_at_least(8, 30, seed=4)
SPECS = {
    "cosine": make_spec(8, learning_rate=1e-3, max_steps=STEPS, warmup_steps=3, seed=1),
    "linear, rsLoRA, decay, clipped": make_spec(
        4,
        learning_rate=2e-3,
        max_steps=STEPS,
        warmup_steps=0,
        schedule="linear",
        use_rslora=True,
        weight_decay=0.1,
        max_grad_norm=0.1,
        seed=2,
    ),
    "constant, rank 32": make_spec(
        32, learning_rate=5e-4, max_steps=STEPS, warmup_steps=10, schedule="constant_with_warmup", seed=3
    ),
}


def in_order_of_training(rows: TokenRows, spec: SlotSpec) -> Dataset:
    """The samples of all steps one after the other, as a slot sees them."""
    order = [
        index
        for step in range(spec.max_steps)
        for index in samples_of_step(len(rows), BATCH, seed=spec.seed, step=step)
    ]
    pairs = pairs_of(rows)
    return Dataset.from_list([dict(zip(("input_ids", "labels"), pairs[index], strict=True)) for index in order])


def make_trainer(
    model: PreTrainedModel,
    spec: SlotSpec,
    start: dict[str, Pair],
    folder: Path,
    rows: TokenRows = ROWS,
    *,
    gradient_checkpointing: bool = False,
) -> StepTrainer:
    """The worker's trainer for this slot's settings, in the slot's order and from its initial weights."""
    plan = make_plan(
        model=ModelConfig(base="tiny", dtype="float16" if model.dtype == torch.float16 else "float32"),
        lora=LoraConfig(r=spec.rank, alpha=spec.alpha, dropout=0.0, use_rslora=spec.use_rslora),
        train=TrainConfig(
            learning_rate=spec.learning_rate,
            scheduler=spec.schedule,
            weight_decay=spec.weight_decay,
            max_grad_norm=spec.max_grad_norm,
            batch_size=BATCH,
            micro_batch_size=MICRO_BATCH,
            gradient_checkpointing=gradient_checkpointing,
        ),
        max_steps=spec.max_steps,
        warmup_steps=spec.warmup_steps,
    )
    settings = {
        **trainer_settings(plan),
        **OF_SAMPLES,
        "train_sampling_strategy": "sequential",
        "eval_strategy": "no",
        "save_strategy": "no",
        "ddp_backend": None,  # one process
    }
    trainer = StepTrainer(
        model=copy.deepcopy(model),
        args=SFTConfig(**settings, output_dir=str(folder)),
        train_dataset=in_order_of_training(rows, spec),
        processing_class=load_tokenizer(tiny_base_folder(), trust_remote_code=False),
        peft_config=peft_config(plan.lora),
    )
    scale_loss_on_cpu(trainer)
    for name, pair in adapter_of(trainer).items():
        for weight, value in zip(pair, start[name], strict=True):
            weight.copy_(value)
    return trainer


def adapter_of(trainer: StepTrainer) -> dict[str, Pair]:
    """A and B of every layer of the trainer's model, as they are and not as copies."""
    modules = trainer.model.get_base_model().named_modules()
    return {
        name: (layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data)
        for name, layer in modules
        if isinstance(layer, LoraLayer)
    }


@pytest.mark.parametrize("names", [pytest.param(tuple(SPECS), marks=pytest.mark.slow), tuple(SPECS)[1:2]])
def test_losses_and_adapters_of_slots_are_those_of_trl(
    tiny_base: PreTrainedModel, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Measured over 3 x 50 steps: losses within 3e-7, adapters within 7e-6 of the way they have gone."""
    engine = make_engine(tiny_base, SPECS, batch_size=BATCH, micro_batch_size=MICRO_BATCH, train=ROWS)
    starts = {name: engine.export(name).adapter for name in SPECS}
    results = train_steps(engine, STEPS)
    for name in names:
        spec = SPECS[name]
        trainer = make_trainer(tiny_base, spec, starts[name], tmp_path / name)
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        assert len(logged) == STEPS
        losses = [result.loss for result in results[name]]
        assert relative_differences(losses, [entry["loss"] for entry in logged]) < 1e-5
        norms = [result.grad_norm for result in results[name]]
        assert relative_differences(norms, [entry["grad_norm"] for entry in logged]) < 1e-4
        rates = [result.learning_rate for result in results[name]]
        assert rates == pytest.approx([entry["learning_rate"] for entry in logged])
        assert [result.epoch for result in results[name]] == pytest.approx(
            [STEPS * BATCH / len(ROWS) * entry["epoch"] for entry in logged]  # its dataset holds all steps' samples
        )
        wanted, start = flat(adapter_of(trainer)), flat(starts[name])
        assert (flat(engine.export(name).adapter) - wanted).norm() < 1e-3 * (wanted - start).norm()


def test_trl_learns_the_same_where_layers_are_recomputed(tiny_base: PreTrainedModel, tmp_path: Path) -> None:
    spec = make_spec(4, learning_rate=2e-3, max_steps=4, warmup_steps=0, seed=2)
    start = make_engine(tiny_base, {"a": spec}, batch_size=BATCH, micro_batch_size=MICRO_BATCH, train=ROWS)
    seen, adapters = [], []
    for recomputes in (False, True):
        trainer = make_trainer(tiny_base, spec, start.export("a").adapter, tmp_path, gradient_checkpointing=recomputes)
        trainer.train()
        assert trainer.model.is_gradient_checkpointing is recomputes
        seen.append([(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry])
        adapters.append(flat(adapter_of(trainer)))
    kept, recomputed = seen
    assert len(kept) == spec.max_steps
    assert recomputed == [pytest.approx(pair, rel=1e-6) for pair in kept]
    torch.testing.assert_close(adapters[1], adapters[0], rtol=1e-5, atol=1e-7)


def test_slots_and_trl_count_the_same_tokens_as_likeliest(tiny_base: PreTrainedModel, tmp_path: Path) -> None:
    """Rows of one token are learned within steps, random ones are not; rows and so passes are of unequal length."""
    drawn = pairs_of(rows_of_at_least(8, 30, seed=5))
    learnable = [
        (ids, labels) if number % 2 else ([9] * len(ids), [9] * len(ids)) for number, (ids, labels) in enumerate(drawn)
    ]
    rows = TokenRows.of(learnable)
    spec = make_spec(8, learning_rate=1e-2, max_steps=8, warmup_steps=0, seed=2)
    engine = make_engine(tiny_base, {"a": spec}, batch_size=BATCH, micro_batch_size=MICRO_BATCH, train=rows)
    trainer = make_trainer(tiny_base, spec, engine.export("a").adapter, tmp_path, rows)
    results = train_steps(engine, spec.max_steps)["a"]
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    accuracies = [result.accuracy for result in results]
    assert [entry["mean_token_accuracy"] for entry in logged] == pytest.approx(accuracies, abs=1e-6)
    assert max(accuracies) > 0.2
    assert len(set(accuracies)) > 2


def test_under_a_float16_base_slots_and_trl_scale_the_loss_alike(tiny_base: PreTrainedModel, tmp_path: Path) -> None:
    """TRL runs under autocast, which keeps some results in float32: the two agree up to float16's rounding."""
    half = copy.deepcopy(tiny_base).half()
    spec = make_spec(4, learning_rate=2e-3, max_steps=6, warmup_steps=2, weight_decay=0.1, seed=2)
    engine = make_engine(half, {"a": spec}, batch_size=BATCH, micro_batch_size=MICRO_BATCH, train=ROWS)
    start = engine.export("a").adapter
    results = train_steps(engine, spec.max_steps)["a"]
    trainer = make_trainer(half, spec, start, tmp_path)
    trainer.train()
    pairs = adapter_of(trainer)
    assert {matrix.dtype for pair in pairs.values() for matrix in pair} == {torch.float32}
    scale = engine.export("a").loss_scale
    assert scale is not None
    assert trainer.accelerator.scaler.get_scale() == scale.factor == 2.0**16
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert relative_differences([result.loss for result in results], [entry["loss"] for entry in logged]) < 2e-3
    assert relative_differences([result.grad_norm for result in results], [e["grad_norm"] for e in logged]) < 2e-2
    wanted, begun = flat(pairs), flat(start)
    assert (flat(engine.export("a").adapter) - wanted).norm() < 0.1 * (wanted - begun).norm()
    trainer._save_scaler(str(tmp_path))
    assert torch.load(tmp_path / "scaler.pt")["scale"] == 2.0**16
