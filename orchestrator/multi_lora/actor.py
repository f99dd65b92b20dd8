"""The Ray actor of one device. Light: a client that holds its handle imports this module, and loads no torch.

Clients call `evaluation_after` and wait. Whatever dies, the next call finds its way: a trial that the actor does not
know is attached anew and goes on from its last evaluation on disk, so that neither a client nor a restarted actor needs
to know what happened to the other.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from orchestrator.multi_lora.messages import EnginePlan, EngineStatus, EngineUse, Evaluation
from orchestrator.multi_lora.spec import SlotSpec

if TYPE_CHECKING:
    from orchestrator.multi_lora.scheduler import SlotScheduler

SLOT_PATIENCE_S = 1.0
"""Seconds that a trial waits for a slot before it asks whether another engine has one."""


class EngineActor:
    """One engine and its trials, for as long as a search runs.

    Args:
        plan: What it trains on.
        storage: Folder of all trials, which every node can reach.
        number: Which of the search's engines it is.
    """

    def __init__(self, plan: dict[str, Any], storage: str, number: int) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._storage, self._number = Path(storage), number
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._started: tuple[SlotScheduler, EngineStatus] | None = None

    def status(self) -> EngineStatus:
        """Load the base unless that is done, and tell what the engine is like.

        Raises:
            InputError: If the base is not there or cannot be trained by the multi-LoRA engine.
        """
        return self._ready()[1]

    def evaluation_after(self, trial: str, spec: SlotSpec, step: int) -> Evaluation | None:
        """Train the trial, which is attached if need be, and wait for its first evaluation past `step`.

        None if it waits for a slot for so long that another engine may have one (`place_anew`).
        """
        trials, _ = self._ready()
        trials.attach(trial, spec)
        return trials.evaluation_after(trial, step, patience_s=SLOT_PATIENCE_S)

    def detach(self, trial: str, *, wait: bool = False) -> None:
        """Free the trial's slot before the next step, and if asked to, wait until nothing here touches its folder."""
        if self._started is not None:
            self._started[0].detach(trial, wait=wait)

    def place(self, trial: str, slots: Sequence[int]) -> int:
        """The number of the engine that has the fewest trials for its slots; it counts this one until `leave`.

        An engine without slots is not there. A trial keeps its place while its engine is there.
        """
        with self._lock:
            if not slots[self._places.get(trial, 0)]:
                self._places.pop(trial, None)
            if trial not in self._places:
                self._places[trial] = self._emptiest(trial, slots)
            return self._places[trial]

    def place_anew(self, trial: str, here: int, slots: Sequence[int], *, waits: bool) -> int:
        """The number of the engine at which a trial that is at engine `here` goes on.

        One that waits for a slot goes where one is free. One that trains goes where fewer train, itself included.
        """
        with self._lock:
            there = self._emptiest(trial, slots)
            load = self._load(trial, there, slots)
            if load <= 1 and (waits or load < self._load(trial, here, slots)):
                here = there
            self._places[trial] = here  # this actor may be a new one that has heard of nobody
            return here

    def _emptiest(self, trial: str, slots: Sequence[int]) -> int:
        there = [number for number, its in enumerate(slots) if its]
        return min(there, key=lambda number: self._load(trial, number, slots))

    def _load(self, trial: str, number: int, slots: Sequence[int]) -> float:
        """SlotScheduler for each slot of an engine that is there, with this one; above 1 it would wait."""
        others = sum(place == number and name != trial for name, place in self._places.items())
        return (others + 1) / slots[number]

    def leave(self, trial: str) -> None:
        """The trial has ended."""
        with self._lock:
            self._places.pop(trial, None)

    def use(self) -> EngineUse:
        """What the engine's time went into so far."""
        return self._ready()[0].use()

    def _ready(self) -> tuple["SlotScheduler", EngineStatus]:
        # Not in the constructor: what fails there reaches the caller as a text, and a restarted actor has no caller.
        with self._lock:
            if self._started is None:
                from orchestrator.multi_lora.host import start_engine

                again = ray.get_runtime_context().was_current_actor_reconstructed
                self._started = start_engine(self._plan, self._storage, self._number, after_death=again)
            return self._started
