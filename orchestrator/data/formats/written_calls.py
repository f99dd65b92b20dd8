"""Calls that stand in an assistant's text, in the notation of some family of models.

Read are the formats of replies (`REPLY_FORMATS`), calls as XML (Qwen3-Coder and SWE agents, Anthropic's early prompts,
GLM), and JSON in tags. Values in XML are text: where a tool's schema wants another type, they are read as JSON or
Python.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import schemas_of
from orchestrator.core.records import FunctionCall, JsonObject, ToolCall, ToolSpec
from orchestrator.data.formats.common import Spoken, call_mark, read_calls, take_calls
from orchestrator.data.rejection import OFFERED_NONE, Reason, RowRejected
from orchestrator.notation.pythonic import parse_json_or_literal
from orchestrator.notation.strict_json import StrictJsonError, json_end, skip_space

TAGGED = (
    ("<TOOLCALL>", "</TOOLCALL>"),
    ("<function_call>", "</function_call>"),
    ("<|tool_call|>", "<|/tool_call|>"),
)
"""Tags around a call, or a list of calls, as JSON: of When2Call and Nemotron, of early prompts, of Phi-4."""
RESULT_IN_WORDS = re.compile(r"\s*+(?:OBSERVATION:|EXECUTION RESULT of \[[^\]\n]{0,200}\]:)\s*+")
"""How SWE agents begin a turn of the user that holds what a written call gave."""
_WRAPPERS = re.compile(r"</?(?:tool_call|function_calls)>")


class _Xml(NamedTuple):
    """How one notation opens a call and a parameter, each before a name, and closes them."""

    call: str
    parameter: str
    name_end: str
    closing: str


_NOTATIONS = (
    _Xml("<function=", "<parameter=", ">", "</function>"),
    _Xml('<invoke name="', '<parameter name="', '">', "</invoke>"),
)
_CLOSE_PARAMETER = "</parameter>"
_KEY, _VALUE = ("<arg_key>", "</arg_key>"), ("<arg_value>", "</arg_value>")


def take_written_calls(text: str, tools: Sequence[ToolSpec], where: str) -> Spoken | None:
    """The calls of offered tools in an assistant's text, and what stands around them; None for a text without one.

    Raises:
        RowRejected: UNKNOWN_TOOL for a call as XML of a tool that is not offered; CALL_NOT_JSON for one that is broken.
    """
    schemas = schemas_of(tools)
    for opening, closing in TAGGED:
        if opening in text:
            return take_calls(text, opening, partial(_tagged, closing=closing, where=where))
    notation = next((notation for notation in _NOTATIONS if notation.call in text), None)
    if notation is not None:
        read = partial(_xml_call, notation=notation, schemas=schemas, where=where)
        found = take_calls(text, notation.call, read)
        return Spoken(_WRAPPERS.sub("", found.text).strip(), found.calls)
    return _in_reply_format(text, schemas) if tools and _may_call(text) else None


def _in_reply_format(text: str, schemas: Mapping[str, JsonObject]) -> Spoken | None:
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    for form in REPLY_FORMATS.values():
        reply = form.read(bare, schemas)
        if reply.calls and not reply.problems and all(call.function.name in schemas for call in reply.calls):
            return Spoken(reply.prose.strip(), reply.calls)
    return None


def _may_call(text: str) -> bool:
    bare = text.strip()
    return call_mark(text) is not None or bare.startswith(("{", "[", "```")) or bare.endswith(")")


def _tagged(text: str, start: int, closing: str, where: str) -> tuple[list[ToolCall], int]:
    begin = skip_space(text, start)
    end = json_end(text, begin)
    place = -1 if end is None else skip_space(text, end)
    if place < 0 or not text.startswith(closing, place):
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: a call in tags is not JSON, or has no {closing}")
    return list(read_calls(text[begin:end], where)), place + len(closing)


def opens_xml(text: str, place: int, schemas: Mapping[str, JsonObject]) -> bool:
    """Whether a call as XML begins at a place of a text, GLM's included, whose name stands before its keys."""
    if any(text.startswith(notation.call, place) for notation in _NOTATIONS):
        return True
    end = text.find("<", place)
    return text.startswith(_KEY[0], end) or text[place : max(end, place)].strip() in schemas


def xml_calls(
    text: str, place: int, schemas: Mapping[str, JsonObject], closing: str, where: str
) -> tuple[list[ToolCall], int]:
    """The calls as XML from a place of a text up to the tag that closes them, and the place after it."""
    calls: list[ToolCall] = []
    while not text.startswith(closing, place):
        notation = next((notation for notation in _NOTATIONS if text.startswith(notation.call, place)), None)
        if notation is None and calls:
            raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: there is text after a call, before its {closing}")
        if notation is None:
            return _keyed_call(text, place, schemas, closing, where)
        found, place = _xml_call(text, place + len(notation.call), notation, schemas, where)
        calls += found
        place = skip_space(text, place)
    return calls, place + len(closing)


def _xml_call(
    text: str, start: int, notation: _Xml, schemas: Mapping[str, JsonObject], where: str
) -> tuple[list[ToolCall], int]:
    """The call whose name begins at `start`, and the place after it. A value may hold anything but its own end."""
    name, place = _until(text, start, notation.name_end, where)
    arguments: JsonObject = {}
    schema = _schema(name, schemas, where)
    while not text.startswith(notation.closing, place := skip_space(text, place)):
        if not text.startswith(notation.parameter, place):
            raise _broken(where, f"in the call of {name[:80]!r} a parameter or {notation.closing} is missing")
        key, place = _until(text, place + len(notation.parameter), notation.name_end, where)
        value, place = _until(text, place, _CLOSE_PARAMETER, where)
        arguments[key] = _typed(value, key, schema)
    return [_call(name, arguments)], place + len(notation.closing)


def _keyed_call(
    text: str, start: int, schemas: Mapping[str, JsonObject], closing: str, where: str
) -> tuple[list[ToolCall], int]:
    end = text.find("<", start)
    name, place = text[start : max(end, start)].strip(), end
    arguments: JsonObject = {}
    if not name:
        raise _broken(where, "the call is neither JSON nor XML")
    schema = _schema(name, schemas, where)
    while not text.startswith(closing, place := skip_space(text, place)):
        key = value = ""
        for (opening, ending), is_key in ((_KEY, True), (_VALUE, False)):
            place = skip_space(text, place)
            if not text.startswith(opening, place):
                raise _broken(where, f"in the call of {name[:80]!r} {opening} or {closing} is missing")
            held, place = _until(text, place + len(opening), ending, where)
            key, value = (held, value) if is_key else (key, held)
        arguments[key.strip()] = _typed(value, key.strip(), schema)
    return [_call(name, arguments)], place + len(closing)


def _until(text: str, start: int, ending: str, where: str) -> tuple[str, int]:
    end = text.find(ending, start)
    if end < 0:
        raise _broken(where, f"a call in the text has no {ending}")
    return text[start:end], end + len(ending)


def _schema(name: str, schemas: Mapping[str, JsonObject], where: str) -> JsonObject:
    if name not in schemas:
        offered = f"offered: {', '.join(sorted(schemas))[:200]}" if schemas else OFFERED_NONE
        raise RowRejected(Reason.UNKNOWN_TOOL, f"{where}: {name[:80]!r} is called in the text; {offered}")
    properties = schemas[name].get("properties")
    return properties if isinstance(properties, dict) else {}


def _typed(value: str, key: str, properties: JsonObject) -> Any:
    """A value as its parameter wants it: text, or what the text spells where the parameter is no text."""
    text = value.removeprefix("\n").removesuffix("\n")
    types = _types(properties.get(key))
    if not types or ("string" in types and not ("null" in types and text.strip() == "null")):
        return text
    try:
        return parse_json_or_literal(text.strip())
    except StrictJsonError:
        return text


def _types(schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    given = schema.get("type")
    own = {given} if isinstance(given, str) else {word for word in given or () if isinstance(word, str)}
    return own.union(*(_types(part) for key in ("anyOf", "oneOf") for part in schema.get(key) or ()))


def _call(name: str, arguments: JsonObject) -> ToolCall:
    return ToolCall(function=FunctionCall(name=name, arguments=arguments))


def _broken(where: str, problem: str) -> RowRejected:
    return RowRejected(Reason.CALL_NOT_JSON, f"{where}: {problem}")
