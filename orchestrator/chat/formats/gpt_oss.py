"""Calls of gpt-oss: messages in harmony channels, of which those to a function are calls.

    <|channel|>analysis<|message|>thoughts<|end|>
    <|start|>assistant to=functions.name<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>
    <|start|>assistant<|channel|>commentary to=functions.name <|constrain|>json<|message|>{"city": "Oslo"}<|call|>

The prompt holds the `<|start|>assistant` of the first message. A call is a message on the channel `commentary` to
`functions.name`, whose body is a JSON object and which `<|call|>` or the end of the reply closes. Messages to nobody on
`final` and `commentary` are prose; those on `analysis` are thoughts, also where they do not come first.

Every message with a recipient or with a malformed header is an attempt, as is a header with a recipient that has no
message. A reply without any header is prose.
"""

import re
from typing import NamedTuple

from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    clip,
    decode_value,
    named_call,
    not_a_call,
    problem,
    sort_out,
)
from orchestrator.notation.strict_json import JSON_SPACE, first_fault

_FUNCTIONS = "functions."
_MARK = f"to={_FUNCTIONS}"
START, _CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_CALL, _END, _RETURN = "<|call|>", "<|end|>", "<|return|>"
_ENDS = re.compile("|".join(map(re.escape, (START, _CALL, _END, _RETURN))))
_TO = r" ?to=(?P<{}>[^\s<>]++)"
_TYPE = r" ?(?:<\|constrain\|>)?+(?P<type>\w++)"
_HEADER = re.compile(
    rf"(?:assistant)?+(?:{_TO.format('early')})?+"
    rf"(?:{re.escape(_CHANNEL)}(?P<channel>\w++)(?:{_TO.format('late')})?+(?:{_TYPE})?+)?+ ?"
)


class Message(NamedTuple):
    """What stands before and after `<|message|>`, None without it, and the token that closes the message, if any."""

    header: str
    body: str | None
    closed_by: str


def split_messages(text: str, ends: re.Pattern[str]) -> list[Message]:
    """The messages of a reply, whose first `START` stands in the prompt; `ends` are the tokens that close one."""
    messages: list[Message] = []
    place = 0
    while place < len(text):
        begin = place + len(START) if text.startswith(START, place) else place
        end = ends.search(text, begin)
        stop = end.start() if end else len(text)
        closed_by = end.group() if end else ""
        header, found, body = text[begin:stop].partition(MESSAGE)
        messages.append(Message(header, body if found else None, closed_by))
        place = stop if closed_by == START else stop + len(closed_by)
    return messages


def _read(text: str, _schemas: Schemas) -> Found:
    if _MARK not in text and not any(token in text for token in (_CHANNEL, MESSAGE)):
        return Found(prose=text)
    attempts: list[Attempt] = []
    prose: list[str] = []
    for message in split_messages(text, _ENDS):
        header = _HEADER.fullmatch(message.header)
        if "to=" in message.header or (header is None and message.body is not None):
            attempts.append(_read_call(message, header))
        elif header is None or header["channel"] != "analysis":
            prose.append(message.header if message.body is None else message.body)
    return sort_out(attempts, "\n".join(prose))


def _read_call(message: Message, header: re.Match[str] | None) -> Attempt:
    if message.body is None:
        return problem("unclosed_tag", f"no message follows {clip(message.header)}")
    recipient = (header["early"] or header["late"]) if header else None
    if header is None or recipient is None or (header["early"] and header["late"]):
        return not_a_call(f"no message has the header {clip(message.header)}")
    if not recipient.startswith(_FUNCTIONS) or header["channel"] != "commentary":
        return not_a_call(f"a call is on the channel commentary to {_FUNCTIONS}name, not {clip(message.header)}")
    if header["type"] not in (None, "json"):
        return not_a_call(f"the arguments of a call are json, not {header['type']}")
    decoded = decode_value(message.body, 0)
    if decoded.fault:
        return decoded.fault
    if rest := message.body[decoded.end :].strip(JSON_SPACE):
        return problem("text_inside_tag", f"after the arguments stands {clip(rest)}")
    if message.closed_by not in (_CALL, ""):
        return problem("unclosed_tag", f"the call ends with {message.closed_by} instead of {_CALL}")
    name = recipient.removeprefix(_FUNCTIONS)
    fault = first_fault(name)
    return problem("not_strict_json", fault.detail) if fault else named_call(name, decoded.value)


GPT_OSS = ReplyFormat(
    name="gpt_oss",
    is_shown_in=lambda template: f"{_CHANNEL}commentary" in template and _FUNCTIONS in template,
    read=_read,
    mark=_MARK,
    beginnings=(f"{_CHANNEL}commentary", f"{_CHANNEL}final"),
    thoughts=((f"{_CHANNEL}analysis{MESSAGE}", _END), *THINK_TAGS),
    ends=(_CALL, _END, _RETURN),
    vllm_parser="openai",
    reasoning_parser="openai_gptoss",
)
