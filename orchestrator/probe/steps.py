"""A few real steps of a training, timed, in a process of their own: `python -m orchestrator.probe.steps < REQUEST`.

It prints a line for each step that is done, and last the numbers as JSON.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import ray  # noqa: F401 - a training process has it loaded
import torch
from datasets import Dataset, load_from_disk
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from orchestrator.core.memory import hold_little_memory
from orchestrator.core.records import JsonObject
from orchestrator.data.tokens.tokenize import IGNORED
from orchestrator.models.base import base_folder, compute_dtype, empty_base
from orchestrator.models.memory import memory_peak
from orchestrator.multi_lora.batch import padded_lengths, pass_size, samples_of_step
from orchestrator.multi_lora.host import make_engine
from orchestrator.multi_lora.messages import EnginePlan
from orchestrator.multi_lora.slots import SlotSpec
from orchestrator.plan.devices import CPU_REACHED, matrix_flops
from orchestrator.plan.measured import Measured
from orchestrator.plan.shapes import base_shape
from orchestrator.plan.steps import training_flops
from orchestrator.probe.processes import answer
from orchestrator.probe.request import ProbeRequest
from orchestrator.probe.rows import (
    EngineSteps,
    Rows,
    TrainerSteps,
    batches_of,
    cost_of_a_token,
    filled,
    largest_rows,
)
from orchestrator.training.plan import TrainPlan
from orchestrator.training.worker import make_trainer

BUDGET_S = 45.0
"""No step is begun after so much time of steps; the first and one more are always made."""
SHORT_S = 4.0
"""A whole batch that is expected to take longer is not trained on, but as many rows as a pass holds."""
TYPICAL_STEPS = 6
ONE_WORKER = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
"""What Ray Train sets in the environment of a worker without others."""
NEVER = 1_000_000
"""A step after which something would be done that a probe does not do."""


class Job(NamedTuple):
    """What is measured: the rows of each step and its cost, the largest pass first; and what a token costs on average.

    Costs are floating-point operations, so that steps on other rows than the average ones tell the rate on those.
    """

    request: ProbeRequest
    batch_size: int
    steps: tuple[Rows, ...]
    costs: tuple[float, ...]
    token_cost: float


class Timed(NamedTuple):
    """Seconds and tokens of each step that was made, those of evaluation, and the peak in bytes."""

    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    peak: int
    read_tokens: int
    read_s: float


def measure(request: ProbeRequest) -> Measured:
    """Train a few steps."""
    began = time.monotonic()
    hold_little_memory()
    if not request.gpus:
        torch.set_num_threads(request.threads)
    train, val = (load_from_disk(folder) for folder in (request.train_tokens, request.val_tokens))
    job = job_of(request, train)
    with tempfile.TemporaryDirectory(prefix="probe-") as place:
        folders = _write_rows(job, train, val, place)
        timed = (train_slots if request.runner == "multi_lora" else train_alone)(job, folders, place)
    typical = list(zip(job.costs, timed.seconds, strict=False))[1:]
    rate = median(cost / seconds for cost, seconds in typical)  # the first are slower, while memory is new
    return Measured(
        tokens_per_s=rate / job.token_cost,
        read_tokens_per_s=timed.read_tokens / timed.read_s,
        peak_bytes=timed.peak,
        steps=len(typical),
        processes=1,
        probe_s=time.monotonic() - began,
    )


def job_of(request: ProbeRequest, train: Dataset) -> Job:
    """What to measure on these rows."""
    train_settings, on_gpu = request.train, request.gpus > 0
    lengths = lengths_of(train)
    base = empty_base(base_folder(request.model), trust_remote_code=request.model.trust_remote_code)
    shape, learned = base_shape(base, request.lora), _learned_share(train)

    def of_pass(rows: int, longest: int) -> float:
        flops = training_flops(shape, request.runner, rank=request.lora.r, length=longest, learned=learned)
        return rows * longest * (flops + (2 * shape.products if train_settings.gradient_checkpointing else 0))

    micro, tokens, in_passes = train_settings.micro_batch_size, np.inf, lengths
    steps: EngineSteps | TrainerSteps = TrainerSteps(lengths, micro_batch_size=micro)
    if request.runner == "multi_lora":
        size = pass_size(torch.device("cuda" if on_gpu else "cpu"), micro)
        tokens, in_passes = size.tokens, padded_lengths(lengths)
        steps = EngineSteps(lengths, slots=request.slots, size=size)
    whole = steps.typical(train_settings.batch_size)
    batch_size = train_settings.batch_size
    if not on_gpu:
        rate = CPU_REACHED * matrix_flops(compute_dtype(request.model.dtype), request.threads)
        if whole[0].cost(of_pass) > SHORT_S * rate:
            batch_size = micro
    first = largest_rows(in_passes, rows=micro, tokens=tokens)
    batches = (filled(first, lengths, batch_size), *batches_of(whole, rows=batch_size, number=TYPICAL_STEPS))
    costs = tuple(steps.of(rows).cost(of_pass) for rows in batches)
    return Job(request, batch_size, batches, costs, cost_of_a_token(whole, of_pass))


def lengths_of(tokens: Dataset) -> np.ndarray:
    """Tokens of each row."""
    column = tokens.with_format("arrow")[:].column("input_ids").combine_chunks()
    return np.asarray(column.value_lengths().to_numpy(zero_copy_only=False))


def _learned_share(tokens: Dataset) -> float:
    labels = tokens.with_format("arrow")[:].column("labels").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return float(np.mean(labels != IGNORED))


def _write_rows(job: Job, train: Dataset, val: Dataset, place: str) -> tuple[str, str]:
    """The rows of all steps where the runner meets them in this order, and as many of val, of all lengths."""
    chosen = [row for rows in job.steps for row in rows]
    if job.request.runner == "multi_lora":
        order = [at for step in range(len(job.steps)) for at in _places(len(chosen), job.batch_size, step)]
        chosen = [row for _, row in sorted(zip(order, chosen, strict=True))]
    by_length = np.argsort(lengths_of(val), kind="stable")
    some = by_length[np.linspace(0, len(val) - 1, min(len(val), job.request.train.micro_batch_size)).astype(int)]
    folders = f"{place}/train", f"{place}/val"
    for rows, folder in zip((train.select(chosen), val.select(some)), folders, strict=True):
        rows.save_to_disk(folder)
    return folders


def _places(rows: int, batch_size: int, step: int) -> list[int]:
    return samples_of_step(rows, batch_size, seed=0, step=step)


def now_s(request: ProbeRequest) -> float:
    """Seconds of a clock; of one thread on a CPU its own, which stands still while other processes have the core."""
    return time.process_time() if request.threads == 1 and not request.gpus else time.perf_counter()


class _Clock:
    """Seconds of each step; tells of each, and says when to stop."""

    def __init__(self, job: Job) -> None:
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self._request, self._steps = job.request, len(job.steps)
        self.start()

    def start(self) -> None:
        """The first step begins."""
        self._began, self._last = time.monotonic(), now_s(self._request)

    def step_ended(self) -> None:
        """Note a step."""
        now = now_s(self._request)
        self.seconds.append(now - self._last)
        self._last = now
        sys.stdout.write(f"step {len(self.seconds)} took {self.seconds[-1]:.1f} s\n")
        sys.stdout.flush()

    def is_over(self) -> bool:
        """Whether no further step should be begun."""
        spent = time.monotonic() - self._began
        return len(self.seconds) >= self._steps or (len(self.seconds) > 1 and spent + self.seconds[-1] > BUDGET_S)


def train_slots(job: Job, folders: tuple[str, str], _place: str, *, in_order: bool = True) -> Timed:
    """Train as the multi-LoRA engine does; without `in_order` each slot has rows of its own."""
    request, train = job.request, job.request.train
    plan = EnginePlan(
        model=request.model, target_modules=request.lora.target_modules,
        gradient_checkpointing=train.gradient_checkpointing, train_tokens=folders[0], val_tokens=folders[1],
        batch_size=job.batch_size, micro_batch_size=train.micro_batch_size, eval_steps=NEVER, patience=None,
        keep_best=1, cpus=request.threads, gpus=request.gpus, slots=request.slots, most_slots=request.slots, cohort=1,
        largest_rank=request.lora.r,
    )  # fmt: skip
    engine = make_engine(plan)
    spec = SlotSpec(
        rank=request.lora.r, alpha=request.lora.alpha, learning_rate=train.learning_rate, max_steps=NEVER,
        dropout=request.lora.dropout,
    )  # fmt: skip
    for number in range(request.slots):
        engine.admit(str(number), spec if in_order else replace(spec, seed=number))
    clock = _Clock(job)
    while not clock.is_over():
        results = engine.train_step()
        clock.tokens.append(sum(result.tokens for result in results.values()))
        clock.step_ended()
    peak, started = memory_peak(), now_s(request)
    engine.eval_loss(engine.slots)
    read = request.slots * int(lengths_of(load_from_disk(folders[1])).sum())
    return Timed(tuple(clock.seconds), tuple(clock.tokens), peak, read, now_s(request) - started)


def train_alone(job: Job, folders: tuple[str, str], place: str, *, in_order: bool = True) -> Timed:
    """Train as TRL does; without `in_order` rows come as its sampler has them."""
    request, on_gpu = job.request, job.request.gpus > 0
    os.environ.update(ONE_WORKER)
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo", rank=0, world_size=1, store=torch.distributed.HashStore()
    )
    plan = TrainPlan(
        model=request.model, lora=request.lora,
        train=request.train.model_copy(update={"batch_size": job.batch_size}),
        train_tokens=folders[0], val_tokens=folders[1], num_workers=1, cpus_per_worker=request.threads,
        gpus_per_worker=request.gpus, max_steps=len(job.steps), eval_steps=NEVER, warmup_steps=0,
    )  # fmt: skip
    clock = _Clock(job)
    trainer = make_trainer(plan, place, callbacks=[_Stop(clock)])
    if in_order:
        trainer.args.train_sampling_strategy = "sequential"
    trainer.train()
    peak, started = memory_peak(), now_s(request)
    trainer.evaluate()
    read = int(lengths_of(load_from_disk(folders[1])).sum())
    torch.distributed.destroy_process_group()
    return Timed(tuple(clock.seconds), tuple(clock.tokens), peak, read, now_s(request) - started)


class _Stop(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Ends training once the clock is over, without what the last step would otherwise bring."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock."""
        self._clock.start()

    def on_step_end(self, _args: TrainingArguments, _state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Note the step."""
        self._clock.step_ended()
        control.should_training_stop = self._clock.is_over()
        control.should_evaluate = control.should_save = False

    def on_log(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, logs: JsonObject, **_: Any
    ) -> None:
        """Note the step's tokens, of which TRL logs the sum over all steps."""
        if "num_tokens" in logs:
            self._clock.tokens.append(int(logs["num_tokens"]) - sum(self._clock.tokens))


if __name__ == "__main__":
    sys.exit(answer(ProbeRequest, measure))
