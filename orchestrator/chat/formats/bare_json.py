"""Calls without a mark: JSON that is the whole reply, as of Llama models, MCP clients and plain JSON prompts.

    {"name": "...", "parameters": {...}}; {"name": "...", "parameters": {...}}          llama_json
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "...", "arguments": {...}}}     mcp
    [{"name": "...", "arguments": {...}}, {"tool": "...", "arguments": {...}}]          json

`llama_json` may begin with `<|python_tag|>`, and takes `arguments` for `parameters`, as vLLM's parser does. In `mcp`
the id is a string or an integer and `arguments` may be absent, as the protocol has it; `_meta` is allowed in `params`.

What is an attempt? The mark `<|python_tag|>` always. Else, in all three formats:

- JSON, all of it or up to other text, whose object (or one of its array) has a key of calls (`arguments`,
  `parameters`, `params`, `jsonrpc`, `tool_calls`, `function_call`), or a text under `name` or `tool` and otherwise
  objects only. Each item of such an array is one. `{"temperature": 21}`, `{"name": "Ada", "age": 36}` and `[]` are
  prose: a client gets them as an answer in JSON.
- A text that begins with a brace or bracket, is not JSON, and has `name`, `tool`, `function`, `jsonrpc` or `method` as
  its first key or a key of calls anywhere: a call that broke.
- Running text in which an object begins with such a key and a key of calls follows: a call beside text.
"""

import re
from collections.abc import Callable

from orchestrator.chat.calls import (
    Found,
    as_call,
    decode_value,
    json_type,
    named_call,
    not_a_call,
    problem,
    skip_space,
    sorted_out,
    text_beside,
)
from orchestrator.chat.reply import ParseProblem
from orchestrator.core.records import ToolCall

_PYTHON_TAG = "<|python_tag|>"
_SEPARATOR = re.compile(";")

_CALL_KEYS = frozenset({"arguments", "parameters", "params", "jsonrpc", "tool_calls", "function_call"})
_NAME_KEYS = ("name", "tool")
_FIRST_KEYS = "name|tool|function|jsonrpc|method"
_CALL_KEY = re.compile(rf"([\"'])(?:{'|'.join(sorted(_CALL_KEYS))})\\?\1")
_BROKEN_OPENING = re.compile(rf"[\[{{\s]++[\"']?+(?:{_FIRST_KEYS})\b[\"']?+\s*+:")
_OPENING_IN_TEXT = re.compile(rf"(?:\{{\s*+|\A)([\"'])(?:{_FIRST_KEYS}|id|type|{'|'.join(sorted(_CALL_KEYS))})\1\s*+:")


def read_llama_json(text: str) -> Found:
    """The calls of a reply of a Llama model, in order."""
    if text.startswith(_PYTHON_TAG):
        place: int | None = len(_PYTHON_TAG)
        before = ""
    else:
        place = _opening(text)
        if place is None and (tag := text.find(_PYTHON_TAG)) >= 0:
            place = tag + len(_PYTHON_TAG)
        before = text[:place].strip()
    return Found(prose=text) if place is None else _read_separated(text, place, before)


def _read_separated(text: str, place: int, before: str) -> Found:
    attempts: list[ToolCall | ParseProblem] = []
    while True:
        decoded = decode_value(text, place, _SEPARATOR)
        end = skip_space(text, decoded.end)
        if not decoded.is_read:
            # Where the next call would begin cannot be told.
            return sorted_out([*attempts, decoded.fault or _no_object()])
        has_next = text.startswith(";", end) and skip_space(text, end + 1) < len(text)
        if before or (end < len(text) and not has_next):
            return _with_text(text, before, end)
        attempts.append(decoded.fault or as_call(decoded.value, arguments_keys=("parameters", "arguments")))
        if not has_next:
            return sorted_out(attempts)
        place = end + 1


def read_json(text: str) -> Found:
    """The calls of a reply that is one call or an array of calls."""
    return _read_whole(text, lambda item: as_call(item, name_keys=_NAME_KEYS))


def read_mcp(text: str) -> Found:
    """The calls of a reply that is a request or a batch of requests."""
    return _read_whole(text, _requested_call)


def _read_whole(text: str, read_item: Callable[[object], ToolCall | ParseProblem]) -> Found:
    place = _opening(text)
    if place is None:
        return Found(prose=text)
    decoded = decode_value(text, place)
    if not decoded.is_read:
        return Found(problems=(decoded.fault or _no_object(),))
    before, end = text[:place].strip(), skip_space(text, decoded.end)
    if before or end < len(text):
        return _with_text(text, before, end)
    if decoded.fault:
        return Found(problems=(decoded.fault,))
    items = decoded.value if isinstance(decoded.value, list) else [decoded.value]
    return sorted_out(read_item(item) for item in items)


def _requested_call(item: object) -> ToolCall | ParseProblem:
    if not isinstance(item, dict):
        return not_a_call(f"a request is an object, not {json_type(item)}")
    if set(item) != {"jsonrpc", "id", "method", "params"}:
        return not_a_call("a request has the keys jsonrpc, id, method and params")
    if item["jsonrpc"] != "2.0" or item["method"] != "tools/call":
        return not_a_call('a request has "jsonrpc": "2.0" and "method": "tools/call"')
    if isinstance(item["id"], bool) or not isinstance(item["id"], (str, int)):
        return not_a_call("the id of a request is a string or an integer")
    params = item["params"]
    if not isinstance(params, dict) or not {"name"} <= set(params) <= {"name", "arguments", "_meta"}:
        return not_a_call("the params of a request are an object with name and arguments")
    return named_call(params["name"], params.get("arguments", {}), id=str(item["id"]))


def _opening(text: str) -> int | None:
    """Where the first attempt at a call begins; None if there is none."""
    if text.startswith(("{", "[")):
        decoded = decode_value(text, 0)
        if not decoded.is_read:
            return 0 if _BROKEN_OPENING.match(text) or _CALL_KEY.search(text) else None
        if _tries_to_call(decoded.value):
            return 0
    found = _OPENING_IN_TEXT.search(text)
    return found.start() if found and _CALL_KEY.search(text, found.start()) else None


def _tries_to_call(value: object) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and _is_like_a_call(item) for item in items)


def _is_like_a_call(item: dict[str, object]) -> bool:
    if not _CALL_KEYS.isdisjoint(item):
        return True
    names = [key for key in _NAME_KEYS if isinstance(item.get(key), str)]
    return bool(names) and all(isinstance(value, dict) for key, value in item.items() if key not in names)


def _with_text(text: str, before: str, end: int) -> Found:
    if text[:1] in ("'", '"'):
        return Found(problems=(_no_object(),))
    after = text[end:]
    return Found(problems=(text_beside(before, after),), prose=f"{before} {after}")


def _no_object() -> ParseProblem:
    return problem("not_json", "a call is an object, and the brace that opens it is missing")
