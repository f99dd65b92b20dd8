"""What an adapter gets wrong where it was taught better: its replies to training prompts, judged as in evaluation.

The engines of the evaluation make them, so prompts, stop tokens and the proof that the adapter is in force are the
same. Replies are kept on disk as they come, and asked for once.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from evals.cases.samples import cases_from_samples, draw_cases
from evals.generate.canary import pick_canaries
from evals.generate.engine import EngineSettings, Prompt, adapters_for_engine
from evals.generate.engines import Engines, answer_all
from evals.generate.journal import Journal, engine_records
from evals.generate.settings import settings_of_run
from evals.judge.verdicts import judge_reply
from evals.records import Case, Generation
from evals.stats.ceiling import judge_own_replies
from orchestrator.chat.rendering import render_prompt, reply_format_of
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, InputError
from orchestrator.core.files import read_jsonl
from orchestrator.core.progress import bar, say
from orchestrator.core.records import AdapterRecord, Sample, SampleKind
from orchestrator.core.text import counted
from orchestrator.data.preferences.pair import AskedCard, Candidate, PairEntry
from orchestrator.models.adapters import read_adapter
from orchestrator.models.base import base_folder, base_sha256
from orchestrator.run.paths import RunDir


class OwnReplies(NamedTuple):
    """Pairs of the gold reply and a wrong one, wrong replies that make no pair, and how many were asked for."""

    candidates: list[Candidate]
    entries: list[PairEntry]
    asked: dict[SampleKind, AskedCard]


class Taught(NamedTuple):
    """A training prompt as a case, and the sample up to the reply that it teaches."""

    case: Case
    gold: Sample


class Asked(NamedTuple):
    """Prompts, each as often as replies are sampled to it, with what is taught there; `refused` cannot be shown."""

    prompts: list[Prompt]
    taught: list[Taught]
    refused: list[PairEntry]


def own_wrong_replies(
    config: RunConfig, run: RunDir, adapter_id: str, tokenizer: PreTrainedTokenizerBase, engines: Engines
) -> OwnReplies:
    """Sample an adapter's replies to `prefer.max_prompts` prompts of train, and pair the wrong ones with the gold.

    Only prompts are asked of which the data's own reply is recognised as right.

    Raises:
        AdapterError: If the adapter cannot be loaded or changes nothing.
        EvaluationError: If engines break one after the other.
    """
    asked = training_prompts(config, run, tokenizer)
    replies = _replies(config, run, adapter_id, tokenizer, asked.prompts, engines) if asked.prompts else []
    return paired(asked, replies, reply_format_of(config.eval.reply_format, tokenizer))


def paired(asked: Asked, replies: Sequence[Generation], reply_format: str) -> OwnReplies:
    """Judge the replies to training prompts, and pair each wrong one that ended by itself with the gold."""
    by_id = {reply.case_id: reply for reply in replies}
    candidates, entries = list[Candidate](), list(asked.refused)
    totals, wrong = Counter[SampleKind](), Counter[SampleKind]()
    for prompt, taught in zip(asked.prompts, asked.taught, strict=True):
        reply = by_id.get(prompt.case_id)
        verdict = judge_reply(taught.case, reply, reply_format)
        totals[taught.gold.kind] += 1
        if verdict.correct:
            continue
        wrong[taught.gold.kind] += 1
        candidate = Candidate(taught.gold, reply.text if reply else "", "own_replies", verdict.reason or "")
        if verdict.correct is None or verdict.cut_off:
            reason = "not_scored" if verdict.correct is None else "cut_off"
            entries.append(PairEntry.of(candidate, left_out=reason, detail=verdict.detail))
        else:
            candidates.append(candidate)
    cards = {kind: AskedCard(replies=count, wrong=wrong[kind]) for kind, count in sorted(totals.items())}
    return OwnReplies(candidates, entries, cards)


def training_prompts(config: RunConfig, run: RunDir, tokenizer: PreTrainedTokenizerBase) -> Asked:
    """Prompts of train, evenly over kinds; those that cannot be rendered or judged are told and left out."""
    golds = {taught.case.id: taught for taught in _taught(config, run)}
    recognised = {one.case_id for one in judge_own_replies(taught.case for taught in golds.values()) if one.correct}
    if missed := len(golds) - len(recognised):
        said = f"{counted(missed, 'training prompt')} of {len(golds):,} cannot be judged by its own reply"
        say(f"{said}, so replies to them make no pair.")
    usable = (golds[case_id].case for case_id in sorted(recognised))
    drawn = draw_cases(usable, max_cases=config.prefer.max_prompts, seed=config.prefer.seed)
    taught, prompts, refused = list[Taught](), list[Prompt](), list[PairEntry]()
    for case in drawn:
        try:
            tokens = render_prompt(tokenizer, case.messages, case.tools, thinking=config.data.thinking)
        except InputError as error:
            unasked = Candidate(golds[case.id].gold, "", "own_replies")
            refused.append(PairEntry.of(unasked, left_out="template_refuses", detail=error.what))
            continue
        draws = range(config.prefer.replies_per_prompt)
        prompts += [Prompt(f"{case.id}~{draw}", tokens, case.tools, draw) for draw in draws]
        taught += [golds[case.id]] * len(draws)
    return Asked(prompts, taught, refused)


def _taught(config: RunConfig, run: RunDir) -> Iterator[Taught]:
    for sample in read_jsonl(run.split("train"), Sample):
        for case in cases_from_samples([sample], turns=config.eval.turns):
            messages = sample.messages[: len(case.messages) + 1]
            changes = {"id": case.id, "messages": messages, "kind": case.kind, "tags": case.tags}
            yield Taught(case, sample.model_copy(update=changes))


def _replies(
    config: RunConfig,
    run: RunDir,
    adapter_id: str,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    engines: Engines,
) -> list[Generation]:
    record = read_adapter(run.adapter(adapter_id))
    settings = _settings(config, record, tokenizer, prompts, on_gpu=engines.on_gpu)
    (adapter,) = adapters_for_engine({adapter_id: (run.adapter(adapter_id), record.sha256)})
    asked, base, limit = {adapter_id: adapter}, base_sha256(base_folder(config.model)), config.eval.max_model_len
    records = engine_records(asked, settings, base=base, num_engines=engines.count, max_model_len=limit)
    journal = Journal(run.preferences(adapter_id), records, asked, {adapter_id: prompts})
    works = journal.pending()
    say(f"{adapter_id} is asked {counted(len(prompts), 'training prompt')}, repeats included.")
    with bar("replies", sum(len(work.prompts) for work in works)) as advance:
        journal.on_answer(advance)
        canaries = pick_canaries(prompts[: config.prefer.replies_per_prompt * 50])
        answer = partial(answer_all, engines=engines, settings=settings, canaries=canaries, listener=journal)
        failed = answer(works) if works else []
    if failed:
        raise AdapterError(failed[0].message)
    return journal.close()[adapter_id]


def _settings(
    config: RunConfig,
    record: AdapterRecord,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    on_gpu: bool,
) -> EngineSettings:
    sampled = {"temperature": config.prefer.temperature, "seed": config.prefer.seed}
    warm = config.model_copy(update={"eval": config.eval.model_copy(update=sampled)})
    return settings_of_run(warm, tokenizer, prompts, ranks=[record.r], on_gpu=on_gpu)
