"""Preference training goes on from the adapter, measures against it, and can be resumed; TRL does the rest."""

import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from builders import assistant, make_call, make_plan, make_sample, user, write_tiny_adapter
from datasets import Dataset
from safetensors.torch import load_file

from orchestrator.chat.rendering import chat_format
from orchestrator.config.preferences import PreferenceLoss
from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
from orchestrator.data.preferences.choose import show_pair
from orchestrator.data.preferences.pair import Candidate
from orchestrator.models.adapters import WEIGHTS
from orchestrator.models.base import base_tokenizer
from orchestrator.training.pair_trainer import PairTrainer, loss_settings, make_pair_trainer
from orchestrator.training.plan import PairLearning, TrainPlan
from orchestrator.training.worker import settle_checkpointing, trainer_settings

CITIES = ("Rome", "Oslo", "Cairo", "Lima")
TINY = ModelConfig(base="tiny", dtype="float32")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TrainPlan:
    """Four pairs on the tiny base, from an adapter that changes what the base says."""
    folder = tmp_path_factory.mktemp("pairs")
    write_tiny_adapter(folder / "start", rank=8)
    form = chat_format(base_tokenizer(TINY), thinking=False)
    rows = [show_pair(form, _candidate(city))[1]._asdict() for city in CITIES]
    for part in ("train", "val"):
        Dataset.from_list(rows).save_to_disk(str(folder / part))
    return make_plan(
        model=TINY,
        lora=LoraConfig(r=8, alpha=16),
        train=TrainConfig(learning_rate=1e-4, batch_size=4, micro_batch_size=2, scheduler="constant_with_warmup"),
        train_tokens=str(folder / "train"),
        val_tokens=str(folder / "val"),
        max_steps=4,
        eval_steps=2,
        warmup_steps=0,
        start=str(folder / "start"),
        pairs=PairLearning(beta=0.1, loss="sigmoid", sft_weight=0.0),
    )


def _candidate(city: str) -> Candidate:
    sample = make_sample(user(f"How warm is {city}?"), assistant("", make_call(city=city)), id=city)
    return Candidate(sample, "I cannot help with that.", "own_replies")


def _trainer(plan: TrainPlan, folder: Path) -> PairTrainer:
    settings = trainer_settings(plan) | {"output_dir": str(folder), "ddp_backend": None}  # one process
    return make_pair_trainer(plan, settings, callbacks=[])


def _weights(model: Any, name: str) -> dict[str, torch.Tensor]:
    mark = f".{name}."
    found = {key.replace(mark, "."): value.detach().clone() for key, value in model.named_parameters() if mark in key}
    assert found
    return found


def test_preferences_are_measured_against_the_adapter_and_not_the_base(plan: TrainPlan, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)

    trainer.model.delete_adapter("ref")  # without that copy TRL's reference is the base
    assert abs(trainer.evaluate()["eval_loss"] - math.log(2)) > 0.01


@pytest.fixture(scope="module")
def whole(plan: TrainPlan, tmp_path_factory: pytest.TempPathFactory) -> PairTrainer:
    """A training from its beginning to its end."""
    trainer = _trainer(plan, tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


def test_training_moves_the_adapter_and_neither_its_reference_nor_the_base(plan: TrainPlan, whole: PairTrainer) -> None:
    start = load_file(Path(str(plan.start)) / WEIGHTS)
    reference, after = _weights(whole.model, "ref"), _weights(whole.model, "default")
    assert len(start) == len(reference) == len(after)
    assert all(torch.equal(value, start[key]) for key, value in reference.items())
    assert any(not torch.equal(value, start[key]) for key, value in after.items())
    assert {key for key, value in whole.model.named_parameters() if value.requires_grad} == {
        key for key, _ in whole.model.named_parameters() if ".default." in key
    }
    losses = [entry["eval_loss"] for entry in whole.state.log_history if "eval_loss" in entry]
    assert losses[-1] < losses[0] < math.log(2)
    margins = [entry["eval_rewards/margins"] for entry in whole.state.log_history if "eval_rewards/margins" in entry]
    assert margins[-1] > margins[0] > 0


def test_a_checkpoint_is_a_plain_adapter_from_which_training_resumes(
    plan: TrainPlan, whole: PairTrainer, tmp_path: Path
) -> None:
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    assert load_file(checkpoint / WEIGHTS).keys() == load_file(Path(str(plan.start)) / WEIGHTS).keys()
    assert [path.name for path in checkpoint.iterdir() if path.is_dir()] == []

    resumed = _trainer(plan, tmp_path)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    after, reference = _weights(resumed.model, "default"), _weights(resumed.model, "ref")
    assert all(torch.allclose(after[key], value, atol=1e-6) for key, value in _weights(whole.model, "default").items())
    assert all(torch.equal(reference[key], value) for key, value in _weights(whole.model, "ref").items())


def test_the_better_reply_has_a_loss_of_its_own_where_that_is_asked_for(plan: TrainPlan, tmp_path: Path) -> None:
    pairs = PairLearning(beta=0.1, loss="sigmoid", sft_weight=0.5)
    assert loss_settings(pairs)["loss_weights"] == [1.0, 0.5]
    with_own = _trainer(plan.model_copy(update={"pairs": pairs}), tmp_path).evaluate()["eval_loss"]
    assert with_own > math.log(2) + 0.05


@pytest.mark.parametrize("loss", get_args(PreferenceLoss))
def test_every_loss_of_the_configuration_is_known_to_trl(loss: str, whole: PairTrainer) -> None:
    before, whole.loss_types = whole.loss_types, [loss]
    try:
        assert math.isfinite(whole.evaluate()["eval_loss"])
    finally:
        whole.loss_types = before


def test_recomputing_is_settled_by_the_longest_pair(plan: TrainPlan) -> None:
    open_plan = plan.model_copy(update={"train": plan.train.model_copy(update={"gradient_checkpointing": "auto"})})
    assert settle_checkpointing(open_plan, 1).train.gradient_checkpointing is False


def test_a_plan_of_samples_has_the_digest_that_it_had() -> None:
    assert "pairs" not in json.loads(make_plan().model_dump_json())
