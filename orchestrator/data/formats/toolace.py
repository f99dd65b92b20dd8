"""ToolACE: tools as a JSON list inside the `system` text, calls like Python in `conversations` of `from` and `value`.

The list of tools is taken out of the text, and with it the set's sentences on how to use it, because a
model's chat template says that in its own way and asks for another form of calls. Every other sentence, such as the
date of the conversation, stays as the system message.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.core.records import JsonObject, Message, Role, ToolCall, ToolSpec
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    Draft,
    Format,
    read_content,
    read_role,
    short,
    text_field,
)
from orchestrator.data.formats.loose_schema import OfferedTools, declared_call, offered_tools, read_tools, words_only
from orchestrator.data.formats.turn_lists import learned_of, turns_of
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.pythonic import PythonicError, opens_like_calls, parse_calls
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely, parse

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "tool": "tool",
}

_LIST_OPENING = re.compile(r"\[\s*+\{")
_MAX_OPENINGS = 16
"""So many places where a list of tools could begin are tried; each costs up to the length of the text."""
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s++|\n[ \t]*+\n\s*+")
_INTRODUCTION = re.compile(r"list of functions in json", re.IGNORECASE)
_BOILERPLATE = re.compile(
    r"composing functions|set of possible functions|function/tool calls|none of the functions? can be used|"
    r"lacks the parameters|only return the function call|list of functions in json|"
    r"decide to (?:return|invoke)|\[func|other text",
    re.IGNORECASE,
)


def read_toolace(row: JsonObject) -> Draft:
    """The conversation of a ToolACE row. The row's `system` is in the draft's messages as far as it is kept.

    A turn of the assistant that begins like a list of calls must be one; names are those of the offered tools, which
    may hold brackets and commas of their own (`Number (short) Lookup`). A tool turn is a JSON list with a result for
    each call, by name and in any order, or the one result of the one call.
    """
    turns, given = turns_of(row), row.get("system")
    if not given and turns and isinstance(turns[0], dict) and turns[0].get("from") == "system":
        given = turns[0].get("value")
    if given is not None and not isinstance(given, str):
        raise RowRejected(Reason.MALFORMED_FIELD, f"the system text is {short(given)}, not text")
    listed, words = _read_system(given or "")
    offered = offered_tools(_tools(row, listed))
    messages = [Message(role="system", content=words)] if words else []
    first = 0 if row.get("system") or not given else 1
    for number, turn in enumerate(turns[first:], start=first + 1):
        messages += _read_turn(turn, messages, offered, f"turn {number}")
    return Draft(messages=messages, tools=offered.specs, original_names=offered.original_names)


def _tools(row: JsonObject, listed: Any) -> tuple[ToolSpec, ...]:
    """The tools of the system text, or those of the row's own field, which must agree if there are both."""
    in_row = read_tools(row)
    if listed is None:
        return in_row
    in_text = read_tools({"tools": listed})
    if in_row and in_row != in_text:
        raise RowRejected(Reason.INVALID_TOOL, "`tools` and the list of tools in `system` differ")
    return in_text


def _read_system(text: str) -> tuple[Any, str]:
    """The tools in the system text, and what it says beside them."""
    span = _tool_list_span(text)
    if span is None and _INTRODUCTION.search(text) is None:
        return None, text.strip()
    start, end = span or (len(text), len(text))
    kept = [said for part in (text[:start], text[end:]) for said in _sentences(part) if _is_kept(said)]
    what = "the list of tools in `system` is"
    tools = parse_or_reject(text[start:end], Reason.TOOLS_NOT_JSON, what) if span else None
    return tools, "".join(kept).strip()


def _tool_list_span(text: str) -> tuple[int, int] | None:
    """Where the list of tools begins and ends; None for a text that has none."""
    decoder = json.JSONDecoder()
    broken = None
    for number, opening in enumerate(_LIST_OPENING.finditer(text)):
        if number == _MAX_OPENINGS:
            break
        try:
            value, end = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError) as error:
            broken = broken or error
            continue
        if all(isinstance(tool, dict) and ("name" in tool or "function" in tool) for tool in value):
            return opening.start(), end
    if broken is not None:
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"`system` holds a list that is not JSON: {str(broken)[:120]}")
    return None


def _sentences(text: str) -> Iterator[str]:
    """The sentences of a text with the space after them: together they are the text."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        yield text[start : end.end()]
        start = end.end()
    yield text[start:]


def _is_kept(sentence: str) -> bool:
    words = " ".join(sentence.split())
    return re.search(r"\w", words) is not None and _BOILERPLATE.search(words) is None


def _read_turn(turn: Any, before: Sequence[Message], offered: OfferedTools, where: str) -> list[Message]:
    role = read_role(text_field(turn, "from", where), ROLES, tuple(ROLES), where)
    value = turn.get("value")
    if role == "tool":
        return _results(value, before, offered, where)
    content = read_content(value, role, where)
    if role != "assistant":
        return [Message(role=role, content=content)]
    learned = learned_of(turn, where)
    if opens_like_calls(content, offered.legal_names):
        return [Message(role=role, tool_calls=_calls(content, offered, where), learned=learned)]
    return [Message(role=role, content=words_only(content, offered, where), learned=learned)]


def _calls(text: str, offered: OfferedTools, where: str) -> tuple[ToolCall, ...]:
    try:
        calls = parse_calls(text, offered.parameter_names)
    except PythonicError as error:
        raise RowRejected(Reason.CALL_NOT_PYTHONIC, f"{where}: {error}") from None
    return tuple(declared_call({"name": name, "arguments": given}, offered, where) for name, given in calls)


def _results(value: Any, before: Sequence[Message], offered: OfferedTools, where: str) -> list[Message]:
    calls = before[-1].tool_calls if before else ()
    if not calls:
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, f"{where} is a tool's result, but nothing was called")
    given = _parsed(value)
    results = given if isinstance(given, list) else [given]
    if len(results) != len(calls):
        if len(calls) == 1:
            return [_result(calls[0], value)]
        reason = Reason.TOOL_RESULT_WITHOUT_CALL if len(results) > len(calls) else Reason.CALL_WITHOUT_RESULT
        raise RowRejected(reason, f"{where} has {len(results)} results for {len(calls)} calls")
    names = [result.get("name") if isinstance(result, dict) else None for result in results]
    if not all(isinstance(name, str) and name in offered.legal_names for name in names):
        return [_result(call, result) for call, result in zip(calls, results, strict=True)]
    waiting: dict[str, list[Any]] = {}
    for name, result in zip(names, results, strict=True):
        waiting.setdefault(offered.legal_names[str(name)], []).append(result)
    return [_result(call, _taken(waiting, call, where)) for call in calls]


def _parsed(value: Any) -> Any:
    try:
        return parse(value) if isinstance(value, str) else value
    except StrictJsonError:
        return value  # a tool may answer with any text


def _taken(waiting: dict[str, list[Any]], call: ToolCall, where: str) -> Any:
    """The first of the results that wait for their calls, by name, which answers this call."""
    if not waiting.get(call.function.name):
        detail = f"{where} has no result of {short(call.function.name)}, but one of a tool that was not called"
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, detail)
    return waiting[call.function.name].pop(0)


def _result(call: ToolCall, result: Any) -> Message:
    if isinstance(result, dict) and result.keys() == {"name", "results"}:
        result = result["results"]  # the message itself says whose result it is
    content = result if isinstance(result, str) else dump_loosely(result)
    return Message(role="tool", content=content, name=call.function.name)


FORMAT = Format(read_toolace, COMMON_FIELDS | {"conversations"}, reads_system=True)
