"""The evaluation of a run: the base and every kept adapter on the same cases, in warm engines."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evals.cases.samples import cases_from_samples, draw_cases, refuse_repeated_ids
from evals.cases.suites import read_suite
from evals.evaluate.rescore import keep_failures, raise_failures, say_what_is_blind, score_replies
from evals.evaluate.timing import Timekeeper, cases_to_time, time_replies
from evals.generate.canary import NUM_CANARIES, pick_canaries
from evals.generate.chosen import require_own_base
from evals.generate.dealing import Work
from evals.generate.engine import Adapter, EngineSettings, Prompt, adapters_for_engine
from evals.generate.engines import Engines, answer_all
from evals.generate.journal import Journal, engine_record, engine_records, inputs_sha256, remove_replies
from evals.generate.settings import engine_settings, settings_of_run
from evals.judge.second_opinion import JUDGED_KINDS, judge_model, judge_prompts, judgements_of
from evals.records import HELD_OUT, Case, FailedAdapter, Generation, Scores
from evals.stats.agreement import agreement
from orchestrator.chat.rendering import render_prompt, reply_format_of
from orchestrator.chat.serve_command import smallest_served_rank
from orchestrator.config.evaluation import JudgeConfig
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import AdapterError, DataError, EvaluationError, InputError
from orchestrator.core.files import dump_jsonl, read_jsonl, write_text_atomic
from orchestrator.core.progress import bar, say
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord, Sample
from orchestrator.core.text import counted, unit_text
from orchestrator.data.card import MOST_NOT_SHOWN
from orchestrator.models.adapters import load_adapter, read_adapter
from orchestrator.models.base import BaseWeights, base_folder, base_sha256, base_tokenizer, require_its_precision
from orchestrator.run.paths import RunDir

NOTHING: Mapping[str, AdapterError] = {}


def evaluate_run(
    config: RunConfig, run: RunDir, engines: Engines, left_out: Mapping[str, AdapterError] = NOTHING
) -> list[Scores]:
    """Score the base and every adapter of the run on the held-out cases and the suites of the configuration.

    `left_out` says why adapters of the configuration could not be brought in, by name (`outside.bring_in`).
    Writes `evals/cases.jsonl` and, for each, `evals/<id>/generations.jsonl`, `engine.json` and `scores.json`, or
    `failure.json` where it could not be scored. Resumes from the replies that an interrupted evaluation left. Open the
    engines (`engines.open_engines`) before loading this module, which takes seconds.

    Raises:
        DataError: If there is no case, or a suite cannot be read.
        UnscoredAdaptersError: After all others are scored, if an adapter could not be loaded, changes nothing, or left
            too many cases without a reply.
        EvaluationError: If engines break one after the other.
    """
    require_its_precision(config)
    if config.eval.judge is not None:
        base_folder(judge_model(config.eval.judge))  # a missing judge is reported before anything is asked
    tokenizer = base_tokenizer(config.model)
    cases, prompts = rendered_cases(config, tokenizer, collect_cases(config, run))
    write_text_atomic(run.cases, dump_jsonl(cases))
    say_what_is_blind(cases)
    records, failed = _fitting_adapters(config, run)
    failed += [FailedAdapter.of(name, error) for name, error in left_out.items()]
    _forget_others(run, records, failed)
    keep_failures(run, failed)
    served = adapters_for_engine({id_: (run.adapter(id_), record.sha256) for id_, record in records.items()})
    adapters = counted(len(served), "adapter")
    say(f"{_cases_text(cases)}: {counted(len(cases), 'prompt')} for the base and each of {adapters}.")
    ranks, merges = [record.r for record in records.values()], any(record.use_dora for record in records.values())
    asked = Asked(cases, prompts, tokenizer, served, ranks, engines, merges)
    scored, unscored = _ask_and_score(config, run, asked, latency_cases=config.eval.latency_cases)
    failed += unscored
    failed_in_full = _score_in_full(config, run, asked)
    keep_failures(run.full_base, failed_in_full)
    keep_failures(run, failed)
    for scores in scored:
        run.judgements(scores.adapter_id).unlink(missing_ok=True)
    if config.eval.judge is not None:
        _ask_judge(config, run, config.eval.judge, cases=cases, scored=scored, engines=engines)
    raise_failures(run, [*failed, *failed_in_full])
    return scored


@dataclass(frozen=True)
class Asked:
    """What base and adapters are asked, on whatever base: a prompt for each case; `ranks` are those of the adapters.

    `merges` is whether one of these is DoRA.
    """

    cases: Sequence[Case]
    prompts: Sequence[Prompt]
    tokenizer: PreTrainedTokenizerBase
    adapters: Sequence[Adapter]
    ranks: Sequence[int]
    engines: Engines
    merges: bool


def _ask_and_score(
    config: RunConfig, place: RunDir, asked: Asked, *, latency_cases: int = 0
) -> tuple[list[Scores], list[FailedAdapter]]:
    """Have base and adapters reply on the base that `config` scores on, and judge that, in `place`; who failed."""
    prompts, engines = asked.prompts, asked.engines
    ranks, merges = asked.ranks, asked.merges
    settings = settings_of_run(config, asked.tokenizer, prompts, ranks=ranks, on_gpu=engines.on_gpu, merges=merges)
    works = {adapter.id if adapter else BASE_ADAPTER_ID: adapter for adapter in (None, *asked.adapters)}
    base, limit = base_sha256(base_folder(config.model)), config.eval.max_model_len
    records = engine_records(works, settings, base=base, num_engines=engines.count, max_model_len=limit)
    journal = Journal(place, records, works, dict.fromkeys(works, prompts))
    failed = _generate(journal, settings, prompts, engines)
    timed = cases_to_time(asked.cases, prompts, settings, count=latency_cases, seed=config.eval.seed)
    time_replies(Timekeeper(place, journal.asked, timed), settings, engines)
    engines.end_used()
    reply_format = reply_format_of(config.eval.reply_format, asked.tokenizer)
    scored, unscored = _score_all(config, place, journal, asked.cases, reply_format)
    return scored, [*failed, *unscored]


def collect_cases(config: RunConfig, run: RunDir) -> list[Case]:
    """The run's held-out cases and those of its suites."""
    held_out = read_jsonl(run.split("test"), Sample) if run.split("test").is_file() else ()
    found = cases_from_samples(held_out, turns=config.eval.turns)
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
    return cases


def _cases_text(cases: Sequence[Case]) -> str:
    counts = Counter(case.suite for case in cases)
    return ", ".join(_named(suite, count) for suite, count in counts.items())


def _named(suite: str, count: int) -> str:
    return counted(count, f"{suite.replace('_', '-')} case")


def rendered_cases(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, cases: Sequence[Case]
) -> tuple[list[Case], list[Prompt]]:
    """The cases that the base's chat template can show, and the prompt of each.

    Raises:
        DataError: If it refuses more than `MOST_NOT_SHOWN` of those of the data, or more than `eval.max_unscored_rate`
            of a suite.
    """
    shown, prompts, refused = list[Case](), list[Prompt](), dict[str, list[str]]()
    with bar("prompts", len(cases)) as advance:
        for case in cases:
            try:
                tokens = render_prompt(tokenizer, case.messages, case.tools, thinking=config.data.thinking)
            except InputError as error:
                refused.setdefault(case.suite, []).append(f"{case.id}: {error.what}")
            else:
                shown.append(case)
                prompts.append(Prompt(case.id, tokens, case.tools))
            advance(1)
    totals = Counter(case.suite for case in cases)
    for suite, found in refused.items():
        what = f"{len(found)} of {_named(suite, totals[suite])} cannot be asked, such as {found[0]}"
        most, where = config.eval.max_unscored_rate, "eval.max_unscored_rate"
        if suite == HELD_OUT:
            most, where = MOST_NOT_SHOWN, "model.chat_template"
        if len(found) > most * totals[suite]:
            fix = "Set model.chat_template to one that takes such conversations, such as hermes, or leave them out"
            raise DataError(what, where=where, allowed=f"a share of {most:g}", fix=fix)
        say(f"{what}. They are left out, for the base and for every adapter.")
    return shown, prompts


def _fitting_adapters(config: RunConfig, run: RunDir) -> tuple[dict[str, AdapterRecord], list[FailedAdapter]]:
    """The adapters that this base can load, by id, those of one rank together; and why the others cannot be."""
    fitting: list[AdapterRecord] = []
    failed: list[FailedAdapter] = []
    base = BaseWeights(base_folder(config.model))
    for path in sorted((run.root / "adapters").glob("[!.]*")):
        try:
            record = read_adapter(path)
            _check_record(record, path, config)
            load_adapter(path, base)
            smallest_served_rank([record.r])
            fitting.append(record)
        except (AdapterError, DataError) as error:
            failed.append(FailedAdapter.of(path.name, error))
    ordered = sorted(fitting, key=lambda record: (record.r, record.known_eval_loss, record.id))
    return {record.id: record for record in ordered}, failed


def _forget_others(run: RunDir, fitting: Mapping[str, AdapterRecord], failed: Sequence[FailedAdapter]) -> None:
    """Remove the scores of adapters that are gone or cannot be loaded, so that none of them can be chosen.

    Replies of an adapter that cannot be loaded stay: they are used again once its files are restored.
    """
    for failure in failed:
        say(f"Not evaluated: {failure.adapter_id}: {failure.message}")
        run.scores(failure.adapter_id).unlink(missing_ok=True)
        run.judgements(failure.adapter_id).unlink(missing_ok=True)
    known = {*fitting, *(failure.adapter_id for failure in failed), BASE_ADAPTER_ID}
    for folder in (run.root / "evals").glob("[!.]*/"):
        if folder.name not in known:
            remove_replies(run, folder.name)
            run.failure(folder.name).unlink(missing_ok=True)


def _check_record(record: AdapterRecord, folder: Path, config: RunConfig) -> None:
    require_own_base(record, folder, config)
    if record.id != folder.name:
        raise AdapterError(f"the folder holds adapter {record.id}", where=str(folder), fix="Give it its own name")


def _generate(
    journal: Journal, settings: EngineSettings, prompts: Sequence[Prompt], engines: Engines
) -> list[FailedAdapter]:
    """Fill the journal; the adapters that could not be asked."""
    works: list[Work] = journal.pending()
    left = sum(len(work.prompts) for work in works)
    if journal.num_resumed:
        say(f"Resuming: {counted(journal.num_resumed, 'reply', 'replies')} on disk, {left:,} left to generate.")
    short = sorted(prompts, key=lambda prompt: len(prompt.token_ids))[: max(NUM_CANARIES, len(prompts) // 2)]
    if works:
        say(f"Starting {counted(engines.count, 'vLLM engine')}, which takes some seconds.")
    with bar("replies", left) as advance:
        journal.on_answer(advance)
        failed = answer_all(
            works, engines=engines, settings=settings, canaries=pick_canaries(short), listener=journal, keep_one=True
        )
    for failure in failed:
        journal.forget(failure.adapter_id)
    return failed


def _score_in_full(config: RunConfig, run: RunDir, asked: Asked) -> list[FailedAdapter]:
    """Score base and adapters on the full base too, in `full_base/`, where the configuration asks for both."""
    if config.eval.base_precision != "both":
        shutil.rmtree(run.full_base.root, ignore_errors=True)
        return []
    say("Once more on the base in full precision.")
    in_full = config.model_copy(update={"eval": config.eval.model_copy(update={"base_precision": "full"})})
    return _ask_and_score(in_full, run.full_base, asked)[1]


def _score_all(
    config: RunConfig, run: RunDir, journal: Journal, cases: Sequence[Case], reply_format: str
) -> tuple[list[Scores], list[FailedAdapter]]:
    scored: list[Scores] = []
    unscored: list[FailedAdapter] = []
    for adapter_id, generations in journal.close().items():
        try:
            scored.append(score_replies(config, run, adapter_id, cases, generations, reply_format))
        except EvaluationError as error:
            unscored.append(FailedAdapter.of(adapter_id, error, lacks_replies=True))
    return scored, unscored


def _ask_judge(
    config: RunConfig,
    run: RunDir,
    judge: JudgeConfig,
    *,
    cases: Sequence[Case],
    scored: Sequence[Scores],
    engines: Engines,
) -> None:
    """Have the judge model read the replies in which a refusal is at issue, and write `evals/<id>/judgements.jsonl`.

    The scores do not depend on it. Its own replies are kept in `judge/` and used again after an interruption.

    Raises:
        ModelNotFoundError: If there is no such model.
        EvaluationError: If engines break one after the other.
    """
    model = judge_model(judge).model_copy(update={"template_date": config.model.template_date})
    prompts = _judge_prompts(run, model, cases, scored)
    asked = {key: found for key, found in prompts.items() if found}
    if not asked:
        say("No reply is at issue, so the judge has nothing to read.")
        return
    settings = engine_settings(
        config,
        model,
        chain.from_iterable(asked.values()),
        on_gpu=engines.on_gpu,
        max_lora_rank=None,
        max_new_tokens=judge.max_new_tokens,
        temperature=0.0,
        choices=tuple(kind.value for kind in JUDGED_KINDS),
    )
    digest = inputs_sha256(settings, base_sha256(base_folder(model)), None)
    entries = {
        key: engine_record(None, digest, settings, engines.count).model_copy(update={"adapter_id": key})
        for key in asked
    }
    journal = Journal(run.judge, entries, dict.fromkeys(asked), asked)
    works = journal.pending()
    with bar("second opinions", sum(len(work.prompts) for work in works)) as advance:
        journal.on_answer(advance)
        answer_all(works, engines=engines, settings=settings, canaries=(), listener=journal)
    answers = journal.close()
    for scores in scored:
        _keep_judgements(run, scores, answers.get(scores.adapter_id, []))


def _judge_prompts(
    run: RunDir, model: ModelConfig, cases: Sequence[Case], scored: Sequence[Scores]
) -> dict[str, list[Prompt]]:
    tokenizer = base_tokenizer(model)
    return {
        scores.adapter_id: [
            Prompt(asked.case_id, render_prompt(tokenizer, asked.messages, ()))
            for asked in judge_prompts(
                cases, list(read_jsonl(run.generations(scores.adapter_id), Generation)), scores.verdicts
            )
        ]
        for scores in scored
    }


def _keep_judgements(run: RunDir, scores: Scores, answers: Sequence[Generation]) -> None:
    judgements = judgements_of(scores.verdicts, {answer.case_id: answer.text for answer in answers})
    write_text_atomic(run.judgements(scores.adapter_id), dump_jsonl(judgements))
    found = agreement(scores.verdicts, judgements)
    same, asked = found.same_refused, counted(found.num_asked, "reply", "replies")
    said = f"the judge gave no usable opinion on {asked}."
    if same.value is not None:
        said = (
            f"judge and classifier agree on whether a reply refuses in {unit_text(same.value)} of "
            f"{counted(same.n, 'reply', 'replies')}; "
            f"{counted(found.num_unusable, 'opinion')} could not be used."
        )
    say(f"{scores.adapter_id}: {said}")
