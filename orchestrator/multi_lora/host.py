"""The engine of one device, brought up: a frozen base, its slots, and the thread that trains them."""

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import load_from_disk

from orchestrator.config.schema import LoraConfig
from orchestrator.core.errors import TrainingError
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.memory import hold_little_memory
from orchestrator.core.steps import BASE
from orchestrator.core.text import counted
from orchestrator.core.watchdog import Watchdog
from orchestrator.models.base import base_folder, compute_dtype, empty_base, load_frozen_base
from orchestrator.models.reading import ROWS, note_reading
from orchestrator.multi_lora.base_checks import checkpoint_layers
from orchestrator.multi_lora.batch import TokenRows
from orchestrator.multi_lora.checkpoint import load_start
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.messages import EnginePlan, EngineStatus
from orchestrator.multi_lora.scheduler import Cadence, SlotScheduler
from orchestrator.multi_lora.sizing import choose_slots, free_memory, measure_rates
from orchestrator.plan.devices import this_cpu
from orchestrator.plan.settle import Wanted, settle
from orchestrator.plan.shapes import base_shape
from orchestrator.run.happened import note

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
    hold_little_memory()
    _use_threads(plan)
    status_path = storage / f"engine-{number}.json"
    before = _status_before(status_path) if after_death else None
    room = _settled(plan, before)
    engine = make_engine(room.plan, reading=storage / BASE)
    slots, measured = (room.slots, {}) if before else _choose_slots(engine, room)
    trials = SlotScheduler(
        engine,
        storage,
        slots=slots,
        cadence=Cadence(plan.eval_steps, plan.patience, plan.keep_best, plan.kept_steps, plan.rungs),
        gather_s=GATHER_S,
    )
    status = EngineStatus(
        device=engine.device.type,
        dtype=str(engine.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        slots=slots,
        measured=measured,
        startup_s=round(time.monotonic() - started, 3),
        micro_batch_size=engine.micro_batch_size,
        checkpointing=room.plan.gradient_checkpointing is True,
        lowered=before and lowered_text(number, before, room, longest=engine.longest),
    )
    write_text_atomic(status_path, status.model_dump_json() + "\n")
    threading.Thread(target=_work, args=(trials, plan, _watchdog(storage, number)), daemon=True).start()
    return trials, status


def make_engine(plan: EnginePlan, *, reading: Path | None = None) -> MultiLoraEngine:
    """The engine of a plan on this process's device; raises what `start_engine` does.

    What the untouched base makes of the rows is written to `reading`.
    """
    model = load_frozen_base(base_folder(plan.model), plan.model, on_gpu=plan.gpus > 0)
    if plan.gpus:
        model = model.to("cuda")
    train = read_tokens(Path(plan.train_tokens))
    if reading is not None:
        note_reading(model, train.first(ROWS), reading)
    if plan.gradient_checkpointing is True:
        checkpoint_layers(model)
    engine = MultiLoraEngine(
        model,
        train,
        read_tokens(Path(plan.val_tokens)),
        batch_size=plan.batch_size,
        micro_batch_size=plan.micro_batch_size,
        target_modules=plan.target_modules,
    )
    engine.start = None if plan.start is None else load_start(Path(plan.start))
    return engine


class Room(NamedTuple):
    """A plan whose `auto` is decided, and the slots that it is expected to have memory for."""

    plan: EnginePlan
    slots: int


def _settled(plan: EnginePlan, before: EngineStatus | None) -> Room:
    """The plan with what the memory of this device allows; smaller than `before` where an engine was killed here."""
    if before is not None:
        return smaller(plan, before)
    tokens = read_tokens(Path(plan.train_tokens))
    base = empty_base(base_folder(plan.model), trust_remote_code=plan.model.trust_remote_code)
    learned = sum(len(tokens.learned(row)) for row in range(len(tokens)))
    wanted = Wanted(
        runner="multi_lora",
        dtype=compute_dtype(plan.model.dtype),
        quantization=plan.model.quantization,
        on_gpu=plan.gpus > 0,
        rank=plan.largest_rank,
        micro_batch=plan.micro_batch_size,
        longest=int(tokens.lengths.max()),
        learned_share=learned / len(tokens.ids),
        threads=torch.get_num_threads(),
        most_slots=plan.slots or plan.most_slots,
        checkpointing=plan.gradient_checkpointing,
    )
    shape = base_shape(base, LoraConfig(target_modules=plan.target_modules))
    choice = settle(shape, wanted, memory_for_engine(plan))
    settings = {"gradient_checkpointing": choice.training.checkpointing, "micro_batch_size": choice.micro_batch}
    return Room(plan.model_copy(update=settings), choice.training.slots)


def memory_for_engine(plan: EnginePlan) -> int:
    """Bytes that one of the engines on this machine may take; of a GPU what is free, for each engine has its own."""
    if plan.gpus:
        return free_memory(torch.device("cuda"))
    beside = min(plan.engines, max(1, int((os.cpu_count() or 1) / plan.cpus)))
    return this_cpu().room(beside)


def smaller(plan: EnginePlan, before: EngineStatus) -> Room:
    """What an engine takes on after one with status `before` was killed: half of its slots, else of its passes."""
    micro, checkpointing = before.micro_batch_size or plan.micro_batch_size, before.checkpointing
    slots = max(1, before.slots // 2)
    if before.slots == 1 and micro > 1:
        micro //= 2
    elif before.slots == 1 and plan.gradient_checkpointing == "auto":
        checkpointing = True
    settings = {"gradient_checkpointing": checkpointing, "micro_batch_size": micro}
    return Room(plan.model_copy(update=settings), slots)


def lowered_text(number: int, before: EngineStatus, room: Room, *, longest: int) -> str:
    """What became of an engine that was killed, in a sentence."""
    plan = room.plan
    rows = before.micro_batch_size or plan.micro_batch_size
    had = f"{counted(before.slots, 'slot')} of {rows} x {longest:,} tokens"
    if room.slots != before.slots:
        goes_on = str(room.slots)
    elif plan.micro_batch_size != before.micro_batch_size:
        goes_on = f"{plan.micro_batch_size} x {longest:,}"
    elif plan.gradient_checkpointing is True and not before.checkpointing:
        goes_on = "layers recomputed"
    else:
        goes_on = "the same, for it cannot be smaller"
    return f"Engine {number + 1} was killed, most likely because memory ran out, with {had}; it goes on with {goes_on}."


def read_tokens(folder: Path) -> TokenRows:
    """The stored tokens of one split of a run."""
    table = load_from_disk(str(folder)).with_format("arrow")[:]
    ids, labels = (table.column(name).combine_chunks() for name in ("input_ids", "labels"))
    flat_ids, flat_labels = (column.flatten().to_numpy(zero_copy_only=False) for column in (ids, labels))
    lengths = ids.value_lengths().to_numpy(zero_copy_only=False)
    return TokenRows(flat_ids, flat_labels, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


def _status_before(path: Path) -> EngineStatus | None:
    """How the engine was that died on this device, None where it died before it was ready."""
    if not path.is_file():
        return None
    return parse_line(path.read_text(encoding="utf-8"), EngineStatus, where=str(path))


def _choose_slots(engine: MultiLoraEngine, room: Room) -> tuple[int, dict[int, float]]:
    """Slots as set or measured, within the memory that there is."""
    plan = room.plan
    if plan.slots is not None:
        return min(plan.slots, room.slots), {}
    rates = measure_rates(engine, most_slots=room.slots, cohort=plan.cohort, rank=plan.largest_rank)
    return choose_slots(rates), rates


def _watchdog(storage: Path, number: int) -> Watchdog:
    def hung(silent_s: float) -> None:
        told = f"Engine {number + 1} hung: no step ended for {silent_s:.0f} s. It was ended."
        note(storage / f"engine-{number}", told)

    return Watchdog(hung)


def _work(trials: SlotScheduler, plan: EnginePlan, watchdog: Watchdog) -> None:
    _use_threads(plan)  # a setting of each thread in PyTorch
    try:
        while True:
            watchdog.beat()
            if not trials.advance():
                trials.wait_for_work(IDLE_S)
    except TrainingError as error:
        watchdog.rest()
        trials.fail(error)
    except Exception as error:  # noqa: BLE001 - the thread's boundary: waiting clients must hear of it
        watchdog.rest()
        trials.fail(TrainingError(f"the engine broke: {type(error).__name__}: {error}"))


def _use_threads(plan: EnginePlan) -> None:
    if not plan.gpus:
        torch.set_num_threads(max(1, int(plan.cpus)))
