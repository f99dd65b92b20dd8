"""OpenAI's Responses API: a list of items, in which a message, a call, its output and thoughts are each their own.

Items stand in `input` and `output`, as in a logged request with its response, or in one list, as agents keep them.
Source: the API reference of OpenAI.
"""

from collections.abc import Iterator
from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.data.formats.common import COMMON_FIELDS, TOOL_LISTS, Draft, Format, short
from orchestrator.data.formats.messages import read_messages
from orchestrator.data.formats.turn_lists import joined, peeked, turns_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject

ITEM_TYPES = frozenset({"message", "function_call", "function_call_output", "reasoning"})
ITEM_LISTS = ("items", *TURN_LISTS)
BEFORE = "previous_response_id"


def read_responses(row: JsonObject) -> Draft:
    """The conversation in a row's items.

    Words, thoughts and calls of the assistant that follow each other are one reply. Items of tools that the
    API runs itself are refused, as is a row that goes on from a response that it does not hold.
    """
    return read_messages(as_messages(row))


def as_messages(row: JsonObject) -> JsonObject:
    """The same row in the format `messages`."""
    if row.get(BEFORE):
        detail = f"the row goes on from another response (`{BEFORE}`), whose turns it does not hold"
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    instructions = row.get("instructions") or row.get("system")
    system = [{"role": "system", "content": instructions}] if instructions else []
    tools = {key: row[key] for key in TOOL_LISTS if key in row}
    return {"messages": [*system, *_turns(_items(row))], **tools}


def _items(row: JsonObject) -> list[Any]:
    if row.get("input") is not None or row.get("output") is not None:
        return joined(_listed(row.get("input"), "input", "user"), _listed(row.get("output"), "output", "assistant"))
    return _listed(row["items"], "items", "user") if row.get("items") is not None else turns_of(row)


def _listed(given: Any, name: str, speaker: str) -> list[Any]:
    if isinstance(given, str) and given.lstrip().startswith("["):
        given = parse_or_reject(given, Reason.MALFORMED_FIELD, f"`{name}` is")
    if given is None or isinstance(given, str):
        return [{"role": speaker, "content": given}] if given else []
    if not isinstance(given, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{name}` is {short(given)}, not a list of items")
    return given


def _turns(items: list[Any]) -> Iterator[JsonObject]:
    reply: JsonObject | None = None
    for number, item in enumerate(items, start=1):
        said = _said(item, f"item {number}")
        if said["role"] != "assistant":
            yield from [reply] if reply else []
            yield said
            reply = None
        elif reply and not (reply["content"] and said["content"]):
            reply = _with(reply, said)
        else:
            yield from [reply] if reply else []
            reply = said
    if reply:
        yield reply


def _with(reply: JsonObject, said: JsonObject) -> JsonObject:
    thoughts = [turn["reasoning_content"] for turn in (reply, said) if turn.get("reasoning_content")]
    return {
        **reply,
        **said,
        "content": reply["content"] or said["content"],
        "tool_calls": [*reply.get("tool_calls", ()), *said.get("tool_calls", ())],
        "reasoning_content": "\n".join(thoughts) or None,
    }


def _said(item: Any, where: str) -> JsonObject:
    """An item as a turn, or as the part of an assistant's turn that it is."""
    if not isinstance(item, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is {short(item)}, not an object")
    kind = item.get("type") or ("message" if item.get("role") else None)
    if kind == "message":
        turn = {key: value for key, value in item.items() if key not in ("type", "id", "status")}
        return {"content": None, **turn, "role": item.get("role")}
    if kind == "function_call":
        call = {"id": item.get("call_id") or item.get("id")} | {key: item.get(key) for key in ("name", "arguments")}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "content": _output(item.get("output")), "tool_call_id": item.get("call_id")}
    if kind == "reasoning":
        return {"role": "assistant", "content": None, "reasoning_content": _thoughts(item)}
    detail = f"{where} is of type {short(kind)}, which is no message, function call, its output or reasoning"
    raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)


def _output(output: Any) -> Any:
    is_parts = isinstance(output, list) and all(isinstance(part, dict) and "text" in part for part in output)
    return "\n".join(str(part["text"]) for part in output) if is_parts else output


def _thoughts(item: JsonObject) -> str | None:
    parts = [part for key in ("content", "summary") for part in peeked(item.get(key)) if isinstance(part, dict)]
    return "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str)) or None


def _recognised(row: JsonObject) -> str | None:
    for name in ("input", "output"):
        if any(_is_item(item) for item in peeked(row.get(name))):
            return f"`{name}` has items of the Responses API"
    for name in ITEM_LISTS:
        item = next((item for item in peeked(row.get(name)) if _is_item(item)), None)
        if item is not None:
            return f"`{name}` has items of type {item['type']}"
    return None


def _is_item(item: Any) -> bool:
    kind = item.get("type") if isinstance(item, dict) else None
    if not isinstance(kind, str) or kind not in ITEM_TYPES:
        return False
    return kind == "message" or item.get("role") is None


FORMAT = Format(
    read_responses,
    COMMON_FIELDS | {"input", "output", "instructions", BEFORE, *ITEM_LISTS},
    reads_system=True,
    recognise=_recognised,
    precedence=-2,
)
