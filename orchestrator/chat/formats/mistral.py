"""Calls of Mistral models: prose, then calls behind the token `[TOOL_CALLS]`.

    [TOOL_CALLS] [{"name": "...", "arguments": {...}, "id": "..."}, ...]
    [TOOL_CALLS]name{...}[TOOL_CALLS]name{...}
    [TOOL_CALLS]name[CALL_ID]id[ARGS]{...}

The first is that of tokenizers up to v7, the others that of v11 and later; `id` and `[CALL_ID]` may be absent. A name
of the later form has no brackets, braces or double quotes. Every `[TOOL_CALLS]` outside the strings of a call is an
attempt, and in an array every item is one. Text between a call and the next token, or the end, makes the attempt a
problem. A call without `[TOOL_CALLS]` before it is prose.
"""

import re

from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    Attempt,
    Found,
    ParseProblem,
    ReplyFormat,
    Schemas,
    as_call,
    clip,
    decode_value,
    named_call,
    not_a_call,
    problem,
    sort_out,
    text_beside,
)
from orchestrator.notation.strict_json import JSON_SPACE, first_fault, skip_space

_MARK = "[TOOL_CALLS]"
_MARKS = re.compile(re.escape(_MARK))
_HEAD = re.compile(r"([^\[\]{}\"]++)(?:\[CALL_ID\]([^\[\]{}\"]++))?+(\[ARGS\])?+")

_FAULTS = ("not_json", "not_strict_json")
"""Where the JSON itself is at fault, what stands after it is not known to be beside it."""


def _read(text: str, _schemas: Schemas) -> Found:
    place = text.find(_MARK)
    if place < 0:
        return Found(prose=text)
    prose, attempts = [text[:place]], list[Attempt]()
    while place < len(text):
        found, end = _read_attempts(text, place + len(_MARK))
        mark = _MARKS.search(text, end)
        place = mark.start() if mark else len(text)
        beside = text[end:place].strip(JSON_SPACE)
        if beside and not any(isinstance(attempt, ParseProblem) and attempt.reason in _FAULTS for attempt in found):
            prose.append(beside)
            found = [text_beside("", beside)]
        attempts += found
    return sort_out(attempts, " ".join(prose))


def _read_attempts(text: str, start: int) -> tuple[list[Attempt], int]:
    """What one `[TOOL_CALLS]` that ends at `start` brings; also the place after it, as far as it could be read."""
    start = skip_space(text, start)
    if text.startswith("[", start) and not text.startswith(_MARK, start):
        decoded = decode_value(text, start, _MARKS)
        if decoded.fault:
            return [decoded.fault], decoded.end
        return [*map(_as_call_with_id, decoded.value)] or [not_a_call("the array of calls is empty")], decoded.end
    head = _HEAD.match(text, start)
    if head is None:
        return [problem("not_json", "after [TOOL_CALLS] stands neither an array nor a name")], start
    name, id, args = head[1].strip(), head[2], head[3]
    if args is None and not text.startswith("{", head.end()):
        return [problem("not_json", f"no arguments follow the name {clip(name)}")], head.end()
    decoded = decode_value(text, head.end(), _MARKS)
    fault = decoded.fault
    if fault is None and (found := first_fault([name, id])):
        fault = problem("not_strict_json", found.detail)
    return [fault or named_call(name, decoded.value, id=id and id.strip())], decoded.end


def _as_call_with_id(item: object) -> Attempt:
    if not isinstance(item, dict) or "id" not in item:
        return as_call(item)
    if not isinstance(item["id"], str):
        return not_a_call("the id of a call is a string")
    call = as_call({key: value for key, value in item.items() if key != "id"})
    return call if isinstance(call, ParseProblem) else call.model_copy(update={"id": item["id"]})


MISTRAL = ReplyFormat(
    name="mistral",
    is_shown_in=lambda template: _MARK in template,
    read=_read,
    mark=_MARK,
    thoughts=THINK_TAGS[::-1],
    vllm_parser="mistral",
    reasoning_parser="mistral",
)
