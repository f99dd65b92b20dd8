"""Calls without a mark: one JSON object that is the whole reply, or an array of them, as plain JSON prompts ask for.

    [{"name": "...", "arguments": {...}}, {"tool": "...", "arguments": {...}}]

`llama_json` and `mcp` are also JSON that is the whole reply. What is an attempt at a call in the three of them?

vLLM's parser for the third reads arrays whose items have `name` and `arguments`, and those in a fence, too.

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

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    as_call,
    decode_value,
    marks_calls,
    problem,
    sort_out,
    text_beside,
)
from orchestrator.notation.strict_json import skip_space

_CALL_KEYS = frozenset({"arguments", "parameters", "params", "jsonrpc", "tool_calls", "function_call"})
_NAME_KEYS = ("name", "tool")
_FIRST_KEYS = "name|tool|function|jsonrpc|method"
_CALL_KEY = re.compile(rf"([\"'])(?:{'|'.join(sorted(_CALL_KEYS))})\\?\1")
_BROKEN_OPENING = re.compile(rf"[\[{{\s]++[\"']?+(?:{_FIRST_KEYS})\b[\"']?+\s*+:")
_OPENING_IN_TEXT = re.compile(rf"(?:\{{\s*+|\A)([\"'])(?:{_FIRST_KEYS}|id|type|{'|'.join(sorted(_CALL_KEYS))})\1\s*+:")


NO_OBJECT = problem("not_json", "a call is an object, and the brace that opens it is missing")


def call_in_template(arguments_key: str) -> re.Pattern[str]:
    """Finds an object with `name`, then `arguments_key`, in a chat template."""
    return re.compile(rf"\{{\s*\\?[\"']name\\?[\"']\s*:[\s\S]{{0,200}}?\\?[\"']{arguments_key}\\?[\"']\s*:")


def _is_shown_in(chat_template: str) -> bool:
    """Whether the template shows an object with `name`, then `arguments`, that stands in no tag.

    White space, its escapes and the bracket of an array may stand between the tag and the object.
    """
    starts = [call.start() for call in call_in_template("arguments").finditer(chat_template)]
    befores = (chat_template[max(0, start - 40) : start].replace("\\n", "").rstrip(" \t\n[") for start in starts)
    return not marks_calls(chat_template) and not all(before.endswith((">", "]")) for before in befores)


def read_whole(text: str, read_item: Callable[[object], Attempt]) -> Found:
    """The calls of a reply that is one JSON value or an array of them, each read by `read_item`."""
    place = opening(text)
    if place is None:
        return Found(prose=text)
    decoded = decode_value(text, place)
    if not decoded.is_read:
        return Found(problems=(decoded.fault or NO_OBJECT,))
    before, end = text[:place].strip(), skip_space(text, decoded.end)
    if before or end < len(text):
        return with_text(text, before, end)
    if decoded.fault:
        return Found(problems=(decoded.fault,))
    items = decoded.value if isinstance(decoded.value, list) else [decoded.value]
    return sort_out(read_item(item) for item in items)


def opening(text: str) -> int | None:
    """Where the first attempt at a call begins; None if there is none."""
    if text.startswith(("{", "[")):
        decoded = decode_value(text, 0)
        if not decoded.is_read:
            return 0 if _BROKEN_OPENING.match(text) or _CALL_KEY.search(text) else None
        items = decoded.value if isinstance(decoded.value, list) else [decoded.value]
        if any(isinstance(item, dict) and _is_like_a_call(item) for item in items):
            return 0
    found = _OPENING_IN_TEXT.search(text)
    return found.start() if found and _CALL_KEY.search(text, found.start()) else None


def _is_like_a_call(item: dict[str, object]) -> bool:
    if not _CALL_KEYS.isdisjoint(item):
        return True
    names = [key for key in _NAME_KEYS if isinstance(item.get(key), str)]
    return bool(names) and all(isinstance(value, dict) for key, value in item.items() if key not in names)


def with_text(text: str, before: str, end: int) -> Found:
    """What is found in a reply that has text before its calls or from `end` on."""
    if text[:1] in ("'", '"'):
        return Found(problems=(NO_OBJECT,))
    after = text[end:]
    return Found(problems=(text_beside(before, after),), prose=f"{before} {after}")


JSON = ReplyFormat(
    name="json",
    is_shown_in=_is_shown_in,
    read=lambda text, _schemas: read_whole(text, lambda item: as_call(item, name_keys=_NAME_KEYS)),
    beginnings=("{", "["),
    precedence=5,
    vllm_parser="xlam",
)
