"""Calls of Granite 3: a mark, then one JSON array of calls.

    prose<|tool_call|>[{"name": "...", "arguments": {...}}, ...]

An answer after thoughts may stand between `<response>` and `</response>`, which are no prose. Granite 3.1 may write
`<tool_call>` for the mark. Every mark outside the strings of a call is an attempt, and in an array every item is one.
(Granite 4 writes calls as Hermes models do.)
"""

import re

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    as_call,
    decode_value,
    not_a_call,
    sort_out,
)

_MARK, _OTHER_MARK = "<|tool_call|>", "<tool_call>"
_AROUND_ANSWERS = re.compile(r"</?response>")
_MARKS = re.compile(f"{re.escape(_MARK)}|{_OTHER_MARK}")


def _read(text: str, _schemas: Schemas) -> Found:
    attempts, prose, place = list[Attempt](), list[str](), 0
    while mark := _MARKS.search(text, place):
        prose.append(text[place : mark.start()])
        decoded = decode_value(text, mark.end(), _MARKS)
        place = decoded.end
        if decoded.fault:
            attempts.append(decoded.fault)
        elif not isinstance(decoded.value, list):
            attempts.append(not_a_call("after the mark stands no array of calls"))
        else:
            attempts += [*map(as_call, decoded.value)] or [not_a_call("the array of calls is empty")]
        if not decoded.is_read:  # what follows is the broken call
            following = _MARKS.search(text, place)
            place = following.start() if following else len(text)
    return sort_out(attempts, _AROUND_ANSWERS.sub("", " ".join([*prose, text[place:]])))


GRANITE = ReplyFormat(
    name="granite",
    is_shown_in=lambda template: _MARK in template and "<|/tool_call|>" not in template,
    read=_read,
    mark=_MARK,
    other_marks=(_OTHER_MARK,),
    vllm_parser="granite",
)
