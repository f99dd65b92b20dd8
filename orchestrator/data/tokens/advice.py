"""What to do about a sample that a chat template cannot show, as far as that can be found by trying it."""

from collections.abc import Callable, Sequence
from itertools import combinations

from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.segments import render_turns
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.records import LeftOutReason, Message, Sample

ADVICE: dict[LeftOutReason, str] = {
    "too_long": "Raise data.max_length, or set data.overlong to shorten",
    "nothing_to_learn": "Set model.chat_template to hermes, or use a base that shows tool calls, such as Qwen3",
    "control_token_in_text": "Take the base's marks out of the texts of the data",
    "text_not_shown": "Use a base whose chat template shows text beside calls, such as Qwen3, or take that text out",
    "prompt_differs": "Use a base whose chat template shows earlier turns in a row as in the prompt, such as Qwen3",
    "template_refuses": "Use a base whose chat template takes such conversations, such as Qwen3",
}
"""By reason; a sample of which more is known has its own."""


def advice_on(form: ChatFormat, sample: Sample, problem: RowLeftOut) -> str:
    """What lets the template take this sample, in one or two imperative clauses.

    Of a sample that the template refuses, variants are rendered until it takes one.
    """
    if problem.reason != "template_refuses":
        return problem.fix or ADVICE[problem.reason]
    for tried in (*((way,) for way in _WAYS), *combinations(_WAYS, 2)):
        variant = sample
        for way in tried:
            variant = _WAYS[way](variant)
        if variant != sample and _takes(form, variant):
            return "; ".join(way if place == 0 else way[0].lower() + way[1:] for place, way in enumerate(tried))
    return ADVICE["template_refuses"]


def _takes(form: ChatFormat, sample: Sample) -> bool:
    try:
        render_turns(form, sample.messages, sample.tools)
    except RowLeftOut as problem:
        return problem.reason != "template_refuses"
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
    """Each turn with its first call alone, and the result after it."""
    kept: list[Message] = []
    for message in sample.messages:
        if message.role == "tool" and kept and kept[-1].role == "tool":
            continue
        first = message.tool_calls[:1]
        kept.append(message.model_copy(update={"tool_calls": first}) if len(message.tool_calls) > 1 else message)
    return _with(sample, kept)


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


def _words_only(sample: Sample) -> Sample:
    spoken = [message for message in sample.messages if message.role != "tool" and not message.tool_calls]
    return _alternating(_with(sample, spoken)).model_copy(update={"tools": ()})


_WAYS: dict[str, Callable[[Sample], Sample]] = {
    "Leave system messages out, or use a base whose chat template takes them": _without_system,
    "Give every tool a description and parameters": _described,
    "Give one call a turn, or use a base whose chat template shows several": _one_call_a_turn,
    "Let the user speak first, and join turns of one speaker that follow each other": _alternating,
    "Set model.chat_template to hermes, or use a base whose chat template shows tool calls and results": _words_only,
}
"""What a template may refuse: the advice, and a sample for which it was followed."""
