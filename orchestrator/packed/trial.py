"""A trial's side of a slot: which engine it is at, what it heard last, and that it leaves in the end."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayActorError

from orchestrator.packed.plan import Evaluation
from orchestrator.packed.spec import SlotSpec


class SlotLease:
    """A place for one trial at the least loaded of the engines, from the first evaluation that is asked for.

    Args:
        engines: Handles of `PackActor`s; the first keeps count of who is where.
        trial: The trial's name, under which it goes on after whatever happened.
        spec: What it trains.
    """

    def __init__(self, engines: Sequence[Any], trial: str, spec: SlotSpec) -> None:
        self._engines, self._trial, self._spec = engines, trial, spec
        self._engine: Any = None
        self._heard = 0

    def next_evaluation(self) -> Evaluation:
        """Wait for the evaluation after the last that was heard of.

        Raises:
            TrainingError: If the engine broke.
            ray.exceptions.ActorDiedError: If it died more often than it may.
        """
        if self._engine is None:
            place = ray.get(self._engines[0].place.remote(self._trial, len(self._engines)))
            # A client before this one may have been killed at another engine, where the trial would go on.
            ray.get([engine.detach.remote(self._trial) for i, engine in enumerate(self._engines) if i != place])
            self._engine = self._engines[place]
        evaluation: Evaluation = ray.get(self._engine.evaluation_after.remote(self._trial, self._spec, self._heard))
        self._heard = evaluation.step
        return evaluation

    def leave(self) -> None:
        """Free the slot, before the engine's next step."""
        if self._engine is None:
            return
        with suppress(RayActorError):  # a dead engine holds no slot
            ray.get([self._engine.detach.remote(self._trial), self._engines[0].leave.remote(self._trial)])
        self._engine = None
