"""What to do about a sample that a chat template cannot show, as far as that can be found by trying it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

from orchestrator.chat.formats import CONFIG_KEY, REPLY_FORMATS
from orchestrator.chat.named_templates import HERMES, named_template
from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.chat.segments import refuse_unfaithful, render_turns
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.records import LeftOutReason, Message, Sample

ADVICE: dict[LeftOutReason, str] = {
    "too_long": "Raise data.max_length, or set data.overlong to shorten",
    "nothing_to_learn": "Set model.chat_template to hermes, or use a base that shows tool calls, such as Qwen3",
    "control_token_in_text": "Take the base's marks out of the texts of the data",
    "text_not_shown": "Set model.chat_template to hermes, or use a base whose chat template shows text beside calls, "
    "such as Qwen3, or take that text out",
    "calls_not_shown": "Set model.chat_template to hermes, whose JSON keeps every value, or let the arguments fit the "
    "schemas of their tools",
    "prompt_differs": "Set model.chat_template to hermes, or use a base whose chat template shows earlier turns in a "
    "row as in the prompt, such as Qwen3",
    "template_refuses": "Use a base whose chat template takes such conversations, such as Qwen3",
}
"""By reason; a sample of which more is known has its own."""
_BY_HERMES = f"model.chat_template to {HERMES}"


def advice_on(form: ChatFormat, sample: Sample, problem: RowLeftOut) -> str:
    """What lets the template take this sample, in one or two imperative clauses.

    Of a sample that the template refuses, or whose calls it changes, variants are rendered until it takes one.
    """
    if problem.reason not in ("template_refuses", "calls_not_shown"):
        return problem.fix or ADVICE[problem.reason]
    is_taken_by_hermes = _takes(_by_hermes(form), sample)
    if found := next(_variants(form, sample), None):
        return f"{found}; or set {_BY_HERMES}" if is_taken_by_hermes else found
    for name in REPLY_FORMATS:
        if name != form.reply_format and _takes(replace(form, reply_format=name), sample):
            return f"Set {CONFIG_KEY} to {name}, by which its calls are read"
    if problem.reason == "template_refuses" and is_taken_by_hermes:
        return f"Set {_BY_HERMES}, or use a base whose chat template shows such conversations"
    return ADVICE[problem.reason]


def _variants(form: ChatFormat, sample: Sample) -> Iterator[str]:
    """What to change about the sample so that the template takes it, the simplest first."""
    for tried in (*((way,) for way in _WAYS), *combinations(_WAYS, 2)):
        variant = sample
        for way in tried:
            variant = _WAYS[way](variant)
        if variant != sample and _takes(form, variant):
            yield "; ".join(way if place == 0 else way[0].lower() + way[1:] for place, way in enumerate(tried))


@lru_cache(maxsize=4)
def _by_hermes(form: ChatFormat) -> ChatFormat:
    tokenizer = copy.copy(form.tokenizer)
    tokenizer.chat_template = named_template(HERMES)
    return chat_format(tokenizer, thinking=form.thinking)


def _takes(form: ChatFormat, sample: Sample) -> bool:
    try:
        refuse_unfaithful(form, render_turns(form, sample.messages, sample.tools).turns, sample)
    except RowLeftOut:
        return False
    return True


def _with(sample: Sample, messages: Sequence[Message]) -> Sample:
    return sample.model_copy(update={"messages": tuple(messages)})


def _without_system(sample: Sample) -> Sample:
    return _with(sample, [message for message in sample.messages if message.role != "system"])


def _described(sample: Sample) -> Sample:
    tools = []
    for tool in sample.tools:
        function = tool.function
        given = {"description": function.description or function.name, "parameters": function.arguments_schema}
        tools.append(tool.model_copy(update={"function": function.model_copy(update=given)}))
    return sample.model_copy(update={"tools": tuple(tools)})


def _one_call_a_turn(sample: Sample) -> Sample:
    """Turns of several calls as turns of one, each before its result; those without a result for each stay."""
    split: list[Message] = []
    rest = list(sample.messages)
    while rest:
        message = rest.pop(0)
        results, count = rest[: len(message.tool_calls)], len(message.tool_calls)
        if count < 2 or len(results) < count or any(result.role != "tool" for result in results):
            split.append(message)
            continue
        del rest[:count]
        for place, (call, result) in enumerate(zip(message.tool_calls, results, strict=True)):
            said = {} if place == 0 else {"content": "", "reasoning_content": None}
            split += [message.model_copy(update={"tool_calls": (call,), **said}), result]
    return _with(sample, split)


def _alternating(sample: Sample) -> Sample:
    """The user speaks first, and turns of one speaker that follow each other are one."""
    joined: list[Message] = []
    for message in sample.messages:
        last = joined[-1] if joined else None
        if message.role == "assistant" and (last is None or last.role == "system"):
            continue
        if last is not None and last.role == message.role and message.role in ("user", "assistant"):
            content = "\n\n".join(filter(None, (last.content, message.content)))
            joined[-1] = message.model_copy(update={"content": content})
        else:
            joined.append(message)
    return _with(sample, joined)


_WAYS: dict[str, Callable[[Sample], Sample]] = {
    "Leave system messages out": _without_system,
    "Give every tool a description and parameters": _described,
    "Give one call a turn, each with its result after it": _one_call_a_turn,
    "Let the user speak first, and join turns of one speaker that follow each other": _alternating,
}
"""What a template may refuse: the advice, and a sample for which it was followed."""
