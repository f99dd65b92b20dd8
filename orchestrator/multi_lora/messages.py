"""Records that engines, their clients and the search exchange across processes; no heavy imports."""

from typing import Any, Literal

from pydantic import model_validator

from orchestrator.config.schema import ModelConfig
from orchestrator.core.records import EvalPoint, Record, StopReason


class EnginePlan(Record):
    """One engine on one device. Produced by `search/multi_lora`, consumed by the actor.

    `train_tokens` and `val_tokens` are folders of tokenised samples that every node can read. `slots` is the number of
    adapters trained at once; None measures it, up to `most_slots` and not below `cohort` if that fits the memory.
    At `rungs`, steps of trials, one is held until its client asks for more.
    `largest_rank` is that of the search; `keep_best` checkpoints of a trial stay beside its latest. `start` is the
    folder of the adapter that trials start from. The search has so many `engines`; those of one machine share its
    memory. `gradient_checkpointing` is `auto` where the engine decides by the memory that there is. Checkpoints of
    `kept_steps` stay too, to be scored.
    """

    model: ModelConfig
    target_modules: Literal["all-linear"] | tuple[str, ...]
    gradient_checkpointing: bool | Literal["auto"]
    train_tokens: str
    val_tokens: str
    batch_size: int
    micro_batch_size: int
    eval_steps: int
    patience: int | None
    keep_best: int
    cpus: float
    gpus: int
    slots: int | None
    most_slots: int
    cohort: int
    largest_rank: int
    start: str | None = None
    engines: int = 1
    kept_steps: tuple[int, ...] = ()
    rungs: tuple[int, ...] = ()


class TrialProgress(Record):
    """How far a trial is. Written by its engine after each evaluation, read by whoever collects the trial.

    `step`, `tokens` (without padding) and `device_s` (its share of the device, seconds) are what was spent on it, past
    its last evaluation too if it was stopped between two. `stop_reason` is None while it can go on.
    """

    step: int = 0
    tokens: int = 0
    device_s: float = 0.0
    curve: tuple[EvalPoint, ...] = ()
    best_step: int | None = None
    stop_reason: StopReason | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, content: Any) -> Any:
        """Files of earlier versions name the trials of the same step, too."""
        return {key: its for key, its in content.items() if key != "peers"} if isinstance(content, dict) else content


class Evaluation(Record):
    """The engine's answer to a trial's client after each evaluation; `stop_reason` is set on the last."""

    step: int
    eval_loss: float
    stop_reason: StopReason | None
    curve: tuple[EvalPoint, ...]


class EngineStatus(Record):
    """Device and slots of an engine that is ready; `measured` is tokens/s by number of slots, if measured.

    `micro_batch_size` rows of a slot make a pass at most; `checkpointing` is whether layers are recomputed. `lowered`
    says in a sentence what became smaller after an engine on this device was killed.
    """

    device: str
    dtype: str
    threads: int
    slots: int
    measured: dict[int, float]
    startup_s: float
    micro_batch_size: int = 0
    checkpointing: bool = False
    lowered: str | None = None


class EngineUse(Record):
    """Where an engine's time went, in seconds since it was ready.

    For `waiting_s` it had nothing to train, `starved_s` of that before the last new trial came. Until then,
    `busy_slot_s` of `open_slot_s` slot-seconds were used. `slots` are fewer than at the start if memory ran out.
    """

    train_s: float = 0.0
    eval_s: float = 0.0
    save_s: float = 0.0
    waiting_s: float = 0.0
    starved_s: float = 0.0
    busy_slot_s: float = 0.0
    open_slot_s: float = 0.0
    tokens: int = 0
    steps: int = 0
    slots: int = 0
