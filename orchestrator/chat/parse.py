"""Strict parsing of replies: thoughts, prose, and the calls that a reply makes in the format of its family of models.

Nothing is repaired. A client that runs the tool would have to guess what a malformed call means, so a malformed call
is a failure with a reason, and the reason is what a person needs to fix the data or the training. The module of each
format says what counts as an attempt at a call; everything else is prose without a problem.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import UNREAD_MARKS, ParsedReply, ServedReply, without_lone_surrogates
from orchestrator.notation.strict_json import StrictJsonError, json_equal, parse

THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What opens and closes a think block, in data, training and replies alike."""

CALL_TAGS = tuple(tag for form in REPLY_FORMATS.values() if form.closing_tag is not None for tag in form.tags)
"""The tags of the formats that write calls between tags."""

CALL_MARKS = (*UNREAD_MARKS, *(tag for form in REPLY_FORMATS.values() for tag in form.tags))
"""How models write calls into text. A call left in the text would be learned unchecked and scored as an answer."""

END_OF_TURN = (
    *("<|im_end|>", "<|endoftext|>"),  # Qwen, Hermes and others with ChatML
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|eot|>", "<|eom|>"),  # Llama 3 and 4
    *("</s>", "<end_of_turn>", "<eos>", "<|end|>"),  # Mistral, Gemma, Phi
)
"""Tokens that end a turn; an engine may leave the one at which it stopped in the text."""


def parse_reply(text: str, *, format: str = "hermes") -> ParsedReply:
    """Take a reply apart. Never raises: what is wrong with a reply is in its `problems`.

    A call is accepted when it is strict JSON (RFC 8259, no NaN or Infinity, no key twice, no number outside the range
    of a double, no lone surrogate, at most `MAX_DEPTH` levels), or for `pythonic` literals of the same kind, with
    a name that is a non-empty string, arguments that are an object, and nothing that its format does not define.

    Each attempt at a call is one call or one problem. Where nothing may stand beside calls and something does, the
    reply as a whole is one attempt, and its problem `text_beside_call`.

    Calls inside the think block are thoughts, not calls. A think block that is not closed takes the rest of the reply.
    Lone surrogates in prose and thoughts become U+FFFD. The time is linear in the text. Not recognised: calls in
    another format than the given one, and think blocks that do not come first; both are prose.

    Args:
        text: The reply as the model wrote it.
        format: A name in `REPLY_FORMATS`.
    """
    thinking, rest = split_thinking(text, format=format)
    found = REPLY_FORMATS[format].read(rest)
    return ParsedReply(
        calls=found.calls,
        prose=without_lone_surrogates(found.prose.strip()),
        thinking=None if thinking is None else without_lone_surrogates(thinking),
        problems=found.problems,
    )


class ThinkBlock(NamedTuple):
    """The think block that a reply begins with, what follows it, and the opening tag of a block that has no end."""

    thoughts: str
    rest: str
    unclosed: str | None = None


def leading_thoughts(text: str, opens_call: Callable[[str], bool]) -> ThinkBlock | None:
    """The think block that a text begins with, None without one; a block that is not closed takes the rest.

    A closing tag without an opening one ends a block that the prompt opened, unless the text before it opens a call,
    as `opens_call` decides, or another block.
    """
    begin = text.lstrip()
    for opening, closing in THINK_TAGS:
        if begin.startswith(opening):
            thoughts, found, rest = begin[len(opening) :].partition(closing)
            return ThinkBlock(thoughts.strip(), rest, None if found else opening)
    ends = [(place, closing) for _, closing in THINK_TAGS if (place := text.find(closing)) >= 0]
    if not ends:
        return None
    place, closing = min(ends)
    before = text[:place]
    if any(opening in before for opening, _ in THINK_TAGS) or opens_call(before):
        return None
    return ThinkBlock(before.strip(), text[place + len(closing) :])


def split_thinking(text: str, *, format: str = "hermes") -> tuple[str | None, str]:
    """Divide a reply into its thoughts (None without a think block) and the rest, without the end-of-turn tokens.

    See `leading_thoughts`. Before a closing tag that was not opened, a call is the mark of the format, or for a format
    whose calls have none, a bracket at the very beginning.
    """
    text = _without_end_of_turn(text)
    block = leading_thoughts(text, REPLY_FORMATS[format].opens_call)
    return (None, text) if block is None else (block.thoughts, block.rest.strip())


def _without_end_of_turn(text: str) -> str:
    """The text without white space around it and without end-of-turn tokens at its end; cut once, so in linear time."""
    text = text.strip()
    end = len(text)
    while token := next((token for token in END_OF_TURN if text.endswith(token, 0, end)), None):
        end -= len(token)
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end]


def serving_differs(parsed: ParsedReply, served: ServedReply) -> bool:
    """Whether vLLM's parser reads other calls in a reply than the strict parser, or in another order.

    Calls are the same when their names are equal and their arguments are equal as JSON values (`json_equal`, without
    tolerance). Arguments that are not strict JSON equal none. Not compared: what stands beside the calls, call ids, and
    the parser's own error.
    """
    if len(parsed.calls) != len(served.calls):
        return True
    return any(
        call.function.name != name or not json_equal(call.function.arguments, _value(arguments))
        for call, (name, arguments) in zip(parsed.calls, served.calls, strict=True)
    )


def _value(arguments: str) -> Any:
    try:
        return parse(arguments)
    except StrictJsonError:
        return math.nan
