"""Many cases at once: `generate --cases FILE --out FILE`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evals.cases.suites import cases_from_file
from evals.conversation.answer import Answer, read_answer
from evals.conversation.asking import Conversation
from evals.conversation.converse import render_conversation
from evals.conversation.speakers import Speaker
from evals.generate.canary import pick_canaries
from evals.generate.dealing import Work
from evals.generate.engine import Prompt
from evals.generate.engines import Engines, answer_all
from evals.generate.listening import Heard
from evals.generate.settings import settings_of_run
from evals.judge.verdicts import judge_reply
from evals.records import Case, Generation
from orchestrator.chat.rendering import reply_format_of
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, DataError, InputError
from orchestrator.core.progress import bar


@dataclass(frozen=True)
class Cases:
    """Cases with their prompts; `refused` says by case id why one has none."""

    cases: Sequence[Case]
    prompts: Sequence[Prompt]
    refused: dict[str, str]


def read_cases(config: RunConfig, tokenizer: PreTrainedTokenizerBase, path: Path) -> Cases:
    """The cases of a file in any format of a suite.

    Raises:
        DataError: If it cannot be read, or none of its cases can be asked.
    """
    cases = cases_from_file(path, "auto", suite=path.name.partition(".")[0], turns=config.eval.turns)
    prompts, refused = list[Prompt](), dict[str, str]()
    with bar("prompts", len(cases)) as advance:
        for case in cases:
            try:
                asked = Conversation(case.messages, case.tools)
                prompts.append(render_conversation(config, tokenizer, asked, case.id))
            except InputError as error:
                refused[case.id] = error.what
            advance(1)
    if not prompts:
        why = next(iter(refused.values()), "there is none")
        raise DataError(f"none of {len(cases)} cases can be asked: {why}", where=str(path))
    return Cases(cases, prompts, refused)


def answer_cases(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    found: Cases,
    speakers: Sequence[Speaker],
    engines: Engines,
    *,
    top_p: float,
) -> list[Answer]:
    """The answer of each speaker to each case, in the order of the speakers and cases; a case without one says why.

    Raises:
        AdapterError: If an adapter cannot be loaded or changes nothing.
        EvaluationError: If engines break one after the other.
    """
    ranks = [speaker.rank for speaker in speakers if speaker.rank is not None]
    merges = any(speaker.use_dora for speaker in speakers)
    settings = settings_of_run(config, tokenizer, found.prompts, ranks=ranks, on_gpu=engines.on_gpu, merges=merges)
    settings = settings.model_copy(update={"top_p": top_p})
    works = [Work(speaker.name, speaker.adapter, found.prompts) for speaker in speakers]
    short = sorted(found.prompts, key=lambda prompt: len(prompt.token_ids))
    canaries = pick_canaries(short[: (len(short) + 1) // 2]) if ranks else []
    with bar("replies", len(works) * len(found.prompts)) as advance:
        heard = Heard(advance)
        failed = answer_all(works, engines=engines, settings=settings, canaries=canaries, listener=heard)
    if failed:
        raise AdapterError(failed[0].message)
    reply_format = reply_format_of(config.eval.reply_format, tokenizer)
    return [
        _answer(name, case, replies.get(case.id) or _refused(case, found), reply_format)
        for name, replies in (
            (speaker.name, {reply.case_id: reply for reply in heard.replies[speaker.name]}) for speaker in speakers
        )
        for case in found.cases
    ]


def _refused(case: Case, found: Cases) -> Generation:
    return Generation(case_id=case.id, text="", finish_reason="error", error=found.refused[case.id])


def _answer(name: str, case: Case, reply: Generation, reply_format: str) -> Answer:
    return read_answer(name, reply, case.tools, reply_format, judge_reply(case, reply, reply_format))


def summary_rows(speakers: Sequence[Speaker], answers: Sequence[Answer]) -> list[tuple[str, str, str]]:
    """For each speaker, how many of its replies are what their case asks for, and how many cases have none."""
    rows = []
    for speaker in speakers:
        own = [answer for answer in answers if answer.adapter_id == speaker.name]
        scored = [answer.verdict.correct for answer in own if answer.verdict and answer.verdict.correct is not None]
        rows.append((speaker.name, f"{sum(scored)} of {len(scored)}", str(len(own) - len(scored))))
    return rows
