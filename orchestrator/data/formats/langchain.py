"""Messages of LangChain, as `dumpd`, `messages_to_dict` and `model_dump` write them.

The kind of a message is in its `type` (human, ai, system, tool), its fields in the message itself, in `data` or in
`kwargs`. Source: the serialisation of langchain-core.
"""

from typing import Any, NamedTuple

from orchestrator.core.records import JsonObject
from orchestrator.data.formats.common import COMMON_FIELDS, TOOL_LISTS, Draft, Format, short
from orchestrator.data.formats.messages import CALL_PARTS, read_messages
from orchestrator.data.formats.turn_lists import peeked, turns_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected

ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}
"""Roles by the type of a message, in lower case and without the endings of its class."""


class _Dumped(NamedTuple):
    """A message's type, as in `ROLES`, and its fields."""

    kind: str
    fields: JsonObject


def read_langchain(row: JsonObject) -> Draft:
    """The conversation of a row of LangChain messages; messages of OpenAI's form may stand between them.

    Calls are `tool_calls`, else those of `additional_kwargs`; a provider's own blocks for the same calls are left out.
    A message with calls that LangChain could not read is refused.
    """
    return read_messages(as_messages(row))


def as_messages(row: JsonObject) -> JsonObject:
    """The same row in the format `messages`."""
    turns = [_turn(turn, f"turn {number}") for number, turn in enumerate(turns_of(row), start=1)]
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": [*system, *turns]} | {key: row[key] for key in TOOL_LISTS if key in row}


def _dumped(turn: Any) -> _Dumped | None:
    """What a dumped message holds; None for any other turn."""
    if not isinstance(turn, dict):
        return None
    kind, fields = turn.get("type"), turn
    if isinstance(turn.get("kwargs"), dict) and "lc" in turn:
        fields = turn["kwargs"]
        path = turn.get("id")
        kind = fields.get("type") or (path[-1] if isinstance(path, list) and path else None)
    elif isinstance(turn.get("data"), dict):
        fields = turn["data"]
    elif turn.get("role") is not None or turn.get("from") is not None:
        return None
    word = str(kind).removesuffix("Chunk").removesuffix("Message").lower()
    if word == "chat":
        word = str(fields.get("role")).lower()
    return _Dumped(word, fields) if word in ROLES else None


def _turn(turn: Any, where: str) -> Any:
    found = _dumped(turn)
    if found is None:
        return turn
    role, fields = ROLES[found.kind], found.fields
    if role != "assistant":
        return {"role": role, **{key: fields.get(key) for key in ("content", "tool_call_id", "name")}}
    broken = fields.get("invalid_tool_calls")
    if broken:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where} has calls that LangChain could not read: {short(broken)}")
    extra = fields.get("additional_kwargs")
    extra = extra if isinstance(extra, dict) else {}
    calls = fields.get("tool_calls") or extra.get("tool_calls")
    return {
        "role": role,
        "content": _content(fields.get("content"), has_calls=bool(calls)),
        "tool_calls": calls,
        "function_call": None if calls else extra.get("function_call"),
        "reasoning_content": extra.get("reasoning_content"),
        "refusal": extra.get("refusal"),
    }


def _content(content: Any, *, has_calls: bool) -> Any:
    if not has_calls or not isinstance(content, list):
        return content
    return [part for part in content if not (isinstance(part, dict) and part.get("type") in CALL_PARTS)]


def _recognised(row: JsonObject) -> str | None:
    dumped = any(_dumped(turn) for key in TURN_LISTS for turn in peeked(row.get(key)))
    return "the turns are messages of LangChain" if dumped else None


FORMAT = Format(
    read_langchain,
    COMMON_FIELDS | {*TURN_LISTS},
    reads_system=True,
    recognise=_recognised,
    precedence=-1,
)
