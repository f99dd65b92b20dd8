"""Raw fields: `instruction` with optional `input` and `output`, and the same under other common names.

The request is `instruction`, `prompt`, `query` or `question`, with `input` or `context` after an empty line, or
`input` alone. The reply is `output`, `completion`, `response`, `answer` or, preferred to another, `chosen`. `history`
holds earlier pairs of request and reply. Prompts and completions that are lists of messages (TRL) are read as one
conversation.
"""

import re
from typing import Any

from orchestrator.core.records import JsonObject, Message
from orchestrator.data.formats.common import COMMON_FIELDS, Draft, Format, read_content, short
from orchestrator.data.formats.loose_schema import OfferedTools, offered_call, offered_tools, read_tools, words_only
from orchestrator.data.formats.messages import read_messages
from orchestrator.data.formats.turn_lists import refuse_to_be_avoided
from orchestrator.data.formats.written_calls import take_written_calls
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject

REQUESTS = ("instruction", "prompt", "query", "question")
MATERIALS = ("input", "context")
REPLIES = ("output", "completion", "response", "answer", "chosen")

_JSON_OPENING = re.compile(r"\s*+(?:\[\s*+)?+\{")


def read_instruction(row: JsonObject) -> Draft:
    """The request and the reply of a row of raw fields.

    Where tools are offered, a reply that is `{"name", "arguments"}` as JSON, or a list of these, becomes calls, as do
    calls in another notation (see `written_calls`).
    """
    refuse_to_be_avoided(row)
    if isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
        return read_messages({"messages": [*row["prompt"], *row["completion"]], "tools": row.get("tools")})
    offered = offered_tools(read_tools(row))
    reply = _reply(replied(row), offered)
    messages = [*_history(row.get("history")), Message(role="user", content=asked(row)), reply]
    return Draft(messages=messages, tools=offered.specs, original_names=offered.original_names)


def asked(row: JsonObject) -> str:
    """The text of the request in a row of raw fields."""
    request, material = _only_text(row, REQUESTS), _only_text(row, MATERIALS)
    if request is None and material is None:
        names = ", ".join((*REQUESTS, *MATERIALS))
        raise RowRejected(Reason.NO_USER_TURN, f"the row asks nothing; none of {names} holds text")
    return "\n\n".join(part for part in (request, material) if part is not None)


def replied(row: JsonObject) -> Any:
    """What the row gives as reply, whatever its type."""
    name = _only_field(row, REPLIES)
    if name is None:
        raise RowRejected(Reason.NO_ANSWER, f"none of {', '.join(REPLIES)} holds a reply")
    return row[name]


def _only_text(row: JsonObject, names: tuple[str, ...]) -> str | None:
    name = _only_field(row, names)
    if name is None:
        return None
    if not isinstance(row[name], str):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{name}` is {short(row[name])}, not text")
    text: str = row[name]
    return text


def _only_field(row: JsonObject, names: tuple[str, ...]) -> str | None:
    held = [name for name in names if row.get(name) is not None and row[name] not in ("", [], {})]
    if len(held) > 1:
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{held[0]}` and `{held[1]}` both hold something; which is meant?")
    return held[0] if held else None


def _reply(given: Any, offered: OfferedTools) -> Message:
    calls = _written_calls(given) if offered.specs else None
    if calls is not None:
        read = (offered_call(call, offered, f"call {number}") for number, call in enumerate(calls, start=1))
        return Message(role="assistant", tool_calls=tuple(read))
    if not isinstance(given, str):
        raise RowRejected(Reason.MALFORMED_FIELD, f"the reply is {short(given)}, not text")
    spoken = take_written_calls(given, offered.specs, "the reply") if offered.specs else None
    if spoken is not None:
        words = read_content(spoken.text, "assistant", "the reply")
        return Message(role="assistant", content=words, tool_calls=spoken.calls)
    content = read_content(given, "assistant", "the reply")
    return Message(role="assistant", content=words_only(content, offered, "the reply"))


def _written_calls(given: Any) -> list[Any] | None:
    """The calls that a reply is; None for a reply in words or in other JSON."""
    if isinstance(given, str):
        if _JSON_OPENING.match(given) is None or '"name"' not in given or '"arguments"' not in given:
            return None
        given = parse_or_reject(given, Reason.CALL_NOT_JSON, "the reply looks like a call and is")
    calls = given if isinstance(given, list) else [given]
    is_calls = bool(calls) and all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls)
    return calls if is_calls else None


def _history(given: Any) -> list[Message]:
    pairs = [] if given is None else given
    is_pairs = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    if not is_pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`history` is {short(given)}, not pairs of request and reply")
    messages = []
    for number, (request, reply) in enumerate(pairs, start=1):
        content = read_content(reply, "assistant", f"reply {number} of `history`")
        messages += [Message(role="user", content=request), Message(role="assistant", content=content)]
    return messages


def _recognised(row: JsonObject) -> str | None:
    asked = next((key for key in (*REQUESTS, *MATERIALS) if row.get(key) is not None), None)
    replied = next((key for key in REPLIES if row.get(key) is not None), None)
    return f"the row has `{asked}` and `{replied}`" if asked and replied else None


FORMAT = Format(
    read_instruction,
    COMMON_FIELDS | {*REQUESTS, *MATERIALS, *REPLIES, "history"},
    hint=("instruction", "output"),
    recognise=_recognised,
    precedence=8,
)
