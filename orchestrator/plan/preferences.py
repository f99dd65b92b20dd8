"""What learning preferences will need, as far as that is known before any reply is asked for."""

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.config.schema import RunConfig
from orchestrator.core.records import Record
from orchestrator.core.text import counted
from orchestrator.data.preferences.known import KnownPairs
from orchestrator.plan.devices import Device
from orchestrator.plan.forecast import Job, Verdict, verdict_of, wanted_on
from orchestrator.plan.memory import gib
from orchestrator.plan.settle import settle

REPLIES_OF_A_PAIR = 2


class PairMemory(Record):
    """A worker of the training on one device, sizes in bytes; as in `DeviceForecast`."""

    device: str
    low: int
    expected: int
    high: int
    room: int
    gradient_checkpointing: bool
    verdict: Verdict


class PreferencesForecast(Record):
    """What `prefer` needs. `known` are pairs of files; each of the `prompts` that are asked gives one at most.

    `most_pairs` bounds those that are learned and those of val together, `most_steps` the steps of one of `trainings`.
    """

    known: KnownPairs
    prompts: int
    replies: int
    most_pairs: int
    trainings: int
    most_steps: int
    devices: tuple[PairMemory, ...]


def forecast_preferences(job: Job, known: KnownPairs, devices: list[Device]) -> PreferencesForecast:
    """The preferences of a configuration on its data."""
    prefer, config = job.config.prefer, job.config
    prompts = min(prefer.max_prompts, job.train.samples)
    most = min(prefer.max_pairs, known.total + prompts)
    train = config.train.model_copy(update={"epochs": prefer.epochs, "max_steps": None})
    return PreferencesForecast(
        known=known,
        prompts=prompts,
        replies=prompts * prefer.replies_per_prompt,
        most_pairs=most,
        trainings=len(prefer.learnings),
        most_steps=train.steps_for(most - int(most * prefer.val)),
        devices=tuple(_memory(job, device) for device in devices),
    )


def wants_preferences(config: RunConfig) -> bool:
    """Whether the configuration speaks of preferences."""
    return "prefer" in config.stages or bool(config.prefer.sources)


def _memory(job: Job, device: Device) -> PairMemory:
    """A worker's memory: a pair is two rows of one pass, and adapters are trained by the isolated runner."""
    config = job.config
    wanted = replace(
        wanted_on(job, device, config.resources.num_workers),
        runner="isolated",
        micro_batch=REPLIES_OF_A_PAIR * config.train.micro_batch_size,
        learned_share=1.0,
        most_slots=1,
        is_sharded=False,  # `prefer` refuses this and DoRA
        use_dora=False,
    )
    room = device.room(config.resources.num_workers)
    chosen = settle(job.shape, wanted, room)
    memory = chosen.memory(job.shape)
    return PairMemory(
        device=device.name,
        low=memory.low,
        expected=memory.expected,
        high=memory.high,
        room=room,
        gradient_checkpointing=chosen.training.checkpointing,
        verdict=verdict_of(memory.low, memory.high, room),
    )


def preference_sentences(found: PreferencesForecast) -> Iterator[str]:
    """The forecast for a person."""
    known = found.known
    held = ", ".join(f"{count:,} of {origin}" for origin, count in known.found.items()) or "none"
    alone = f" ({known.alone:,} of them single replies)" if known.alone else ""
    left_out = ", ".join(f"{reason} x {count:,}" for reason, count in known.left_out.items())
    asked = f"the adapter is asked {counted(found.prompts, 'training prompt')} ({found.replies:,} replies)"
    yield (
        f"Preferences: pairs in sources: {held}{alone}{f'; left out: {left_out}' if left_out else ''}. "
        f"{asked.capitalize() if found.prompts else 'The adapter is asked nothing'}; "
        f"at most {counted(found.most_pairs, 'pair')}."
    )
    yield (
        f"Preferences: {counted(found.trainings, 'training')} of at most {counted(found.most_steps, 'step')}"
        f"{' each' if found.trainings > 1 else ''}, one after the other."
    )
    for device in found.devices:
        how = "layers recomputed" if device.gradient_checkpointing else "nothing recomputed"
        yield (
            f"Memory of a training on pairs on {device.device} ({how}): {gib(device.expected)} "
            f"({gib(device.low)} to {gib(device.high)}) of {gib(device.room)}: {device.verdict}."
        )
