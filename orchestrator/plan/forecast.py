"""What a configuration will need on its data: steps, memory on devices, time and cost; and what would make it fit."""

import math
from typing import Literal, NamedTuple

from orchestrator.config.evaluation import CPU_KV_CACHE_GIB
from orchestrator.config.schema import Quantization, RunConfig
from orchestrator.core.records import PlannedRun, Record
from orchestrator.data.card import TokenCard
from orchestrator.plan.devices import CPU_REACHED, REACHED, Device, matrix_flops
from orchestrator.plan.measured import Measured, MeasuredReplies
from orchestrator.plan.memory import GIB, Serving, cache_bytes_of, serving_memory
from orchestrator.plan.passes import Runner
from orchestrator.plan.settle import Wanted, change_that_fits, settle
from orchestrator.plan.shapes import BaseShape
from orchestrator.plan.steps import COHORT, Halving, expected_steps, forward_flops, rungs_of, training_flops

PAD = 1.1
"""Tokens with padding for each token, where rows of like lengths share a pass."""
DECODE_COST = 8
"""A generated token takes as long as reading so many."""

Verdict = Literal["fits", "tight", "does not fit"]


class Amounts(Record):
    """What one full training is, of those that a search may choose the longest.

    `expected_steps` of a search's steps are what early stopping is expected to leave. `cohorts` of trials share no
    engine and take `turns`, each with engines of its own.
    """

    samples: int
    tokens: int
    supervised_tokens: int
    longest: int
    steps_per_epoch: int
    steps: int
    evaluations: int
    trained_tokens: int
    trials: int
    expected_steps: int
    all_steps: int
    parameters: int
    trainable: dict[int, int]
    cohorts: int = 1
    turns: int = 1


class DeviceForecast(Record):
    """A training process on one device. Sizes in bytes; `change` is the one change that makes it fit, if any does.

    `serving` is what an engine of the evaluation takes at the least; on a GPU it fills what is left with its cache.
    `measured` is what real steps showed and `replies` what real replies did, None where times are from a rate.
    """

    device: str
    room: int
    processes: int
    dtype: str
    quantization: Quantization = "none"
    shards: int = 1
    runner: Runner
    slots: int
    micro_batch_size: int
    gradient_checkpointing: bool
    verdict: Verdict
    low: int
    expected: int
    high: int
    parts: dict[str, int]
    serving: int
    certain: bool
    change: str | None = None
    measured: Measured | None = None
    replies: MeasuredReplies | None = None
    trial_s: float | None = None
    search_s: float | None = None
    evaluation_s: float | None = None
    cost: float | None = None


class Forecast(Record):
    """The plan of a configuration: `orchestrator plan --json` prints it."""

    name: str
    base: str
    amounts: Amounts
    devices: tuple[DeviceForecast, ...]


class Job(NamedTuple):
    """A configuration with what is known of its base and data."""

    config: RunConfig
    shape: BaseShape
    train: TokenCard
    val: TokenCard | None

    @property
    def runner(self) -> Runner:
        """What trains; of one adapter alone, always TRL."""
        return "multi_lora" if self.config.trains_multi_lora else "isolated"

    @property
    def ranks(self) -> tuple[int, ...]:
        """Those that the search may choose, in order."""
        return tuple(sorted(set(self.config.search.space.r)))


def amounts_of(job: Job) -> Amounts:
    """The steps and tokens of one training and of the search."""
    config, card = job.config.longest, job.train
    train, search = config.train, config.search
    steps = train.steps_for(card.rows)
    every = train.eval_steps_for(steps)
    trials = search.num_trials
    in_groups = job.runner == "multi_lora" and search.scheduler == "halving"
    rungs = () if search.scheduler == "none" else rungs_of(
        steps, every, train.warmup_steps(steps), search.reduction_factor
    )  # fmt: skip
    return Amounts(
        samples=card.rows,
        tokens=card.tokens,
        supervised_tokens=card.learned_tokens,
        longest=card.longest,
        steps_per_epoch=math.ceil(card.rows / train.batch_size),
        steps=steps,
        evaluations=math.ceil(steps / every),
        trained_tokens=round(steps * train.batch_size * card.tokens / max(1, card.rows)),
        trials=trials,
        expected_steps=expected_steps(
            trials,
            steps,
            Halving(rungs, search.reduction_factor, search.keep),
            group=COHORT if in_groups else 1,
            is_improving=in_groups and search.searcher not in {"random", "grid"},
        ),
        all_steps=trials * steps,
        parameters=job.shape.parameters,
        trainable={rank: job.shape.adapter_parameters(rank) for rank in job.ranks},
        cohorts=len(search.space.cohorts),
        turns=math.ceil(trials / search.turn) if search.turn else 1,
    )


def dtype_on(device: Device, wanted: str) -> str:
    """The type that `model.dtype` means on a device."""
    if wanted != "auto":
        return wanted
    if device.has_bfloat16:
        return "bfloat16"
    return "float16" if device.is_gpu else "float32"


def processes_on(config: RunConfig, device: Device, cpus: float, gpus: int = 1) -> int:
    """Training processes side by side on one machine."""
    if device.is_gpu:
        return gpus
    most = max(1, int(cpus / (config.resources.cpus_per_worker * config.resources.num_workers)))
    wanted = config.search.max_concurrent or config.search.num_trials
    return max(1, min(most, wanted, config.search.num_trials)) * config.resources.num_workers


def forecast_on(job: Job, device: Device, *, cpus: float, gpus: int = 1) -> DeviceForecast:
    """The memory of the search's training processes on one kind of device, and the settings that `auto` takes."""
    processes = processes_on(job.config, device, cpus, gpus)
    room = device.room(processes)
    wanted = wanted_on(job, device, processes)
    chosen = settle(job.shape, wanted, room)
    memory = chosen.memory(job.shape)
    verdict = verdict_of(memory.low, memory.high, room)
    return DeviceForecast(
        device=device.name,
        room=room,
        processes=processes,
        dtype=chosen.training.dtype,
        quantization=chosen.training.quantization,
        shards=chosen.training.shards,
        runner=job.runner,
        slots=chosen.training.slots,
        micro_batch_size=chosen.micro_batch,
        gradient_checkpointing=chosen.training.checkpointing,
        verdict=verdict,
        low=memory.low,
        expected=memory.expected,
        high=memory.high,
        parts=dict(memory.parts),
        serving=_serving(job, device),
        certain=memory.low > room,
        change=None
        if verdict == "fits"
        else change_that_fits(job.shape, wanted, room, batch_size=job.config.train.batch_size),
    )


def verdict_of(low: int, high: int, room: int) -> Verdict:
    """Whether a process that takes so many bytes fits."""
    return "fits" if high <= room else "tight" if low <= room else "does not fit"


def _serving(job: Job, device: Device) -> int:
    """Bytes of a vLLM engine: on a CPU with the cache that it is given, on a GPU with room for one conversation."""
    config, dtype = job.config, dtype_on(device, job.config.model.dtype)
    longest = config.eval.max_model_len or job.train.longest + config.eval.max_new_tokens
    cache = cache_bytes_of(job.shape, dtype, longest)
    if config.eval.kv_cache_gib is not None or not device.is_gpu:
        cache = int((config.eval.kv_cache_gib or CPU_KV_CACHE_GIB) * GIB) * config.eval.tensor_parallel
    serving = Serving(
        dtype, device.is_gpu, max(job.ranks), config.served_model.quantization, config.eval.tensor_parallel
    )
    return serving_memory(job.shape, serving, cache=cache).expected


def wanted_on(job: Job, device: Device, processes: int) -> Wanted:
    """What one training process of the search is asked to do on a device."""
    config, card = job.config, job.train
    most = config.search.max_concurrent or COHORT
    return Wanted(
        runner=job.runner,
        dtype=dtype_on(device, config.model.dtype),
        on_gpu=device.is_gpu,
        rank=max(job.ranks),
        micro_batch=config.train.micro_batch_size,
        longest=card.longest,
        learned_share=card.learned_tokens / max(1, card.tokens),
        threads=max(1, int(config.resources.cpus_per_worker)),
        most_slots=math.ceil(min(most, config.search.num_trials) / processes) if job.runner == "multi_lora" else 1,
        checkpointing=config.train.gradient_checkpointing,
        quantization=config.model.quantization,
        optimizer=config.train.optimizer,
        workers=config.resources.num_workers,
        is_sharded=config.train.sharding == "fsdp",
        use_dora=config.lora.use_dora,
    )


def with_measured(forecast: DeviceForecast, measured: Measured) -> DeviceForecast:
    """The forecast with what real steps showed: a peak above the expected one takes its place."""
    if measured.peak_bytes <= forecast.expected:
        return forecast.model_copy(update={"measured": measured})
    high = max(forecast.high, measured.peak_bytes)
    memory = {"low": measured.peak_bytes, "expected": measured.peak_bytes, "high": high}
    verdict = verdict_of(memory["low"], high, forecast.room)
    update = {**memory, "measured": measured, "verdict": verdict, "certain": measured.peak_bytes > forecast.room}
    return forecast.model_copy(update=update)


def with_replies(forecast: DeviceForecast, replies: MeasuredReplies) -> DeviceForecast:
    """The forecast with what real replies showed."""
    serving = max(forecast.serving, replies.peak_bytes)
    return forecast.model_copy(update={"replies": replies, "serving": serving})


def with_times(job: Job, forecast: DeviceForecast, device: Device, *, cases: int) -> DeviceForecast:
    """The forecast with times and cost, from its measured steps, else from the rate of the device."""
    amounts, config, shape = amounts_of(job), job.config.longest, job.shape
    card, measured = job.train, forecast.measured
    length, learned = card.tokens / max(1, card.rows), card.learned_tokens / max(1, card.tokens)
    flops = training_flops(shape, job.runner, rank=max(job.ranks), length=length, learned=learned)
    if forecast.gradient_checkpointing:
        flops += 2 * shape.products
    rate = measured.tokens_per_s if measured else device_flops(device, forecast.dtype, config) / (PAD * flops)
    forward_rate = rate * flops / forward_flops(shape, length=length, learned=learned)
    read_rate = measured.read_tokens_per_s if measured else forward_rate
    val_tokens = job.val.tokens if job.val else 0
    of_step = config.train.batch_size * length / rate
    trial_s = amounts.steps * of_step + amounts.evaluations * val_tokens / read_rate
    search_s = trial_s * amounts.expected_steps / amounts.steps / forecast.processes
    adapters = min(config.search.keep, amounts.trials)
    if forecast.replies is not None:
        engines = forecast.processes if device.is_gpu else 1
        evaluation_s = evaluation_time(config, forecast.replies, adapters=adapters, engines=engines)
    else:
        reply = card.learned_tokens / max(1, card.rows)
        evaluation_s = cases * (adapters + 1) * (length + (DECODE_COST - 1) * reply) / forward_rate
        if not device.is_gpu:
            evaluation_s /= max(1, forecast.processes)  # its engine has all processors
    hours = (search_s + evaluation_s) / 3600
    price = config.resources.price_per_hour
    update = {"trial_s": trial_s, "search_s": search_s, "evaluation_s": evaluation_s}
    cost = None if price is None else price * hours
    return forecast.model_copy(update={**update, "cost": cost})


def evaluation_time(config: RunConfig, its: MeasuredReplies, *, adapters: int, engines: int) -> float:
    """Seconds of an evaluation at a measured pace, if adapters reply as long as the data does."""
    spared = its.reply_tokens - its.expected_tokens
    base = its.all_cases * its.case_s + its.all_alone * its.alone_s
    adapter = base - spared * (its.all_cases * its.token_s + its.all_alone * its.alone_token_s)
    bases = 2 if config.eval.base_precision == "both" else 1
    return its.start_s + bases * (base + adapters * adapter) / engines


def planned_run(forecast: DeviceForecast, amounts: Amounts) -> PlannedRun | None:
    """What a run is held against once it is done; None without times."""
    if forecast.search_s is None:
        return None
    return PlannedRun(
        device=forecast.device,
        trials=amounts.trials,
        steps=amounts.steps,
        expected_steps=amounts.expected_steps,
        device_s=round(forecast.search_s * forecast.processes, 3),
        is_measured=forecast.measured is not None,
        memory_low=forecast.low,
        memory_expected=forecast.expected,
        memory_high=forecast.high,
        serving_bytes=forecast.serving,
        evaluation_s=None
        if forecast.replies is None or forecast.evaluation_s is None
        else round(forecast.evaluation_s, 3),
    )


def device_flops(device: Device, dtype: str, config: RunConfig) -> float:
    """Operations a second that training reaches on a device."""
    if not device.is_gpu:
        return CPU_REACHED * matrix_flops(dtype, max(1, int(config.resources.cpus_per_worker)))
    return REACHED * (device.flops if dtype != "float32" else device.flops / 8)
