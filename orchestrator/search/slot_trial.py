"""A Tune trial as a thin client of a multi-LoRA engine. Light: its process loads neither torch nor transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import tune

from orchestrator.core import gate
from orchestrator.core.records import JsonObject
from orchestrator.multi_lora.client import SlotLease
from orchestrator.multi_lora.spec import SlotSpec
from orchestrator.search.names import HYPERPARAMETERS, storage_name
from orchestrator.training.plan import TrainPlan

HELD_S = 1.0
"""Seconds at a rung after which a trial gives up its place at its engine; it comes back from its checkpoint."""


class SlotTrial(tune.Trainable):  # type: ignore[misc]  # ray ships no types for it
    """Takes a slot of an engine, reports each evaluation, and frees the slot whatever ends it.

    After an evaluation at one of the `rungs` it waits at the gate in the trial's folder, below `trials`, until the
    search has said whether it goes on. Tune reuses its process for the next trial (`reuse_actors`).
    """

    def setup(
        self,
        config: JsonObject,
        *,
        engines: Sequence[Any],
        slots: Sequence[int],
        plan: TrainPlan,
        trials: Path,
        rungs: Sequence[int],
    ) -> None:
        """Called once in each process."""
        self._engines, self._slots, self._plan = engines, slots, plan
        self._trials, self._rungs = trials, rungs
        self._at, self._reported, self._folder = 0, JsonObject(), trials
        self._lease = self._new_lease(config)

    def reset_config(self, new_config: JsonObject) -> bool:
        """Free the last trial's slot and begin another trial."""
        self._lease.leave()
        self._lease = self._new_lease(new_config)
        return True

    def step(self) -> JsonObject:
        """Wait for the next evaluation; one that is stopped at a rung reports the last one again, as its end."""
        if self._at in self._rungs and not self._may_go_on():
            self._lease.leave()
            return {**self._reported, "done": True}
        try:
            evaluation = self._lease.next_evaluation()
        except BaseException:
            self._lease.leave()
            raise
        if evaluation.stop_reason is not None:
            self._lease.leave()  # whoever waits for a slot need not wait for Tune too
        self._at = evaluation.step
        self._reported = {
            "step": evaluation.step,
            "eval_loss": evaluation.eval_loss,
            "diverged": evaluation.stop_reason == "diverged",
            "curve": [point.model_dump() for point in evaluation.curve],
            "done": evaluation.stop_reason is not None,
        }
        return dict(self._reported)

    def _may_go_on(self) -> bool:
        said = gate.wait_for_answer(self._folder, self._at, patience_s=HELD_S)
        if said is None:  # others that train are to be spread over the engines without it
            self._lease.leave()
            said = gate.wait_for_answer(self._folder, self._at)
        return said is True

    def cleanup(self) -> None:
        """Free the slot; called when Tune ends this process."""
        self._lease.leave()

    def _new_lease(self, config: JsonObject) -> SlotLease:
        plan = self._plan.with_hyperparameters(config[HYPERPARAMETERS])
        name = storage_name(self.trial_name, plan.hyperparameters)
        self._folder, self._at = self._trials / name, 0
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
