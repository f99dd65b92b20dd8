"""Calls of Phi-4-mini, in the two ways in which they are written: JSON in tags, or one array behind `functools`.

    prose<|tool_call|>{"name": "...", "arguments": {...}}<|/tool_call|>
    prose functools[{"name": "...", "arguments": {...}}, ...]

The first has an object or an array of them, and is what the model's own tokens are for. The second is the only one that
vLLM's parser reads, and there only the first array, without brackets inside it. `parameters` is taken for `arguments`,
as by that parser. Every opening tag, every `functools[` and every `functools{` outside the strings of a call is an
attempt, and in an array every item is one.
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
    problem,
    read_tagged,
    sort_out,
)

_OPEN_CALL, _CLOSE_CALL = "<|tool_call|>", "<|/tool_call|>"
_FUNCTOOLS = "functools["
_MARKS = re.compile(rf"{re.escape(_OPEN_CALL)}|{re.escape(_CLOSE_CALL)}|functools[\[{{]")


def _read(text: str, _schemas: Schemas) -> Found:
    attempts, prose, place = list[Attempt](), list[str](), 0
    while mark := _MARKS.search(text, place):
        prose.append(text[place : mark.start()])
        if mark.group() == _OPEN_CALL:
            found, place = read_tagged(text, mark.end(), _MARKS, _CLOSE_CALL, _calls)
        elif mark.group() == _CLOSE_CALL:
            found, place = [problem("unclosed_tag", "nothing opens the call that is closed")], mark.end()
        else:
            found, place = _read_array(text, mark.end() - 1)
        attempts += found
    return sort_out(attempts, " ".join([*prose, text[place:]]))


def _read_array(text: str, start: int) -> tuple[list[Attempt], int]:
    """What the array at `start` brings; also the place from which to read on."""
    decoded = decode_value(text, start, _MARKS)
    if decoded.is_read and isinstance(decoded.value, list):
        return [decoded.fault] if decoded.fault else _calls(decoded.value), decoded.end
    mark = _MARKS.search(text, decoded.end)  # what stands before it is the broken call
    return [decoded.fault or not_a_call("no array of calls follows")], mark.start() if mark else len(text)


def _calls(value: object) -> list[Attempt]:
    items = value if isinstance(value, list) else [value]
    read = [as_call(item, arguments_keys=("arguments", "parameters")) for item in items]
    return read or [not_a_call("the array of calls is empty")]


PHI4_MINI = ReplyFormat(
    name="phi4_mini",
    is_shown_in=lambda template: _FUNCTOOLS in template or _CLOSE_CALL in template,
    read=_read,
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    other_marks=(_FUNCTOOLS,),
    vllm_parser="phi4_mini_json",
)
