"""A Tune trial as a thin client of a multi-LoRA engine. Light: its process loads neither torch nor transformers."""

from collections.abc import Sequence
from typing import Any

from ray import tune

from orchestrator.core.records import JsonObject
from orchestrator.multi_lora.client import SlotLease
from orchestrator.multi_lora.spec import SlotSpec
from orchestrator.search.names import HYPERPARAMETERS, name_of_storage, storage_name
from orchestrator.training.plan import TrainPlan


class SlotTrial(tune.Trainable):  # type: ignore[misc]  # ray ships no types for it
    """Takes a slot of an engine, reports each evaluation, and frees the slot whatever ends it.

    Tune reuses its process for the next trial (`reuse_actors`).
    """

    def setup(self, config: JsonObject, *, engines: Sequence[Any], slots: Sequence[int], plan: TrainPlan) -> None:
        """Called once in each process."""
        self._engines, self._slots, self._plan = engines, slots, plan
        self._lease = self._new_lease(config)

    def reset_config(self, new_config: JsonObject) -> bool:
        """Free the last trial's slot and begin another trial."""
        self._lease.leave()
        self._lease = self._new_lease(new_config)
        return True

    def step(self) -> JsonObject:
        """Wait for the next evaluation."""
        try:
            evaluation = self._lease.next_evaluation()
        except BaseException:
            self._lease.leave()
            raise
        if evaluation.stop_reason is not None:
            self._lease.leave()  # whoever waits for a slot need not wait for Tune too
        return {
            "step": evaluation.step,
            "eval_loss": evaluation.eval_loss,
            "diverged": evaluation.stop_reason == "diverged",
            "curve": [point.model_dump() for point in evaluation.curve],
            "peers": [[name_of_storage(peer.trial), peer.step, peer.eval_loss] for peer in evaluation.peers],
            "done": evaluation.stop_reason is not None,
        }

    def cleanup(self) -> None:
        """Free the slot; called when Tune ends this process."""
        self._lease.leave()

    def _new_lease(self, config: JsonObject) -> SlotLease:
        plan = self._plan.with_hyperparameters(config[HYPERPARAMETERS])
        name = storage_name(self.trial_name, plan.hyperparameters)
        return SlotLease(self._engines, self._slots, name, slot_spec(plan))


def slot_spec(plan: TrainPlan) -> SlotSpec:
    """What a slot trains for a plan."""
    lora, train = plan.lora, plan.train
    return SlotSpec(
        rank=lora.r,
        alpha=lora.alpha,
        learning_rate=train.learning_rate,
        max_steps=plan.max_steps,
        warmup_steps=plan.warmup_steps,
        schedule=train.scheduler,
        dropout=lora.dropout,
        use_rslora=lora.use_rslora,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        seed=train.seed,
    )
