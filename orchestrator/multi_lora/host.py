"""The engine of one device, brought up: a frozen base, its slots, and the thread that trains them."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk

from orchestrator.core.errors import TrainingError
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.memory import give_back_freed_memory
from orchestrator.models.base import base_folder, load_frozen_base
from orchestrator.multi_lora.base_checks import checkpoint_layers
from orchestrator.multi_lora.batch import TokenRows
from orchestrator.multi_lora.checkpoint import load_start
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.messages import EnginePlan, EngineStatus
from orchestrator.multi_lora.scheduler import Cadence, SlotScheduler
from orchestrator.multi_lora.sizing import choose_slots, measure_rates, slots_that_fit

IDLE_S = 0.2
GATHER_S = 2.0
"""Longer than two clients start apart on a busy machine."""


def start_engine(
    plan: EnginePlan, storage: Path, number: int, *, after_death: bool
) -> tuple[SlotScheduler, EngineStatus]:
    """Load the base, choose the number of slots, and start the thread that trains whatever is attached.

    `storage` is the folder of all trials, `number` the engine's number in the search. `after_death`: an earlier engine
    on this device died without a word.

    Raises:
        InputError: If the multi-LoRA engine cannot train on this base.
        ModelNotFoundError: If the base is not there.
    """
    started = time.monotonic()
    give_back_freed_memory()
    _use_threads(plan)
    engine = make_engine(plan)
    status_path = storage / f"engine-{number}.json"
    slots, measured = _choose_slots(engine, plan, status_path, after_death=after_death)
    trials = SlotScheduler(
        engine,
        storage,
        slots=slots,
        cadence=Cadence(plan.eval_steps, plan.patience, plan.keep_best),
        gather_s=GATHER_S,
    )
    status = EngineStatus(
        device=engine.device.type,
        dtype=str(engine.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        slots=slots,
        measured=measured,
        startup_s=round(time.monotonic() - started, 3),
    )
    write_text_atomic(status_path, status.model_dump_json() + "\n")
    threading.Thread(target=_work, args=(trials, plan), daemon=True).start()
    return trials, status


def make_engine(plan: EnginePlan) -> MultiLoraEngine:
    """The engine of a plan on this process's device; raises what `start_engine` does."""
    model = load_frozen_base(base_folder(plan.model), plan.model)
    if plan.gpus:
        model = model.to("cuda")
    if plan.gradient_checkpointing:
        checkpoint_layers(model)
    engine = MultiLoraEngine(
        model,
        read_tokens(Path(plan.train_tokens)),
        read_tokens(Path(plan.val_tokens)),
        batch_size=plan.batch_size,
        micro_batch_size=plan.micro_batch_size,
        target_modules=plan.target_modules,
    )
    engine.start = None if plan.start is None else load_start(Path(plan.start))
    return engine


def read_tokens(folder: Path) -> TokenRows:
    """The stored tokens of one split of a run."""
    table = load_from_disk(str(folder)).with_format("arrow")[:]
    ids, labels = (table.column(name).combine_chunks() for name in ("input_ids", "labels"))
    flat_ids, flat_labels = (column.flatten().to_numpy(zero_copy_only=False) for column in (ids, labels))
    lengths = ids.value_lengths().to_numpy(zero_copy_only=False)
    return TokenRows(flat_ids, flat_labels, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


def _choose_slots(
    engine: MultiLoraEngine, plan: EnginePlan, status_path: Path, *, after_death: bool
) -> tuple[int, dict[int, float]]:
    """Slots as set or measured; half as many after a sudden death, whose likeliest cause is memory."""
    if after_death and status_path.is_file():
        before = parse_line(status_path.read_text(encoding="utf-8"), EngineStatus, where=str(status_path))
        return max(1, before.slots // 2), {}
    if plan.slots is not None:
        return plan.slots, {}
    share = 1.0 if plan.gpus else min(1.0, plan.cpus / (os.cpu_count() or 1))  # engines of one machine share its memory
    most_slots = min(plan.most_slots, slots_that_fit(engine, plan.largest_rank, share=share))
    rates = measure_rates(engine, most_slots=most_slots, cohort=plan.cohort, rank=plan.largest_rank)
    return choose_slots(rates), rates


def _work(trials: SlotScheduler, plan: EnginePlan) -> None:
    _use_threads(plan)  # a setting of each thread in PyTorch
    try:
        while True:
            if not trials.advance():
                trials.wait_for_work(IDLE_S)
    except TrainingError as error:
        trials.fail(error)
    except Exception as error:  # noqa: BLE001 - the thread's boundary: waiting clients must hear of it
        trials.fail(TrainingError(f"the engine broke: {type(error).__name__}: {error}"))


def _use_threads(plan: EnginePlan) -> None:
    if not plan.gpus:
        torch.set_num_threads(max(1, int(plan.cpus)))
