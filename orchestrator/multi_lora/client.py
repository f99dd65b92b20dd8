"""A trial's client: it finds an engine, waits for evaluations, and frees the trial's slot at the end."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError

from orchestrator.multi_lora.messages import Evaluation
from orchestrator.multi_lora.spec import SlotSpec

MOVE_PATIENCE_S = 2.0
"""Seconds that a trial waits to hear whether it should move to another engine."""


class SlotLease:
    """A place for one trial at the least loaded engine, taken when the first evaluation is asked for.

    A trial that waits for a slot takes the first one free at any engine. One that trains may move after an evaluation
    to an engine with fewer trials, so that none is idle while another has more than one. One whose engine is dead for
    good goes on at another, as long as the first engine lives.

    `engines` are handles of `EngineActor`s, of which the first keeps count of who is where; `slots` is how many trials
    each trains at once. `trial` is the name under which the trial resumes.
    """

    def __init__(self, engines: Sequence[Any], slots: Sequence[int], trial: str, spec: SlotSpec) -> None:
        self._engines, self._slots, self._trial, self._spec = engines, list(slots), trial, spec
        self._place: int | None = None
        self._heard = 0

    def next_evaluation(self) -> Evaluation:
        """Wait for the evaluation after the last one received.

        Raises:
            TrainingError: If the engine broke.
            ray.exceptions.ActorDiedError: If all engines, or the first, died more often than they may.
        """
        while True:
            here = self._take_place() if self._place is None else self._place
            answer = self._engines[here].evaluation_after.remote(self._trial, self._spec, self._heard)
            try:
                evaluation: Evaluation | None = ray.get(answer)
            except ActorDiedError:
                self._place, self._slots[here] = None, 0
                if not any(self._slots):
                    raise
                continue
            if len(self._engines) > 1 and (evaluation is None or evaluation.stop_reason is None):
                self._move(here, waits=evaluation is None)
            if evaluation is not None:
                self._heard = evaluation.step
                return evaluation

    def leave(self) -> None:
        """Free the slot, before the engine's next step."""
        if self._place is not None:
            _wait([self._engines[self._place].detach.remote(self._trial), self._engines[0].leave.remote(self._trial)])
            self._place = None

    def _take_place(self) -> int:
        place: int = ray.get(self._engines[0].place.remote(self._trial, self._slots))
        # An earlier client may have been killed at another engine, where the trial would go on.
        self._leave_engines(number for number in range(len(self._engines)) if number != place)
        self._place = place
        return place

    def _move(self, here: int, *, waits: bool) -> None:
        asked = self._engines[0].place_anew.remote(self._trial, here, self._slots, waits=waits)
        try:
            self._place = ray.get(asked, timeout=MOVE_PATIENCE_S)
        except (RayActorError, GetTimeoutError):
            return  # the first engine is dead or restarting, and this trial can go on where it is
        if self._place != here:
            self._leave_engines([here])

    def _leave_engines(self, places: Iterable[int]) -> None:
        _wait([self._engines[place].detach.remote(self._trial, wait=True) for place in places])


def _wait(answers: Iterable[Any]) -> None:
    for answer in answers:
        with suppress(RayActorError):  # a dead engine holds no slot
            ray.get(answer)
