"""Calls of Qwen and Hermes models: prose, and any number of JSON objects in tags.

    prose <tool_call>{"name": "...", "arguments": {...}}</tool_call> prose

Every opening tag is an attempt, unless it lies in a string of a call that is read. A closing tag inside a string does
not end the call. A call whose opening tag is missing is prose.
"""

import re

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    as_call,
    clip,
    decode_value,
    problem,
    sort_out,
)
from orchestrator.notation.strict_json import JSON_SPACE

_OPEN_CALL, _CLOSE_CALL = "<tool_call>", "</tool_call>"
_CALL_TAG = re.compile(f"{_OPEN_CALL}|{_CLOSE_CALL}")
_NO_JSON_IN_TAGS = re.compile(r"<function=|<arg_key>|<parameter=")
"""What stands inside the tags where it is no JSON, as with Qwen3-Coder, Qwen3.5, GLM-4.5 and Nemotron 3."""


def _is_shown_in(chat_template: str) -> bool:
    has_tags = _OPEN_CALL in chat_template and _CLOSE_CALL in chat_template
    return has_tags and not _NO_JSON_IN_TAGS.search(chat_template)


def _read(text: str, _schemas: Schemas) -> Found:
    attempts: list[Attempt] = []
    prose: list[str] = []
    place = 0
    while (opening := text.find(_OPEN_CALL, place)) >= 0:
        prose.append(text[place:opening])
        attempt, place = _read_call(text, opening + len(_OPEN_CALL))
        attempts.append(attempt)
    prose.append(text[place:])
    return sort_out(attempts, "".join(prose))


def _read_call(text: str, start: int) -> tuple[Attempt, int]:
    """Read the call whose opening tag ends at `start`; also the place from which to read on."""
    decoded = decode_value(text, start, _CALL_TAG)
    tag = _CALL_TAG.search(text, decoded.end)
    if tag is None:
        return problem("unclosed_tag", f"the reply ends inside the call {clip(text[start:])}"), len(text)
    if tag.group() == _OPEN_CALL:
        return problem("unclosed_tag", "another call begins before this one is closed"), tag.start()
    if decoded.fault:
        return decoded.fault, tag.end()
    trailing = text[decoded.end : tag.start()].strip(JSON_SPACE)
    if trailing:
        return problem("text_inside_tag", f"after the call stands {clip(trailing)}"), tag.end()
    return as_call(decoded.value), tag.end()


HERMES = ReplyFormat(
    name="hermes",
    is_shown_in=_is_shown_in,
    read=_read,
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    precedence=1,
    vllm_parser="hermes",
)
