"""Trials in slots: a search's engines, and what its trials left."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.exceptions import RayActorError

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import OrchestratorError, SearchError, causes
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.progress import doing, say
from orchestrator.multi_lora.actor import EngineActor
from orchestrator.multi_lora.checkpoint import read_progress, step_folder
from orchestrator.multi_lora.messages import EnginePlan, EngineStatus
from orchestrator.plan.steps import COHORT
from orchestrator.run.cluster import cluster_capacity, concurrent_trials
from orchestrator.run.deaths import SAVES_TRAINING_MEMORY, last_line, why_it_died
from orchestrator.run.happened import note
from orchestrator.search.early_stopping import held_at, rung_steps
from orchestrator.search.slot_trial import SlotTrial
from orchestrator.training.outcome import TrainedTrial, memory_of
from orchestrator.training.plan import TrainPlan

MOST_SLOTS = 64
"""Slots of one engine; more was never measured to train faster."""
LOOK_S = 2.0
"""How often the search looks whether an engine was restarted."""
WAITING_CALLS = 16
"""Calls that an engine answers while all of its trials wait for their evaluations."""


class SearchEngines(NamedTuple):
    """The engines of a search, ready to train."""

    handles: tuple[Any, ...]
    statuses: tuple[EngineStatus, ...]

    @property
    def concurrent_trials(self) -> int:
        """Trials at once: one per slot. The next one comes within milliseconds after a slot falls free."""
        return sum(status.slots for status in self.statuses)


@contextmanager
def start_engines(
    config: RunConfig, plan: TrainPlan, storage: Path, *, num_trials: int, told: Path | None = None, turn: int = 0
) -> Iterator[SearchEngines]:
    """Start an engine on each device that the search can use, and end them with the search.

    What becomes of one that is killed is noted in the folder `told`, by default the storage. Engines of another `turn`
    of the search have other numbers.

    Raises:
        InputError: If the base is not there or the multi-LoRA engine cannot train on it.
        SearchError: If an engine could not be started.
    """
    wanted = config.search.max_concurrent
    devices = min(concurrent_trials(wanted, plan.shape, cluster_capacity()[0]), num_trials)
    shares = [wanted and len(range(number, wanted, devices)) for number in range(devices)]
    cohort = math.ceil(COHORT / devices) if config.search.scheduler == "halving" else 1
    most_slots = math.ceil(num_trials / devices)
    plans = [
        engine_plan(config, plan, slots=slots, most_slots=most_slots, cohort=cohort, engines=devices)
        for slots in shares
    ]
    storage.mkdir(parents=True, exist_ok=True)
    say(f"Starting {devices} {'engine' if devices == 1 else 'engines'} for multi-LoRA training ...")
    numbers = range(turn * devices, (turn + 1) * devices)
    handles = tuple(_start(engine, plan, storage, number) for number, engine in zip(numbers, plans, strict=True))
    try:
        with doing("loading the base and measuring how many trials train at once"):
            engines = SearchEngines(handles, tuple(_statuses(handles)))
        say(_describe(engines))
        with _telling_of_deaths(storage, numbers, told or storage):
            yield engines
        _keep_use(handles, numbers, storage)
    finally:
        for handle in handles:
            ray.kill(handle)


def engine_plan(
    config: RunConfig, plan: TrainPlan, *, slots: int | None, most_slots: int, cohort: int, engines: int = 1
) -> EnginePlan:
    """What each engine is asked to do."""
    return EnginePlan(
        model=plan.model,
        target_modules=plan.lora.target_modules,
        gradient_checkpointing=plan.train.gradient_checkpointing,
        train_tokens=plan.train_tokens,
        val_tokens=plan.val_tokens,
        batch_size=plan.train.batch_size,
        micro_batch_size=plan.train.micro_batch_size,
        eval_steps=plan.eval_steps,
        rungs=held_at(config.search, plan),
        patience=plan.train.early_stopping_patience,
        keep_best=plan.train.save_total_limit,
        cpus=plan.cpus_per_worker,
        gpus=plan.gpus_per_worker,
        slots=slots,
        most_slots=min(most_slots, MOST_SLOTS),
        cohort=cohort,
        largest_rank=max(config.search.space.r),
        start=plan.start,
        engines=engines,
        kept_steps=rung_steps(plan, config.search.reduction_factor) if config.search.wants_scores else (),
    )


def slot_trainable(engines: SearchEngines, plan: TrainPlan, trials: Path, rungs: Sequence[int]) -> Any:
    """The Tune trainable: each trial takes a slot of one of the engines, and waits at its rungs to be told to go on."""
    slots = tuple(status.slots for status in engines.statuses)
    return tune.with_parameters(
        SlotTrial, engines=engines.handles, slots=slots, plan=plan, trials=trials, rungs=tuple(rungs)
    )


def read_slot_trial(storage: Path, name: str) -> TrainedTrial:
    """What a trial left in its engine's storage."""
    progress = read_progress(storage / name)
    best = next((point for point in progress.curve if point.step == progress.best_step), None)
    return TrainedTrial(
        curve=progress.curve,
        diverged=progress.stop_reason == "diverged",
        best=best,
        best_checkpoint=step_folder(storage / name, best.step) if best else None,
        steps=progress.step,
        tokens=progress.tokens,
        device_s=round(progress.device_s, 3),
        memory_bytes=memory_of(storage / name),
    )


def _start(engine: EnginePlan, plan: TrainPlan, storage: Path, number: int) -> Any:
    actor = ray.remote(EngineActor).options(
        num_cpus=engine.cpus,
        num_gpus=engine.gpus,
        max_restarts=plan.train.max_failures,
        max_task_retries=-1,
        max_concurrency=max(engine.most_slots, engine.slots or 0) + WAITING_CALLS,
    )
    return actor.remote(engine.model_dump(mode="json"), str(storage), number)


@contextmanager
def _telling_of_deaths(storage: Path, engines: Sequence[int], noted: Path) -> Iterator[None]:
    """While a search runs, say once what became of each engine that was killed and restarted."""
    ended = threading.Event()
    watcher = threading.Thread(target=_tell_of_deaths, args=(storage, engines, noted, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _tell_of_deaths(storage: Path, engines: Sequence[int], noted: Path, ended: threading.Event) -> None:
    told: dict[Path, str | None] = {}
    last_look = False
    while not last_look:
        last_look = ended.wait(LOOK_S)
        for path in (storage / f"engine-{number}.json" for number in engines):
            status = parse_line(path.read_text(encoding="utf-8"), EngineStatus, where=str(path))
            if status.lowered not in (None, told.get(path)):
                say(status.lowered)
                note(noted, f"{status.lowered} Its trials went on from their last evaluations.")
                told[path] = status.lowered


def _keep_use(handles: Sequence[Any], numbers: Sequence[int], storage: Path) -> None:
    """Record where each engine's time went; of one that died it is unknown."""
    for number, answer in zip(numbers, [handle.use.remote() for handle in handles], strict=True):
        with suppress(RayActorError):
            use = ray.get(answer)
            write_text_atomic(storage / f"engine-{number}-use.json", use.model_dump_json(indent=2) + "\n")


def _statuses(handles: Sequence[Any]) -> list[EngineStatus]:
    try:
        return list(ray.get([handle.status.remote() for handle in handles]))
    except RayActorError as error:
        what = f"a multi-LoRA engine died while it started: {why_it_died(error) or last_line(error)}"
        raise SearchError(what, where="search", fix=SAVES_TRAINING_MEMORY) from error
    except ray.exceptions.RayTaskError as error:
        ours = next((cause for cause in causes(error) if isinstance(cause, OrchestratorError)), None)
        what = f"no multi-LoRA engine could be started: {why_it_died(error) or last_line(error)}"
        raise ours or SearchError(what, where="search", fix=SAVES_TRAINING_MEMORY) from error


def _describe(engines: SearchEngines) -> str:
    status, slots = engines.statuses[0], engines.concurrent_trials
    trials = f"{slots} trials at once" if slots > 1 else "one trial at a time"
    what = f"{len(engines.handles)} x {status.device}, {status.dtype}, {trials}"
    if not status.measured:
        return f"Ready: {what}."
    rates = ", ".join(f"{rate:,.0f} with {slots}" for slots, rate in status.measured.items())
    return f"Ready: {what} (tokens/s of the first engine, by its number of trials: {rates})."
