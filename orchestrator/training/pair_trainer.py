"""A worker's trainer of preferences: TRL's DPOTrainer on pairs in tokens, going on from an adapter."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from orchestrator.core.records import JsonObject
from orchestrator.models.adapters import started
from orchestrator.models.base import base_folder, base_tokenizer, load_frozen_base
from orchestrator.training.plan import PairLearning, TrainPlan

REFERENCE = "ref"
"""TRL's name for the frozen copy of the adapter that it measures against."""
PAIR_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
"""Columns of the tokens of pairs, as `TokenPair` names them and TRL's collator takes them."""


class PairTrainer(DPOTrainer):  # type: ignore[misc]  # trl ships no types
    """DPOTrainer on rows that are tokens already, rendered as all training rows are."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the adapter alone.

        Where TRL's frozen copy lies beside it, transformers resumes with that and leaves the adapter at its start. A
        training that is resumed makes the copy anew.
        """
        super()._save(output_dir, state_dict)
        shutil.rmtree(Path(output_dir or self.args.output_dir) / REFERENCE, ignore_errors=True)


def make_pair_trainer(plan: TrainPlan, settings: JsonObject, *, callbacks: Sequence[TrainerCallback]) -> PairTrainer:
    """TRL's trainer of a plan of pairs, ready to train; `settings` are the arguments that all its trainers share.

    The adapter is filled before TRL sees the model: TRL then measures preferences against a frozen copy of it, and not
    against the bare base, as it would for an adapter that it makes itself.
    """
    assert plan.pairs is not None
    assert plan.start is not None
    base = load_frozen_base(base_folder(plan.model), plan.model, on_gpu=plan.gpus_per_worker > 0)
    trainer = PairTrainer(
        model=started(base, plan.lora, Path(plan.start)),
        args=DPOConfig(**settings, **loss_settings(plan.pairs)),
        train_dataset=load_from_disk(plan.train_tokens),
        eval_dataset=load_from_disk(plan.val_tokens),
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
