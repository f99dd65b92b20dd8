"""Calls of GigaChat 3 and 3.1: prose, and one JSON object behind a mark, or in a message of its own.

    prose<|function_call|>{"name": "...", "arguments": {...}}
    prose<|message_sep|>

    function call<|role_sep|>
    {"name": "...", "arguments": {...}}

All behind the first mark is one attempt, and nothing may follow the object.
"""

import re

from orchestrator.chat.formats.reply import (
    Found,
    ReplyFormat,
    Schemas,
    as_call,
    decode_value,
    problem,
    sort_out,
    text_beside,
)

_CALL, _ROLE_END, _MESSAGE_END = "<|function_call|>", "<|role_sep|>", "<|message_sep|>"
_ROLE = "function call"
_MARK = re.compile(f"{re.escape(_CALL)}|{_ROLE}{re.escape(_ROLE_END)}")


def _read(text: str, _schemas: Schemas) -> Found:
    mark = _MARK.search(text)
    if mark is None:
        return Found(prose=text)
    prose = text[: mark.start()].rstrip().removesuffix(_MESSAGE_END)
    if mark.group() != _CALL and not text.startswith("\n", mark.end()):
        return sort_out([problem("not_json", f"no line follows {mark.group()}")], prose)
    decoded = decode_value(text, mark.end())
    if decoded.fault:
        return sort_out([decoded.fault], prose)
    rest = text[decoded.end :].strip()
    return sort_out([text_beside("", rest) if rest else as_call(decoded.value)], f"{prose} {rest}")


GIGACHAT3 = ReplyFormat(
    name="gigachat3",
    is_shown_in=lambda template: _ROLE_END in template and any(mark in template for mark in (_CALL, _ROLE)),
    read=_read,
    mark=_CALL,
    other_marks=(f"{_ROLE}{_ROLE_END}",),
    vllm_parser="gigachat3",
)
