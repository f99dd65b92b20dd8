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
    read_tagged,
    sort_out,
)

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
        found, place = read_tagged(
            text, opening + len(_OPEN_CALL), _CALL_TAG, _CLOSE_CALL, lambda value: [as_call(value)]
        )
        attempts += found
    prose.append(text[place:])
    return sort_out(attempts, "".join(prose))


HERMES = ReplyFormat(
    name="hermes",
    is_shown_in=_is_shown_in,
    read=_read,
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    precedence=1,
    vllm_parser="hermes",
    reasoning_parser="qwen3",
)
