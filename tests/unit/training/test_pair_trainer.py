"""Preference training goes on from the adapter, measures against it, and can be resumed; TRL does the rest."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from builders import assistant, make_call, make_plan, make_sample, user, write_tiny_adapter
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file

from orchestrator.chat.rendering import chat_format
from orchestrator.config.preferences import KTO, PreferenceLoss
from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
from orchestrator.data.preferences.choose import show_pair
from orchestrator.data.preferences.pair import Candidate
from orchestrator.models.adapters import WEIGHTS
from orchestrator.models.base import base_tokenizer
from orchestrator.training.pair_trainer import (
    PairTrainer,
    ReplyTrainer,
    as_replies,
    loss_settings,
    make_pair_trainer,
    reply_settings,
)
from orchestrator.training.plan import PairLearning, TrainPlan
from orchestrator.training.prefer import num_pairs_of_replies
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


def _trainer(plan: TrainPlan, folder: Path) -> PairTrainer | ReplyTrainer:
    settings = trainer_settings(plan) | {"output_dir": str(folder), "ddp_backend": None}  # one process
    return make_pair_trainer(plan, settings, callbacks=[])


def _weights(model: Any, name: str) -> dict[str, torch.Tensor]:
    mark = f".{name}."
    found = {key.replace(mark, "."): value.detach().clone() for key, value in model.named_parameters() if mark in key}
    assert found
    return found


def test_preferences_are_measured_against_the_adapter_and_not_the_base(plan: TrainPlan, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path)
    assert _training_loss(trainer) == pytest.approx(math.log(2), abs=1e-6)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)

    trainer.model.delete_adapter("ref")  # without that copy TRL's reference is the base
    assert abs(_training_loss(trainer) - math.log(2)) > 0.01
    assert abs(trainer.evaluate()["eval_loss"] - math.log(2)) > 0.01


def _training_loss(trainer: PairTrainer | ReplyTrainer) -> float:
    """The loss of the first pass, as training computes it."""
    trainer.model.train()
    return float(trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).detach())


@pytest.fixture(scope="module")
def whole(plan: TrainPlan, tmp_path_factory: pytest.TempPathFactory) -> PairTrainer:
    """A training from its beginning to its end."""
    trainer = _trainer(plan, tmp_path_factory.mktemp("whole"))
    assert isinstance(trainer, PairTrainer)
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
    with_own = _trainer(plan.model_copy(update={"pairs": pairs}), tmp_path)
    assert _training_loss(with_own) > math.log(2) + 0.05
    assert with_own.evaluate()["eval_loss"] == pytest.approx(math.log(2), abs=1e-6)  # the same for every setting


@pytest.mark.parametrize("loss", sorted({*get_args(PreferenceLoss)} - {KTO}))
def test_every_loss_of_pairs_is_known_to_trl(loss: str, whole: PairTrainer) -> None:
    before, whole.loss_types = whole.loss_types, [loss]
    try:
        assert math.isfinite(_training_loss(whole))
    finally:
        whole.loss_types = before


@pytest.mark.parametrize("name", ["whole", "of_replies"])
def test_the_eval_loss_is_the_same_for_every_setting(name: str, request: pytest.FixtureRequest) -> None:
    """Computed again from the log probabilities of whole replies, by a plain forward pass for each."""
    trainer = request.getfixturevalue(name)
    rows = list(request.getfixturevalue("pairs_of_val"))
    better, worse = (_shifts(trainer, rows, column) for column in ("chosen_ids", "rejected_ids"))
    of_pairs = [math.log1p(math.exp(bad - good)) for good, bad in zip(better, worse, strict=True)]
    of_replies = [1 / (1 + math.exp(shift)) for shift in (*better, *(-shift for shift in worse))]
    wanted = of_pairs if name == "whole" else of_replies
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)
    assert trainer.beta == 0.1  # as in training


@pytest.fixture(scope="module")
def pairs_of_val(plan: TrainPlan) -> Dataset:
    return load_from_disk(plan.val_tokens)


def _shifts(trainer: Any, rows: Sequence[Any], column: str) -> list[float]:
    """How much likelier each reply is than at the start, as log ratios."""
    found = []
    for name in ("default", "ref"):
        trainer.model.set_adapter(name)
        found.append([_log_chance(trainer.model, row["prompt_ids"], row[column]) for row in rows])
    trainer.model.set_adapter("default")
    return [now - then for now, then in zip(*found, strict=True)]


def _log_chance(model: Any, prompt: Sequence[int], reply: Sequence[int]) -> float:
    whole = torch.tensor([[*prompt, *reply]])
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=whole).logits[0].double()
    of_next = torch.log_softmax(logits[:-1], dim=-1).gather(1, whole[0, 1:, None])[:, 0]
    return float(of_next[len(prompt) - 1 :].sum())


@pytest.fixture(scope="module")
def of_replies(plan: TrainPlan, tmp_path_factory: pytest.TempPathFactory) -> ReplyTrainer:
    """A training on the same pairs as single replies."""
    changed = plan.model_copy(update={"pairs": PairLearning(beta=0.1, loss="kto", sft_weight=0.0)})
    trainer = _trainer(changed, tmp_path_factory.mktemp("kto"))
    assert isinstance(trainer, ReplyTrainer)
    trainer.train()
    return trainer


def test_kto_goes_on_from_the_adapter_too(plan: TrainPlan, of_replies: ReplyTrainer) -> None:
    start = load_file(Path(str(plan.start)) / WEIGHTS)
    assert all(torch.equal(value, start[key]) for key, value in _weights(of_replies.model, "ref").items())
    assert any(not torch.equal(value, start[key]) for key, value in _weights(of_replies.model, "default").items())
    losses = [entry["eval_loss"] for entry in of_replies.state.log_history if "eval_loss" in entry]
    assert losses[-1] < losses[0] < 0.5
    assert of_replies.calculate_KL
    checkpoint = Path(of_replies.args.output_dir) / "checkpoint-2"
    assert [path.name for path in checkpoint.iterdir() if path.is_dir()] == []


def test_replies_alone_are_learned_with_their_labels_and_count_half_a_pair() -> None:
    rows = [
        {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]},
        {"prompt_ids": [4], "chosen_ids": [5], "rejected_ids": []},
        {"prompt_ids": [6], "chosen_ids": [7], "rejected_ids": []},
    ]
    pairs = Dataset.from_list(rows)
    replies = as_replies(pairs, passes=2, seed=0)
    found = sorted((row["prompt_ids"][0], row["completion_ids"][0], row["label"]) for row in replies)
    assert found == [(1, 2, True), (1, 3, False), (4, 5, True), (6, 7, True)]
    assert [row["KL_completion_ids"] for row in replies] == [replies[place]["completion_ids"] for place in (1, 0, 3, 2)]
    assert num_pairs_of_replies(pairs) == 2
    weights = reply_settings(PairLearning(beta=0.3, loss="kto", sft_weight=0.0), replies, passes=2)
    assert (weights["beta"], weights["desirable_weight"], weights["undesirable_weight"]) == (0.3, 1.0, 3.0)


def test_recomputing_is_settled_by_the_longest_pair(plan: TrainPlan) -> None:
    open_plan = plan.model_copy(update={"train": plan.train.model_copy(update={"gradient_checkpointing": "auto"})})
    assert settle_checkpointing(open_plan, 1).train.gradient_checkpointing is False


def test_a_plan_of_samples_has_the_digest_that_it_had() -> None:
    assert "pairs" not in json.loads(make_plan().model_dump_json())
