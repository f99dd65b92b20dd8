"""The evaluation of a run: the base and every kept adapter on the same held-out cases, in one warm engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from transformers import AutoConfig

from evals.cases import cases_from_samples, draw_cases
from evals.generate import (
    IN_PROCESS,
    Adapter,
    Engine,
    EngineSettings,
    Prompt,
    adapters_for_engine,
    smallest_served_rank,
)
from evals.records import Case, Generation, Scores
from evals.score import score_cases
from orchestrator.adapters import list_adapters
from orchestrator.cluster import cluster_capacity, worker_shape
from orchestrator.config import RunConfig
from orchestrator.data.tokenize import render_prompt
from orchestrator.errors import DataError, EvaluationError, RunConflictError, causes
from orchestrator.jsonl import dump_jsonl, read_jsonl
from orchestrator.models.base import base_folder, compute_dtype, load_tokenizer
from orchestrator.progress import bar, say
from orchestrator.records import BASE_ADAPTER_ID, AdapterRecord, Sample
from orchestrator.runs import RunDir, write_text_atomic

CPU_KV_CACHE_BYTES = 1024**3
"""Without a size vLLM takes nearly all of the machine's memory on a CPU."""
MAX_ENGINE_CPUS = 8
CHUNK_CASES = 64
"""Cases handed to the engine at once: enough to keep it busy, few enough to show progress."""


def evaluate_run(config: RunConfig, run: RunDir) -> list[Scores]:
    """Score the base and every adapter of the run on the held-out cases.

    Writes `evals/cases.jsonl` and, for each, `evals/<id>/generations.jsonl` and `scores.json`.

    Raises:
        RunConflictError: If the run has no adapter.
        DataError: If the held-out part has no case.
        EvaluationError: If the engine broke or left too many cases without a reply.
    """
    adapters = list_adapters(run)
    if not adapters:
        raise RunConflictError(
            "the run has no adapter to evaluate", where=str(run.root), fix="Run `search` or `train` first"
        )
    cases = held_out_cases(config, run)
    folder = base_folder(config.model)
    prompts = _render(config, folder, cases)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    settings = _engine_settings(config, folder, adapters, longest_prompt=longest)
    served = adapters_for_engine({record.id: run.adapter(record.id) for record in adapters})
    say(f"{len(cases)} held-out cases for the base and {len(adapters)} adapters.")
    with _engine(settings) as engine:
        return [_evaluate(config, run, engine, adapter, cases, prompts) for adapter in (None, *served)]


def held_out_cases(config: RunConfig, run: RunDir) -> list[Case]:
    """The run's cases, drawn from its test part and written to `evals/cases.jsonl`."""
    found = cases_from_samples(read_jsonl(run.split("test"), Sample))
    cases = draw_cases(found, max_cases=config.eval.max_cases, seed=config.eval.seed)
    if not cases:
        raise DataError(
            "the held-out part has no turn of the assistant to score",
            where=str(run.split("test")),
            fix="Raise data.split.test, or give conversations in which the assistant answers",
        )
    write_text_atomic(run.cases, dump_jsonl(cases))
    return cases


def _render(config: RunConfig, folder: Path, cases: Sequence[Case]) -> list[Prompt]:
    tokenizer = load_tokenizer(folder, trust_remote_code=config.model.trust_remote_code)
    thinking = config.data.reasoning == "keep"
    return [Prompt(case.id, render_prompt(tokenizer, case.messages, case.tools, thinking=thinking)) for case in cases]


def _engine_settings(
    config: RunConfig, folder: Path, adapters: Sequence[AdapterRecord], *, longest_prompt: int
) -> EngineSettings:
    model = AutoConfig.from_pretrained(folder, trust_remote_code=config.model.trust_remote_code)
    on_gpu = worker_shape(config.resources).gpus > 0
    wanted = config.eval.max_model_len or longest_prompt + config.eval.max_new_tokens
    kv_cache_gib = config.eval.kv_cache_gib
    kv_cache_bytes = int(kv_cache_gib * 1024**3) if kv_cache_gib else None if on_gpu else CPU_KV_CACHE_BYTES
    return EngineSettings(
        model_folder=str(folder),
        dtype=compute_dtype(config.model.dtype),
        trust_remote_code=config.model.trust_remote_code,
        on_gpu=on_gpu,
        max_model_len=min(wanted, model.max_position_embeddings),
        max_lora_rank=smallest_served_rank([record.r for record in adapters]),
        kv_cache_bytes=kv_cache_bytes,
        seed=config.eval.seed,
    )


@contextmanager
def _engine(settings: EngineSettings) -> Iterator[Any]:
    """A Ray actor with a started engine; ended with the block."""
    _, largest = cluster_capacity()
    num_cpus = 1 if settings.on_gpu else min(MAX_ENGINE_CPUS, int(largest["CPU"]) if largest else MAX_ENGINE_CPUS)
    actor_class = ray.remote(Engine).options(
        num_cpus=max(1, num_cpus), num_gpus=int(settings.on_gpu), runtime_env={"env_vars": IN_PROCESS}
    )
    actor = actor_class.remote(settings)
    try:
        yield actor
    finally:
        ray.kill(actor)


def _evaluate(
    config: RunConfig,
    run: RunDir,
    engine: Any,
    adapter: Adapter | None,
    cases: Sequence[Case],
    prompts: Sequence[Prompt],
) -> Scores:
    adapter_id = adapter.id if adapter else BASE_ADAPTER_ID
    generations: list[Generation] = []
    with bar(f"replies of {adapter_id}", len(prompts)) as advance:
        for start in range(0, len(prompts), CHUNK_CASES):
            chunk = prompts[start : start + CHUNK_CASES]
            generations += _ask(config, engine, adapter, chunk)
            advance(len(chunk))
    write_text_atomic(run.generations(adapter_id), dump_jsonl(generations))
    scores = score_cases(adapter_id, cases, generations)
    _refuse_unscored(config, scores, generations)
    write_text_atomic(run.scores(adapter_id), scores.model_dump_json(indent=2) + "\n")
    return scores


def _ask(config: RunConfig, engine: Any, adapter: Adapter | None, prompts: Sequence[Prompt]) -> list[Generation]:
    request = engine.generate.remote(
        prompts,
        adapter=adapter,
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.eval.temperature,
        seed=config.eval.seed,
    )
    try:
        replies: list[Generation] = ray.get(request)
    except (RayActorError, RayTaskError) as error:
        cause = list(causes(error))[-1]
        raise EvaluationError(
            f"the vLLM engine broke: {type(cause).__name__}: {cause}",
            where=adapter.id if adapter else BASE_ADAPTER_ID,
        ) from error
    return replies


def _refuse_unscored(config: RunConfig, scores: Scores, generations: Sequence[Generation]) -> None:
    if scores.num_unscored > config.eval.max_unscored_rate * scores.num_cases:
        first = next((generation.error for generation in generations if generation.error), "no reply")
        raise EvaluationError(
            f"{scores.num_unscored} of {scores.num_cases} cases got no reply; the first because {first}",
            where=scores.adapter_id,
            allowed=f"a share of {config.eval.max_unscored_rate:g} (eval.max_unscored_rate)",
        )
