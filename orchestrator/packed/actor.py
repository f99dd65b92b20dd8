"""The Ray actor of one device: a frozen base, its slots, and the thread that trains them.

Clients call `evaluation_after` and wait. Whatever dies, the next call finds its way: a trial that the actor does not
know is attached anew and goes on from its last evaluation on disk, so that neither a client nor a restarted actor needs
to know what happened to the other.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from datasets import load_from_disk

from orchestrator.errors import TrainingError
from orchestrator.jsonl import parse_line
from orchestrator.models.base import base_folder, load_frozen_base
from orchestrator.packed.base import checkpoint_layers
from orchestrator.packed.batch import TokenRows
from orchestrator.packed.engine import PackedEngine
from orchestrator.packed.plan import Evaluation, PackPlan, PackStatus, PackUse
from orchestrator.packed.probe import choose_slots, measure_rates
from orchestrator.packed.spec import SlotSpec
from orchestrator.packed.trials import Trials
from orchestrator.runs import write_text_atomic

IDLE_S = 0.2


class PackActor:
    """One engine and its trials, for as long as a search runs.

    Args:
        plan: What it trains on.
        storage: Folder of all trials, which every node can reach.
        number: Which of the search's engines it is.
    """

    def __init__(self, plan: dict[str, Any], storage: str, number: int) -> None:
        self._plan = PackPlan.model_validate(plan)
        self._storage, self._number = Path(storage), number
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()
        self._started: tuple[Trials, PackStatus] | None = None

    def status(self) -> PackStatus:
        """Load the base unless that is done, and tell what the engine is like.

        Raises:
            InputError: If the base is not there or cannot be trained packed.
        """
        return self._ready()[1]

    def evaluation_after(self, trial: str, spec: SlotSpec, step: int) -> Evaluation:
        """Train the trial, which is attached if need be, and wait for its first evaluation past `step`."""
        trials, _ = self._ready()
        trials.attach(trial, spec)
        return trials.evaluation_after(trial, step)

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
            taken = list(self._places.values())
            there = [number for number, its in enumerate(slots) if its]
            self._places.setdefault(trial, min(there, key=lambda number: (taken.count(number) + 1) / slots[number]))
            return self._places[trial]

    def leave(self, trial: str) -> None:
        """The trial has ended."""
        with self._lock:
            self._places.pop(trial, None)

    def use(self) -> PackUse:
        """What the engine's time went into so far."""
        return self._ready()[0].use()

    def _ready(self) -> tuple[Trials, PackStatus]:
        # Not in the constructor: what fails there reaches the caller as a text, and a restarted actor has no caller.
        with self._lock:
            if self._started is None:
                self._started = self._start()
            return self._started

    def _start(self) -> tuple[Trials, PackStatus]:
        started = time.monotonic()
        _use_threads(self._plan)
        engine = make_engine(self._plan)
        slots, measured = self._choose_slots(engine)
        trials = Trials(
            engine, self._storage, slots=slots, eval_steps=self._plan.eval_steps, patience=self._plan.patience
        )
        status = PackStatus(
            device=engine.device.type,
            dtype=str(engine.dtype).removeprefix("torch."),
            threads=torch.get_num_threads(),
            slots=slots,
            measured=measured,
            startup_s=round(time.monotonic() - started, 3),
        )
        write_text_atomic(self._status_path, status.model_dump_json() + "\n")
        threading.Thread(target=self._work, args=(trials,), daemon=True).start()
        return trials, status

    @property
    def _status_path(self) -> Path:
        return self._storage / f"engine-{self._number}.json"

    def _choose_slots(self, engine: PackedEngine) -> tuple[int, dict[int, float]]:
        """Slots as set or measured; after a sudden death half as many, for memory is its likeliest cause."""
        if ray.get_runtime_context().was_current_actor_reconstructed and self._status_path.is_file():
            path = self._status_path
            before = parse_line(path.read_text(encoding="utf-8"), PackStatus, where=str(path))
            return max(1, before.slots // 2), {}
        if self._plan.slots is not None:
            return self._plan.slots, {}
        plan = self._plan
        rates = measure_rates(engine, most_slots=plan.most_slots, cohort=plan.cohort, rank=plan.largest_rank)
        return choose_slots(rates, cohort=plan.cohort), rates

    def _work(self, trials: Trials) -> None:
        _use_threads(self._plan)  # PyTorch keeps this apart for every thread
        try:
            while True:
                if not trials.advance():
                    trials.wait_for_work(IDLE_S)
        except TrainingError as error:
            trials.fail(error)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: waiting clients must hear of it
            trials.fail(TrainingError(f"the engine broke: {type(error).__name__}: {error}"))


def _use_threads(plan: PackPlan) -> None:
    if not plan.gpus:
        torch.set_num_threads(max(1, int(plan.cpus)))


def make_engine(plan: PackPlan) -> PackedEngine:
    """The engine of a plan on this process's device.

    Raises:
        InputError: If the base cannot be trained packed.
        ModelNotFoundError: If it is not there.
    """
    model = load_frozen_base(base_folder(plan.model), plan.model)
    if plan.gpus:
        model = model.to("cuda")
    if plan.gradient_checkpointing:
        checkpoint_layers(model)
    targets = plan.target_modules if isinstance(plan.target_modules, str) else list(plan.target_modules)
    return PackedEngine(
        model,
        read_tokens(Path(plan.train_tokens)),
        read_tokens(Path(plan.val_tokens)),
        batch_size=plan.batch_size,
        micro_batch_size=plan.micro_batch_size,
        target_modules=targets,
    )


def read_tokens(folder: Path) -> TokenRows:
    """The stored tokens of one part of a run's data."""
    table = load_from_disk(str(folder)).with_format("arrow")[:]
    ids, labels = (table.column(name).combine_chunks() for name in ("input_ids", "labels"))
    flat_ids, flat_labels = (column.flatten().to_numpy(zero_copy_only=False) for column in (ids, labels))
    lengths = ids.value_lengths().to_numpy(zero_copy_only=False)
    return TokenRows(flat_ids, flat_labels, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))
