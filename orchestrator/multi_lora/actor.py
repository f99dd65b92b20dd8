"""The Ray actor of one device. Light: a client that holds its handle imports this module, and loads no torch.

Clients call `evaluation_after` and wait. Whichever side dies, the next call recovers: a trial unknown to the actor is
attached anew and resumes from its last evaluation on disk.
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
"""Seconds that a trial waits for a slot before it asks for one at another engine."""


class EngineActor:
    """One engine and its trials, for as long as a search runs.

    `plan` is an `EnginePlan` as JSON-able values, `storage` the folder of all trials, which every node can reach, and
    `number` the engine's number in the search.
    """

    def __init__(self, plan: dict[str, Any], storage: str, number: int) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._storage, self._number = Path(storage), number
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._started: tuple[SlotScheduler, EngineStatus] | None = None

    def status(self) -> EngineStatus:
        """Load the base unless that is done, and describe the engine.

        Raises:
            InputError: If the base is not there or the multi-LoRA engine cannot train on it.
        """
        return self._ready()[1]

    def evaluation_after(self, trial: str, spec: SlotSpec, step: int) -> Evaluation | None:
        """Train the trial, attached if need be, and wait for its first evaluation past `step`.

        None if it has waited for a slot so long that another engine may have one (`place_anew`).
        """
        trials, _ = self._ready()
        trials.attach(trial, spec)
        return trials.evaluation_after(trial, step, patience_s=SLOT_PATIENCE_S)

    def detach(self, trial: str, *, wait: bool = False) -> None:
        """Free the trial's slot before the next step; with `wait`, return once nothing here touches its folder."""
        if self._started is not None:
            self._started[0].detach(trial, wait=wait)

    def place(self, trial: str, slots: Sequence[int]) -> int:
        """The number of the engine with the fewest trials for its slots; this one counts there until `leave`.

        An engine without slots is dead. A trial keeps its place while its engine lives.
        """
        with self._lock:
            if not slots[self._places.get(trial, 0)]:
                self._places.pop(trial, None)
            if trial not in self._places:
                self._places[trial] = self._emptiest(trial, slots)
            return self._places[trial]

    def place_anew(self, trial: str, here: int, slots: Sequence[int], *, waits: bool) -> int:
        """The number of the engine at which a trial that is at engine `here` goes on.

        One that waits for a slot goes where one is free, one that trains where fewer train, itself included.
        """
        with self._lock:
            there = self._emptiest(trial, slots)
            load = self._load(trial, there, slots)
            if load <= 1 and (waits or load < self._load(trial, here, slots)):
                here = there
            self._places[trial] = here  # this actor may have been restarted and know of nobody
            return here

    def _emptiest(self, trial: str, slots: Sequence[int]) -> int:
        there = [number for number, its in enumerate(slots) if its]
        return min(there, key=lambda number: self._load(trial, number, slots))

    def _load(self, trial: str, number: int, slots: Sequence[int]) -> float:
        """Trials per slot of a living engine, this one included; above 1 it would wait."""
        others = sum(place == number and name != trial for name, place in self._places.items())
        return (others + 1) / slots[number]

    def leave(self, trial: str) -> None:
        """The trial has ended."""
        with self._lock:
            self._places.pop(trial, None)

    def use(self) -> EngineUse:
        """Where the engine's time went so far."""
        return self._ready()[0].use()

    def _ready(self) -> tuple["SlotScheduler", EngineStatus]:
        # Not in the constructor: its errors reach the caller as text, and a restarted actor has no caller.
        with self._lock:
            if self._started is None:
                from orchestrator.multi_lora.host import start_engine

                again = ray.get_runtime_context().was_current_actor_reconstructed
                self._started = start_engine(self._plan, self._storage, self._number, after_death=again)
            return self._started
