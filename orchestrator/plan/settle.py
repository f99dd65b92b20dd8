"""What `auto` comes to: whether layers are recomputed, how many adapters train at once, how many rows make a pass."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from orchestrator.config.schema import Optimizer, Quantization
from orchestrator.plan.memory import MemoryPlan, Training, slots_within, with_slots
from orchestrator.plan.passes import PassShape, Runner, largest_pass
from orchestrator.plan.shapes import BaseShape

SHORTEST = 128
"""Rows shorter than this are not proposed."""


@dataclass(frozen=True)
class Wanted:
    """What a training process is asked to do, as far as memory depends on it.

    `longest` and `learned_share` are those of the training rows, `rank` the largest that trains, `most_slots` how many
    adapters should train at once. `checkpointing` is `auto` where the plan decides. `is_sharded` is whether the
    `workers` of a training split the weights.
    """

    runner: Runner
    dtype: str
    on_gpu: bool
    rank: int
    micro_batch: int
    longest: int
    learned_share: float
    threads: int = 1
    most_slots: int = 1
    checkpointing: bool | Literal["auto"] = "auto"
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    workers: int = 1
    is_sharded: bool = False
    use_dora: bool = False


class Choice(NamedTuple):
    """How a training process trains: its settings, and the largest pass of one slot."""

    training: Training
    micro_batch: int
    one_slot: PassShape

    def memory(self, shape: BaseShape) -> MemoryPlan:
        """Its peak."""
        return with_slots(shape, self.training, self.one_slot, self.training.slots)


def settle(shape: BaseShape, wanted: Wanted, room: int) -> Choice:
    """The settings with which a training process is planned to stay within `room` bytes, or comes nearest to it.

    Layers are recomputed only if not a single adapter fits otherwise. If that is not enough, the engine makes smaller
    passes: a step adds up any number of them to the same gradient.
    """
    options = (False, True) if wanted.checkpointing == "auto" else (wanted.checkpointing,)
    micro = wanted.micro_batch
    for checkpointing in options:
        choice = _choice(wanted, checkpointing=checkpointing)
        slots = slots_within(shape, choice.training, choice.one_slot, room, most=wanted.most_slots)
        if slots:
            return choice._replace(training=replace(choice.training, slots=slots))
    choice = _choice(wanted, checkpointing=options[-1])
    while wanted.runner == "multi_lora" and micro > 1 and choice.memory(shape).high > room:
        micro //= 2
        choice = _choice(replace(wanted, micro_batch=micro), checkpointing=options[-1])
    return choice


def change_that_fits(shape: BaseShape, wanted: Wanted, room: int, *, batch_size: int) -> str | None:
    """The least costly setting with which alone a process is planned to fit, as `key: value`; None if none does."""
    for text, changed in _changes(wanted, batch_size):
        if _choice(changed, checkpointing=changed.checkpointing is True).memory(shape).high <= room:
            return text
    return None


def _changes(wanted: Wanted, batch_size: int) -> Iterator[tuple[str, Wanted]]:
    if wanted.checkpointing is False:
        yield "train.gradient_checkpointing: auto", replace(wanted, checkpointing=True)
    settled = replace(wanted, checkpointing=wanted.checkpointing is not False)
    for size in _halves(wanted.micro_batch):
        if batch_size % size == 0:
            yield f"train.micro_batch_size: {size}", replace(settled, micro_batch=size)
    if wanted.dtype == "float32":
        yield "model.dtype: bfloat16", replace(settled, dtype="bfloat16")
    if wanted.workers > 1 and wanted.quantization == "none" and not wanted.is_sharded:
        yield "train.sharding: fsdp", replace(settled, is_sharded=True)
    if wanted.quantization == "none" and not wanted.is_sharded:
        yield "model.quantization: nf4", replace(settled, quantization="nf4")
    for longest in _halves(wanted.longest):
        if longest >= SHORTEST:
            yield f"data.max_length: {longest}", replace(settled, longest=longest)


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def _choice(wanted: Wanted, *, checkpointing: bool) -> Choice:
    training = Training(
        runner=wanted.runner,
        dtype=wanted.dtype,
        on_gpu=wanted.on_gpu,
        rank=wanted.rank,
        checkpointing=checkpointing,
        padded=wanted.micro_batch > 1,
        quantization=wanted.quantization,
        optimizer=wanted.optimizer,
        shards=wanted.workers if wanted.is_sharded else 1,
        use_dora=wanted.use_dora,
    )
    one_slot = largest_pass(
        wanted.runner,
        on_gpu=wanted.on_gpu,
        micro_batch=wanted.micro_batch,
        longest=wanted.longest,
        threads=wanted.threads,
        learned_share=wanted.learned_share,
    )
    return Choice(training, wanted.micro_batch, one_slot)
