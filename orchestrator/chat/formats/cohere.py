"""Calls of Cohere's Command R7B, Command A and later: one JSON array between tokens.

    <|START_THINKING|>thoughts<|END_THINKING|><|START_ACTION|>[
        {"tool_call_id": "0", "tool_name": "...", "parameters": {...}}
    ]<|END_ACTION|>

The id may be absent. Every opening token outside the strings of a call is an attempt, and every item of an array is
one. An answer stands between `<|START_RESPONSE|>` and `<|END_RESPONSE|>`, which are no prose. vLLM reads these calls
only with the package `cohere-melody`, and not by a parser of its own.
"""

import re
from typing import Any

from orchestrator.chat.formats.between_tags import array_of, value_reader
from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    Attempt,
    Found,
    ParseProblem,
    ReplyFormat,
    Schemas,
    as_call,
    not_a_call,
)

_OPEN_CALLS, _CLOSE_CALLS = "<|START_ACTION|>", "<|END_ACTION|>"
_AROUND_ANSWERS = re.compile(r"<\|(?:START|END)_(?:RESPONSE|TEXT)\|>")


def _call(item: Any) -> Attempt:
    number = item.pop("tool_call_id", None) if isinstance(item, dict) else None
    if number is not None and not isinstance(number, str):
        return not_a_call("the id of a call is a string")
    call = as_call(item, name_keys=("tool_name",), arguments_keys=("parameters",))
    return call if isinstance(call, ParseProblem) else call.model_copy(update={"id": number})


_read_calls = value_reader(_OPEN_CALLS, _CLOSE_CALLS, array_of(_call))


def _read(text: str, schemas: Schemas) -> Found:
    found = _read_calls(text, schemas)
    return found._replace(prose=_AROUND_ANSWERS.sub("", found.prose))


COHERE = ReplyFormat(
    name="cohere",
    is_shown_in=lambda template: _OPEN_CALLS in template,
    read=_read,
    mark=_OPEN_CALLS,
    closing_tag=_CLOSE_CALLS,
    thoughts=(("<|START_THINKING|>", "<|END_THINKING|>"), *THINK_TAGS),
)
