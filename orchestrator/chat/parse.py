"""Strict parsing of replies: thoughts, prose, and the calls that a reply makes in the format of its family of models.

Nothing is repaired: a malformed call is a failure with a reason, which is what a person needs to fix the data or the
training. The module of each format says what counts as an attempt at a call; everything else is prose.
"""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    UNREAD_MARKS,
    Attempt,
    ParsedReply,
    ServedReply,
    clip,
    decode_value,
    named_call,
    problem,
    schemas_of,
    sort_out,
    without_lone_surrogates,
)
from orchestrator.core.records import FunctionCall, ToolSpec
from orchestrator.notation.strict_json import StrictJsonError, json_equal, parse

CALL_TAGS = tuple(tag for form in REPLY_FORMATS.values() if form.closing_tag is not None for tag in form.tags)
"""The tags of the formats that write calls between tags."""

CALL_MARKS = (*UNREAD_MARKS, *(tag for form in REPLY_FORMATS.values() for tag in form.tags))
"""How models write calls into text. A call left in the text would be learned unchecked and scored as an answer."""

THOUGHTS = tuple(dict.fromkeys(marks for form in REPLY_FORMATS.values() for marks in form.thoughts))
"""What opens and closes a think block in any format."""

END_OF_TURN = (
    *("<|im_end|>", "<|endoftext|>"),  # Qwen, Hermes and others with ChatML
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|eot|>", "<|eom|>"),  # Llama 3 and 4
    *("</s>", "<end_of_turn>", "<eos>", "<|end|>"),  # Mistral, Gemma, Phi
    "<｜end▁of▁sentence｜>",  # DeepSeek
    "<seed:eos>",  # Seed-OSS
    *("<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"),  # Cohere
    *("<turn|>", "<|tool_response>", "<start_function_response>"),  # Gemma 4, FunctionGemma
    *("<|call|>", "<|return|>"),  # gpt-oss
    *("<|user|>", "<|observation|>"),  # GLM
    "[e~[",  # MiniMax
    "<|message_sep|>",  # GigaChat
)
"""Tokens that end a turn; an engine may leave the one at which it stopped in the text."""


def parse_reply(text: str, *, format: str = "hermes", tools: Sequence[ToolSpec] = ()) -> ParsedReply:
    """Take a reply apart by a format of `REPLY_FORMATS`. Never raises: what is wrong is in `problems`.

    `tools` are those that the reply could call: some formats write values without their types.

    A call is strict JSON (see `notation.strict_json`), or for `pythonic` literals of the same kind, with a name that is
    a non-empty string, arguments that are an object, and nothing that its format does not define. Each attempt at a
    call is one call or one problem. Where nothing may stand beside calls and something does, the reply as a whole is
    one attempt, and its problem `text_beside_call`.

    Calls inside the think block are thoughts. A think block that is not closed takes the rest of the reply. Calls in
    another format and think blocks that do not come first are prose. Lone surrogates in prose and thoughts become
    U+FFFD. The time is linear in the text.
    """
    thinking, rest = split_thinking(text, format=format)
    found = REPLY_FORMATS[format].read(rest, schemas_of(tools))
    return ParsedReply(
        calls=found.calls,
        prose=without_lone_surrogates(found.prose.strip()),
        thinking=None if thinking is None else without_lone_surrogates(thinking),
        problems=found.problems,
    )


def read_given_calls(text: str, calls: Sequence[tuple[str, str]]) -> ParsedReply:
    """A reply whose calls an API gave as objects: `text` holds its words and thoughts, `calls` names and arguments.

    Arguments are strict JSON; an empty text stands for none.
    """
    thinking, prose = split_thinking(text)
    found = sort_out(_given_call(name, arguments) for name, arguments in calls)
    return ParsedReply(
        calls=found.calls,
        prose=without_lone_surrogates(prose),
        thinking=None if thinking is None else without_lone_surrogates(thinking),
        problems=found.problems,
    )


def _given_call(name: str, arguments: str) -> Attempt:
    if not arguments.strip():
        return named_call(name, {})
    decoded = decode_value(arguments, 0)
    if decoded.fault is not None:
        return decoded.fault
    rest = arguments[decoded.end :].strip()
    return (
        named_call(name, decoded.value) if not rest else problem("not_json", f"after the arguments stands {clip(rest)}")
    )


class ThinkBlock(NamedTuple):
    """The think block that a reply begins with, what follows it, and the opening tag of a block that has no end."""

    thoughts: str
    rest: str
    unclosed: str | None = None


def leading_thoughts(
    text: str, opens_call: Callable[[str], bool], tags: Sequence[tuple[str, str]] = THINK_TAGS
) -> ThinkBlock | None:
    """The think block that a text begins with, None without one; a block that is not closed takes the rest.

    A closing tag without an opening one ends a block that the prompt opened, unless the text before it opens a call,
    as `opens_call` decides, or another block, or the tag also ends turns.
    """
    begin = text.lstrip()
    for opening, closing in tags:
        if begin.startswith(opening):
            thoughts, found, rest = begin[len(opening) :].partition(closing)
            return ThinkBlock(thoughts.strip(), rest, None if found else opening)
    closings = [closing for _, closing in tags if closing not in END_OF_TURN]
    ends = [(place, closing) for closing in closings if (place := text.find(closing)) >= 0]
    if not ends:
        return None
    place, closing = min(ends)
    before = text[:place]
    if any(opening in before for opening, _ in tags) or opens_call(before):
        return None
    return ThinkBlock(before.strip(), text[place + len(closing) :])


def split_thinking(text: str, *, format: str = "hermes") -> tuple[str | None, str]:
    """Divide a reply into its thoughts (None without a think block) and the rest, without the end-of-turn tokens."""
    text, form = text.strip(), REPLY_FORMATS[format]
    end = len(text)
    while token := next((token for token in form.ends or END_OF_TURN if text.endswith(token, 0, end)), None):
        end -= len(token)
        while end and text[end - 1].isspace():
            end -= 1
    text = text[:end]  # cut once, so in linear time
    block = leading_thoughts(text, form.opens_call, form.thoughts)
    return (None, text) if block is None else (block.thoughts, block.rest.strip())


def same_calls(found: Sequence[FunctionCall], gold: Sequence[FunctionCall]) -> bool:
    """Equal names and arguments in order, with JSON's types: 1, 1.0 and true are three values."""
    return [_canonical(call) for call in found] == [_canonical(call) for call in gold]


def _canonical(call: FunctionCall) -> str:
    return json.dumps([call.name, call.arguments], sort_keys=True)


def serving_differs(parsed: ParsedReply, served: ServedReply) -> bool:
    """Whether vLLM's parsers read other calls in a reply than the strict parser, or in another order, or no words.

    Names are compared, and arguments as JSON values (`json_equal`, without tolerance); arguments that are not strict
    JSON equal none. Words are missed where a client would get neither calls nor words, because they pass for thoughts.
    Call ids, the text beside calls and the parser's own error are not compared.
    """
    if served.thinking and parsed.prose and not (served.calls or served.content.strip()):
        return True
    return len(parsed.calls) != len(served.calls) or any(
        call.function.name != name or not json_equal(call.function.arguments, _value(arguments))
        for call, (name, arguments) in zip(parsed.calls, served.calls, strict=True)
    )


def _value(arguments: str) -> Any:
    try:
        return parse(arguments)
    except StrictJsonError:
        return math.nan
