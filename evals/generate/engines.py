"""Engines as Ray actors: started, fed, replaced when they die."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from evals.generate.dealing import Chunk, Work, WorkQueue
from evals.generate.engine import (
    IN_PROCESS,
    ON_CPU,
    Adapter,
    Batch,
    Engine,
    EngineSettings,
    Loaded,
    Piece,
    Prompt,
    Timed,
    failed_generation,
    load_vllm,
)
from evals.generate.listening import Listener
from evals.records import FailedAdapter, Generation
from orchestrator.config.evaluation import CPU_KV_CACHE_GIB
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, EvaluationError, InputError, causes
from orchestrator.run.cluster import cluster_capacity, worker_shape
from orchestrator.run.deaths import SAVES_EVALUATION_MEMORY, why_it_died
from orchestrator.run.methods import require_engine_gpus

MAX_ENGINE_CPUS = 8
"""CPUs of an engine without a GPU, where its machine has as many."""
MIN_DEATHS_IN_A_ROW = 3
"""So many engines, or twice as many as there are, may not die one after the other without a reply between them."""

LOOK_S = 5.0
"""How often engines that say nothing are looked at."""
SILENT_S = 180.0
"""An engine that replies gives a sign of life between its steps; one that gives none for so long hangs."""
SILENT_AT_START_S = 10 * SILENT_S
"""While it loads the base and the adapter it can give none."""


class HungEngineError(RayError):  # type: ignore[misc]  # ray ships no types for it
    """An engine that gives no sign of life."""


class EngineHost:
    """The process of one engine. It loads vLLM at once, before the engine's settings are known."""

    def __init__(self) -> None:
        load_vllm()
        self._engine: Engine | None = None

    def ready(self) -> None:
        """Answer as soon as the process is there, which on a full cluster may be never."""

    def answer(
        self,
        settings: EngineSettings,
        canaries: Sequence[Prompt],
        prompts: Sequence[Prompt],
        adapter: Adapter | None,
        *,
        streams: bool = False,
    ) -> Iterator[Loaded | Piece | Batch]:
        """As `Engine.answer`; the first call starts the engine."""
        if self._engine is None:
            self._engine = Engine(settings, canaries)
        yield from self._engine.answer(prompts, adapter, streams=streams)

    def time(self, settings: EngineSettings, prompts: Sequence[Prompt], adapter: Adapter | None) -> list[Timed]:
        """As `Engine.time`; starts the engine if none is there."""
        if self._engine is None:
            self._engine = Engine(settings)
        return self._engine.time(prompts, adapter)


@dataclass
class Engines:
    """The engine processes of an evaluation. Produced by `open_engines`; `count` of them work at a time."""

    count: int
    on_gpu: bool
    actor_class: Any
    fresh: list[Any] = field(default_factory=list)
    used: list[Any] = field(default_factory=list)

    def warm_up(self) -> None:
        """Have `count` processes load vLLM."""
        self.fresh += [self.actor_class.remote() for _ in range(self.count - len(self.fresh))]

    def take(self) -> Any:
        """A process without an engine."""
        self.used.append(self.fresh.pop() if self.fresh else self.actor_class.remote())
        return self.used[-1]

    def reuse(self) -> None:
        """Let the processes that have an engine answer what comes next, under the settings that it has."""
        self.fresh, self.used = [*self.fresh, *self.used], []

    def end_used(self, keep: Any = None) -> None:
        """End the processes that have an engine, but for one to `keep`, and free what they hold."""
        for actor in self.used:
            if actor is not keep:
                ray.kill(actor)
        self.used = [] if keep is None else [keep]


@contextmanager
def open_engines(config: RunConfig, *, beside_training: bool = False) -> Iterator[Engines]:
    """Processes for engines on the connected cluster, as many as `eval.num_engines` or the cluster's devices say.

    `beside_training` it is one, and shares CPUs that others have reserved. They begin to load vLLM at once, and end
    with the block.

    Raises:
        ConfigError: If no node has as many GPUs as `eval.tensor_parallel` says.
    """
    on_gpu = worker_shape(config.resources).gpus > 0
    require_engine_gpus(config.eval.tensor_parallel, cluster_capacity()[1] if on_gpu else {}, "the largest node")
    gpus = config.eval.tensor_parallel if on_gpu else 0
    count = 1 if beside_training else num_engines(config.eval.num_engines, gpus=gpus)
    sizes = _cpus_of_nodes() or [MAX_ENGINE_CPUS]
    num_cpus = 1 if on_gpu else max(1, min(MAX_ENGINE_CPUS, min(sizes) // math.ceil(count / len(sizes))))
    if beside_training:
        num_cpus = 0
    environment = {"env_vars": IN_PROCESS if on_gpu else IN_PROCESS | ON_CPU}
    host = ray.remote(EngineHost).options(num_cpus=num_cpus, num_gpus=gpus, runtime_env=environment)
    engines = Engines(count, on_gpu, host)
    engines.warm_up()
    try:
        yield engines
    finally:
        engines.used += engines.fresh
        engines.end_used()


def _cpus_of_nodes() -> list[int]:
    """Whole CPUs of each living node that has any."""
    sizes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [size for size in sizes if size >= 1]


def num_engines(wanted: int | None, *, gpus: int) -> int:
    """As many engines of so many `gpus` as the cluster can hold, or fewer if `wanted`.

    By default one for each GPU, or for as many as an engine takes of one node; else one for each machine.
    """
    if gpus == 1:
        most = usual = int(cluster_capacity()[0].get("GPU", 0))
    elif gpus:
        nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
        most = usual = sum(int(node.get("GPU", 0)) // gpus for node in nodes)
    else:
        most, usual = sum(_cpus_of_nodes()), len(_cpus_of_nodes())
    return max(1, usual if wanted is None else min(wanted, most))


def engine_kv_cache_bytes(gib: float | None, *, on_gpu: bool) -> int | None:
    """Bytes for an engine's key-value cache; None leaves them to vLLM."""
    if gib is None and on_gpu:
        return None
    return int((gib or CPU_KV_CACHE_GIB) * 1024**3)


def answer_all(
    works: Sequence[Work],
    *,
    engines: Engines,
    settings: EngineSettings,
    canaries: Sequence[Prompt],
    listener: Listener,
    keep_one: bool = False,
) -> list[FailedAdapter]:
    """Have engines answer all works; every reply goes to the listener exactly once. The engines are ended.

    With `keep_one` one that is warm stays, if there is one.

    A case on which an engine dies is asked once more by itself, in a new engine, and then gets a generation with
    finish_reason "error". A work whose adapter cannot be loaded or changes nothing is dropped and returned with the
    reason.

    Raises:
        EvaluationError: If engines die one after the other without a reply.
    """
    queue = WorkQueue([work for work in works if work.prompts], engines.count)
    passed, warm = _Round(queue, engines, settings, canaries, listener), None
    try:
        failed = passed.run()
        warm = passed.idle[0].actor if keep_one and passed.idle else None
        return failed
    finally:
        engines.end_used(warm)


def time_alone(
    engines: Engines, settings: EngineSettings, turns: Sequence[tuple[Adapter | None, Sequence[Prompt]]]
) -> list[list[Timed]]:
    """Have one engine, a warm one if there is one, time the turns one after the other; no other engine works meanwhile.

    Raises:
        EvaluationError: If the engine dies or an adapter cannot be loaded; the engine is ended.
    """
    actor = engines.used[-1] if engines.used else engines.take()
    try:
        return [ray.get(actor.time.remote(settings, prompts, adapter)) for adapter, prompts in turns]
    except RayError as error:
        engines.end_used()
        raise EvaluationError(str(_known(error) or _reason(error))) from error


def answer_live(
    actor: Any,
    settings: EngineSettings,
    canaries: Sequence[Prompt],
    prompt: Prompt,
    adapter: Adapter | None,
) -> Iterator[Loaded | Piece | Generation]:
    """Have one engine answer while somebody watches: how the weights took effect, the text piece by piece, the reply.

    Raises:
        AdapterError: If the adapter cannot be loaded or changes nothing.
        EvaluationError: If the engine dies.
    """
    try:
        for message in actor.answer.remote(settings, canaries, [prompt], adapter, streams=True):
            found = ray.get(message)
            if isinstance(found, Batch):
                yield from found.generations
            else:
                yield found
    except RayError as error:
        raise _known(error) or EvaluationError(_reason(error), where="the vLLM engine") from error


def _known(error: RayError) -> AdapterError | InputError | None:
    """What an engine raised on purpose."""
    return next((cause for cause in causes(error) if isinstance(cause, AdapterError | InputError)), None)


@dataclass(eq=False)
class _Worker:
    """One engine and the chunk that it has, or had last. `waiting` are the prompts of it that have no reply.

    `heard_at` is when it last gave a sign of life, and `has_begun` whether it gave one since it got the chunk.
    """

    actor: Any
    ready: Any
    chunk: Chunk | None = None
    stream: Any = None
    waiting: dict[str, Prompt] = field(default_factory=dict)
    heard_at: float = 0.0
    has_begun: bool = False


@dataclass(eq=False)
class _Round:
    """One pass over a queue. Only engines whose process is there get work, so that none waits for what never comes."""

    queue: WorkQueue
    engines: Engines
    settings: EngineSettings
    canaries: Sequence[Prompt]
    listener: Listener
    failed: dict[str, FailedAdapter] = field(default_factory=dict)
    starting: list[_Worker] = field(default_factory=list)
    idle: list[_Worker] = field(default_factory=list)
    busy: list[_Worker] = field(default_factory=list)
    deaths_in_a_row: int = 0

    def run(self) -> list[FailedAdapter]:
        for _ in range(self.engines.count):
            self._start()
        while True:
            self._deal()
            if not self.busy and self.queue.is_empty():
                return list(self.failed.values())
            self._wait()

    def _start(self) -> None:
        actor = self.engines.take()
        self.starting.append(_Worker(actor, actor.ready.remote()))

    def _deal(self) -> None:
        while self.idle:
            worker = self.idle[-1]
            chunk = self.queue.deal(worker.chunk.key if worker.chunk else None)
            if chunk is None:
                return
            worker.chunk, worker.waiting = chunk, {prompt.case_id: prompt for prompt in chunk.prompts}
            worker.heard_at, worker.has_begun = time.monotonic(), False
            worker.stream = worker.actor.answer.remote(self.settings, self.canaries, chunk.prompts, chunk.adapter)
            self.busy.append(self.idle.pop())

    def _wait(self) -> None:
        """Take the next message of a busy engine, or a process that came up."""
        awaited = {worker.stream: worker for worker in self.busy} | {worker.ready: worker for worker in self.starting}
        come, _ = ray.wait(list(awaited), num_returns=1, timeout=LOOK_S)
        if not come:
            self._end_hung()
            return
        (found,) = come
        worker = awaited[found]
        if worker in self.busy:
            if not self._hear(worker):
                self.busy.remove(worker)
            return
        self.starting.remove(worker)
        try:
            ray.get(found)
        except RayError as error:
            self._count_death("the start of an engine", error)
            self._start()
        else:
            self.idle.append(worker)

    def _end_hung(self) -> None:
        """End each engine that shows no sign of life; its unanswered prompts go to another."""
        for worker in list(self.busy):
            limit = SILENT_S if worker.has_begun else SILENT_AT_START_S
            if time.monotonic() - worker.heard_at > limit:
                assert worker.chunk is not None
                self.busy.remove(worker)
                self._fail(worker, worker.chunk, HungEngineError(f"it hung: no sign of life for {limit:.0f} s"))

    def _hear(self, worker: _Worker) -> bool:
        """Take one message of a busy engine. False when its chunk has ended, one way or the other."""
        chunk, worker.heard_at = worker.chunk, time.monotonic()
        assert chunk is not None
        try:
            message = ray.get(next(worker.stream))
        except StopIteration:
            self.queue.finish(chunk)
            self.idle.append(worker)
            return False
        except RayError as error:
            self._fail(worker, chunk, error)
            return False
        worker.has_begun = True
        if isinstance(message, Loaded):
            self.listener.loaded(chunk.key, message)
            return True
        if message.generations:
            self.deaths_in_a_row = 0
        for generation in message.generations:
            del worker.waiting[generation.case_id]
        self.listener.answered(chunk.key, message)
        return True

    def _fail(self, worker: _Worker, chunk: Chunk, error: Exception) -> None:
        known = _known(error)
        if isinstance(known, AdapterError):
            self.queue.finish(chunk)
            self.queue.drop(chunk.key)
            self.failed[chunk.key] = FailedAdapter.of(chunk.key, known)
            self.idle.append(worker)
            return
        if known:
            raise known
        reason = self._count_death(chunk.key, error)
        unanswered = list(worker.waiting.values())
        if given_up := self.queue.take_back(chunk, unanswered):
            lost = [failed_generation(prompt, f"the engine died on it twice: {reason}") for prompt in given_up]
            self.listener.answered(chunk.key, Batch(lost, 0.0))
        else:
            self.listener.retried(chunk.key, len(unanswered), reason)
        ray.kill(worker.actor)
        self._start()

    def _count_death(self, key: str, error: Exception) -> str:
        """Why an engine died; an `EvaluationError` if it is one of too many in a row."""
        reason = _reason(error)
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row >= max(MIN_DEATHS_IN_A_ROW, 2 * self.engines.count):
            what = f"{self.deaths_in_a_row} vLLM engines broke one after the other; the last: {reason}"
            fix = SAVES_EVALUATION_MEMORY if why_it_died(error) else None
            raise EvaluationError(what, where=key, fix=fix) from error
        return reason


def _reason(error: Exception) -> str:
    """What ended an engine, in one line: the last of the traceback that Ray gives for an error in its start."""
    if death := why_it_died(error):
        return death
    cause = list(causes(error))[-1]
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    if isinstance(cause, RayActorError | HungEngineError):
        return lines[-1]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"
