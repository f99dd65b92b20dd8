"""Calls of Llama 3 and 4: JSON objects that are the whole reply, several with `;` between them.

    {"name": "...", "parameters": {...}}; {"name": "...", "parameters": {...}}

The reply may begin with `<|python_tag|>`. `arguments` is taken for `parameters`, as by vLLM's parser. The mark is
always an attempt at a call; the module `json` says what else is one.
"""

import re

from orchestrator.chat.formats.json import NO_OBJECT, call_in_template, opening, with_text
from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    as_call,
    decode_value,
    marks_calls,
    sort_out,
)
from orchestrator.notation.strict_json import skip_space

_PYTHON_TAG = "<|python_tag|>"
_SEPARATOR = re.compile(";")
_TURN_IN_TEMPLATE = re.compile(r"<\|(?:start_header_id|header_start)\|>")


def _is_shown_in(chat_template: str) -> bool:
    """Whether the template has the headers of Llama 3 or 4 and shows an object with `name`, then `parameters`."""
    shows = all(form.search(chat_template) for form in (_TURN_IN_TEMPLATE, call_in_template("parameters")))
    return shows and not marks_calls(chat_template)


def _read(text: str, _schemas: Schemas) -> Found:
    if text.startswith(_PYTHON_TAG):
        return _read_separated(text, len(_PYTHON_TAG), "")
    place = opening(text)
    if place is None and (tag := text.find(_PYTHON_TAG)) >= 0:
        place = tag + len(_PYTHON_TAG)
    return Found(prose=text) if place is None else _read_separated(text, place, text[:place].strip())


def _read_separated(text: str, place: int, before: str) -> Found:
    attempts: list[Attempt] = []
    while True:
        decoded = decode_value(text, place, _SEPARATOR)
        end = skip_space(text, decoded.end)
        if not decoded.is_read:
            # Where the next call would begin is not known.
            return sort_out([*attempts, decoded.fault or NO_OBJECT])
        has_next = text.startswith(";", end) and skip_space(text, end + 1) < len(text)
        if before or (end < len(text) and not has_next):
            return with_text(text, before, end)
        attempts.append(decoded.fault or as_call(decoded.value, arguments_keys=("parameters", "arguments")))
        if not has_next:
            return sort_out(attempts)
        place = end + 1


LLAMA_JSON = ReplyFormat(
    name="llama_json",
    is_shown_in=_is_shown_in,
    read=_read,
    mark=_PYTHON_TAG,
    beginnings=("{",),
    precedence=3,
    vllm_parser="llama3_json",
)
