"""Pairs `{"tool": name, "arguments": {...}}` with the text that asks for them.

The pair stands in the row itself, or as an object, a list or their JSON text in `output` or another reply field; the
text is that of raw fields (see `instruction`). A pair whose tool is null, or a reply in words, is an answer without a
call. `tools` may be absent only from such rows: a call is checked against the schema of its tool, and a schema made
up from the call itself would agree with anything and would show the model the answer.
"""

from typing import Any

from orchestrator.core.records import JsonObject, Message, ToolCall
from orchestrator.data.formats.common import COMMON_FIELDS, Draft, Format, read_content, short
from orchestrator.data.formats.instruction import MATERIALS, REPLIES, REQUESTS, asked, replied
from orchestrator.data.formats.loose_schema import OfferedTools, offered_call, offered_tools, read_tools, words_only
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject


def read_tool_pairs(row: JsonObject) -> Draft:
    """The request of a row and the calls, or the words, that answer it. A call without `tools` is an UNKNOWN_TOOL."""
    offered = offered_tools(read_tools(row))
    given = _pair(row) if row.get("tool") is not None else _parsed(_reply(row))
    reply = _read_reply(given, offered)
    messages = [Message(role="user", content=asked(row)), reply]
    return Draft(messages=messages, tools=offered.specs, original_names=offered.original_names)


def _pair(row: JsonObject) -> JsonObject:
    other = next((name for name in REPLIES if row.get(name)), None)
    if other is not None:
        raise RowRejected(Reason.MALFORMED_FIELD, f"`tool` and `{other}` both hold something; which is the reply?")
    return row


def _reply(row: JsonObject) -> Any:
    if "tool" in row and not any(row.get(name) for name in REPLIES):
        raise RowRejected(Reason.NO_ANSWER, "`tool` is null and the row gives no reply in words")
    return replied(row)


def _parsed(reply: Any) -> Any:
    if not isinstance(reply, str) or reply.lstrip()[:1] not in ("{", "["):
        return reply
    return parse_or_reject(reply, Reason.CALL_NOT_JSON, "the reply begins like JSON and is")


def _read_reply(given: Any, offered: OfferedTools) -> Message:
    if isinstance(given, dict) and given.get("tool") is None:
        given = _words_instead(given)
    if isinstance(given, str):
        content = read_content(given, "assistant", "the reply")
        return Message(role="assistant", content=words_only(content, offered, "the reply"))
    pairs = given if isinstance(given, list) else [given]
    calls = (_call(pair, offered, f"call {number}") for number, pair in enumerate(pairs, start=1))
    return Message(role="assistant", tool_calls=tuple(calls))


def _words_instead(pair: JsonObject) -> Any:
    """What a pair without a tool says in words."""
    words = [pair[name] for name in REPLIES if pair.get(name)]
    if "tool" not in pair or len(words) > 1 or not all(isinstance(text, str) for text in words):
        raise RowRejected(Reason.MALFORMED_FIELD, f"the reply is {short(pair)}, not a pair of tool and arguments")
    if not words:
        raise RowRejected(Reason.NO_ANSWER, "`tool` is null and the pair gives no reply in words")
    return words[0]


def _call(pair: Any, offered: OfferedTools, where: str) -> ToolCall:
    if not isinstance(pair, dict) or not isinstance(pair.get("tool"), str):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is {short(pair)}, not a pair of tool and arguments")
    if not offered.specs:
        calls = f"{where}: the row calls {short(pair['tool'])} and offers no tools"
        detail = f"{calls}; give the row a `tools` list, or name a file of tools in data.sources[].tools"
        raise RowRejected(Reason.UNKNOWN_TOOL, detail)
    return offered_call({"name": pair["tool"], "arguments": pair.get("arguments")}, offered, where)


def _recognised(row: JsonObject) -> str | None:
    has = {key for key, value in row.items() if value is not None}
    if {"tool", "arguments"} <= has:
        return "the row has `tool` and `arguments`"
    reply = next((key for key in REPLIES if _is_pair(row.get(key))), None)
    if reply is not None:
        return f"`{reply}` is a pair of tool and arguments"
    return "the row has `tool`" if "tool" in row and has & {*REQUESTS, *MATERIALS} and has & {*REPLIES} else None


def _is_pair(value: Any) -> bool:
    if isinstance(value, str):
        return value.lstrip()[:1] in ("{", "[") and '"tool"' in value and '"arguments"' in value
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(item, dict) and "tool" in item for item in values)


FORMAT = Format(
    read_tool_pairs,
    COMMON_FIELDS | {*REQUESTS, *MATERIALS, *REPLIES, "tool", "arguments"},
    hint=("tool", "arguments", "input"),
    recognise=_recognised,
    precedence=6,
)
