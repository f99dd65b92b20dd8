"""A worker's trainers of preferences: TRL's DPOTrainer and KTOTrainer on pairs in tokens, going on from an adapter."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from orchestrator.config.preferences import KTO
from orchestrator.core.records import JsonObject
from orchestrator.data.preferences.choose import PROMPT_COLUMN, REPLY_COLUMNS
from orchestrator.models.adapters import started
from orchestrator.models.base import base_folder, base_tokenizer, load_frozen_base
from orchestrator.training.plan import PairLearning, TrainPlan

REFERENCE = "ref"
"""TRL's name for the frozen copy of the adapter that it measures against."""


class _OnTokens:
    """What both trainers do otherwise than TRL's: rows are tokens, and held-out ones have one loss for all settings.

    TRL computes it too, with other attributes in evaluation than in training.
    """

    measured: Mapping[str, Any]
    """Attributes of TRL's trainer with which its loss is that one."""
    model: Any
    args: Any

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, *given: Any, **named: Any) -> Any:
        """As TRL's in training."""
        with _replaced(self, {} if self.model.training else self.measured):
            return super().compute_loss(model, *given, **named)  # type: ignore[misc]  # TRL's

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the adapter alone.

        Where TRL's frozen copy lies beside it, transformers resumes with that and leaves the adapter at its start. A
        training that is resumed makes the copy anew.
        """
        super()._save(output_dir, state_dict)  # type: ignore[misc]  # transformers'
        shutil.rmtree(Path(output_dir or self.args.output_dir) / REFERENCE, ignore_errors=True)


class PairTrainer(_OnTokens, DPOTrainer):  # type: ignore[misc]  # trl ships no types
    """DPOTrainer on pairs of replies.

    The eval loss is DPO's with a beta of 1: the mean of -log of the chance that the better reply of a pair is told from
    the worse by how much likelier the adapter has made each. At the start it is log 2.
    """

    measured: Mapping[str, Any] = {"beta": 1.0, "loss_types": ["sigmoid"], "loss_weights": [1.0]}


class ReplyTrainer(_OnTokens, KTOTrainer):  # type: ignore[misc]  # trl ships no types
    """KTOTrainer on single replies, with a label each.

    The eval loss is the mean chance of telling a good reply from a bad one wrongly by how much likelier the adapter has
    made it. At the start it is 0.5.
    """

    measured: Mapping[str, Any] = {
        **{"beta": 1.0, "loss_type": "apo_zero_unpaired", "calculate_KL": False},
        **{"desirable_weight": 1.0, "undesirable_weight": 1.0},
    }


@contextmanager
def _replaced(owner: Any, attributes: Mapping[str, Any]) -> Iterator[None]:
    before = {name: getattr(owner, name) for name in attributes}
    vars(owner).update(attributes)
    try:
        yield
    finally:
        vars(owner).update(before)


def make_pair_trainer(
    plan: TrainPlan, settings: JsonObject, *, callbacks: Sequence[TrainerCallback]
) -> PairTrainer | ReplyTrainer:
    """TRL's trainer of a plan of pairs, ready to train; `settings` are the arguments that all its trainers share.

    The adapter is filled before TRL sees the model: TRL then measures preferences against a frozen copy of it, and not
    against the bare base, as it would for an adapter that it makes itself.
    """
    assert plan.pairs is not None
    assert plan.start is not None
    base = load_frozen_base(base_folder(plan.model), plan.model, on_gpu=plan.gpus_per_worker > 0)
    train, val = load_from_disk(plan.train_tokens), load_from_disk(plan.val_tokens)
    made_by: type[PairTrainer | ReplyTrainer] = PairTrainer
    if plan.pairs.loss == KTO:
        made_by = ReplyTrainer
        passes = 2 * plan.train.micro_batch_size  # a pair is two replies
        train = as_replies(train, passes=passes, seed=plan.train.seed)
        val = as_replies(val, passes=passes, seed=plan.train.seed)
        arguments = KTOConfig(**settings | reply_settings(plan.pairs, train, passes=passes))
    else:
        arguments = DPOConfig(**settings, **loss_settings(plan.pairs))
    trainer = made_by(
        model=started(base, plan.lora, Path(plan.start)),
        args=arguments,
        train_dataset=train,
        eval_dataset=val,
        processing_class=base_tokenizer(plan.model),
        callbacks=list(callbacks),
    )
    trainer.processing_class = None  # every checkpoint would carry a copy of the tokenizer
    return trainer


def loss_settings(pairs: PairLearning) -> JsonObject:
    """Arguments of TRL's DPOConfig for the loss of a pair."""
    with_own = pairs.sft_weight > 0
    return {
        "beta": pairs.beta,
        "loss_type": [pairs.loss, *(["sft"] if with_own else [])],
        "loss_weights": [1.0, *([pairs.sft_weight] if with_own else [])],
    }


def reply_settings(pairs: PairLearning, replies: Dataset, *, passes: int) -> JsonObject:
    """Arguments of TRL's KTOConfig: the rarer label weighs more, so that both count the same (2402.01306, eq. 8)."""
    good = sum(replies["label"])
    bad = len(replies) - good
    return {
        "beta": pairs.beta,
        "loss_type": pairs.loss,
        "per_device_train_batch_size": passes,
        "per_device_eval_batch_size": passes,
        "desirable_weight": max(1.0, bad / max(1, good)),
        "undesirable_weight": max(1.0, good / max(1, bad)),
    }


def as_replies(pairs: Dataset, *, passes: int, seed: int) -> Dataset:
    """Pairs in tokens as single replies with a label, in an order that mixes them.

    `KL_completion_ids` is the reply to another prompt of the same pass of `passes` rows, from which KTO estimates how
    far the adapter has moved; its trainer keeps the order for that.
    """
    rows = [
        {"prompt_ids": pair[PROMPT_COLUMN], "completion_ids": pair[column], "label": is_good}
        for pair in pairs
        for column, is_good in zip(REPLY_COLUMNS, (True, False), strict=True)
        if pair[column]
    ]
    mixed = Dataset.from_list(rows).shuffle(seed=seed)
    return mixed.map(_with_others, batched=True, batch_size=passes)


def _with_others(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    replies = batch["completion_ids"]
    return {"KL_completion_ids": [*replies[-1:], *replies[:-1]]}
