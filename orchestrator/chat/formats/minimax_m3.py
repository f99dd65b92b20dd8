"""Calls of MiniMax M3: functions whose arguments are elements, in a section, each tag behind a mark of the family.

    prose ]<]minimax[>[<tool_call>
    ]<]minimax[>[<invoke name="get_weather">]<]minimax[>[<city>Oslo]<]minimax[>[</city>]<]minimax[>[</invoke>
    ]<]minimax[>[</tool_call>

An element that holds others is an array, of elements `item`, where the schema says so, and an object elsewhere. The
module `typed` reads the others by the tool's schema; an empty one may be an empty array or object. White space around
a value belongs to it, and elements have only white space beside them. `sections` says what is an attempt.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    Attempt,
    ParseProblem,
    ReplyFormat,
    Schemas,
    clip,
    named_call,
    not_a_call,
    problem,
)
from orchestrator.chat.formats.sections import Body, Sections
from orchestrator.chat.formats.typed import TypedValue, property_schema, schema_for, typed_text, types_of
from orchestrator.core.records import JsonObject
from orchestrator.notation.strict_json import JSON_SPACE, MAX_DEPTH, first_fault

_MARK = "]<]minimax[>["
_SECTION = (f"{_MARK}<tool_call>", f"{_MARK}</tool_call>")
_CALL = (f'{_MARK}<invoke name="', f"{_MARK}</invoke>")
_HEAD = re.compile(r'([^"<>\n]++)">')
_TAG = re.compile(rf"{re.escape(_MARK)}(?:<(/?)([^<>]++)>)?+")
_ITEM = "item"
_ARRAY, _OBJECT = "array", "object"


@dataclass
class _Element:
    """A tag with the text between its opening and its closing one, or with the elements there."""

    name: str
    text: str = ""
    parts: "list[_Element]" = field(default_factory=list)


class _Elements(NamedTuple):
    """The elements of a call and the place after the call; or the fault, and the place that is wrong."""

    found: list[_Element]
    end: int
    fault: ParseProblem | None = None


def _read_body(text: str, start: int, _marks: re.Pattern[str], schemas: Schemas) -> Body:
    head = _HEAD.match(text, start)
    if head is None:
        return Body(not_a_call(f"no name stands in {clip(text[start : start + 200])}"), start, is_closed=False)
    elements = _read_elements(text, head.end())
    if elements.fault:
        return Body(elements.fault, elements.end, is_closed=False)
    return Body(_to_call(head[1], elements.found, schemas), elements.end)


def _read_elements(text: str, place: int) -> _Elements:
    call = _Element("")
    opened = [call]
    while tag := _TAG.search(text, place):
        inner, between = opened[-1], text[place : tag.start()]
        closes, name = tag[1], tag[2] or ""
        if closes and name == inner.name and not inner.parts:
            inner.text = between
        elif between.strip(JSON_SPACE):
            return _Elements([], place, problem("text_inside_tag", f"beside elements stands {clip(between)}"))
        if not closes and name and not name.startswith(("invoke", "tool_call")) and len(opened) <= MAX_DEPTH:
            opened.append(_Element(name))
            inner.parts.append(opened[-1])
        elif closes and inner is call and name == "invoke":
            return _Elements(call.parts, tag.end())
        elif closes and inner is not call and name == inner.name:
            opened.pop()
        else:
            detail = f"where an element of {clip(inner.name)} is due stands {clip(text[tag.start() :], 60)}"
            return _Elements([], tag.start(), problem("text_inside_tag", detail))
        place = tag.end()
    return _Elements([], len(text), problem("unclosed_tag", f"the call is not closed: {clip(text[place:])}"))


def _to_call(name: str, elements: list[_Element], schemas: Schemas) -> Attempt:
    root = schemas.get(name, {})
    arguments = _object_of(elements, root, root, clip(name))
    if arguments.fault:
        return arguments.fault
    fault = first_fault([name, arguments.value])
    return problem("not_strict_json", fault.detail) if fault else named_call(name, arguments.value)


def _object_of(elements: list[_Element], schema: JsonObject, root: JsonObject, what: str) -> TypedValue:
    """The object that has these elements; `what` it is."""
    values: JsonObject = {}
    for element in elements:
        if element.name in values:
            return TypedValue(fault=not_a_call(f"{clip(element.name)} of {what} is given twice"))
        typed = _value_of(element, property_schema(schema, element.name), root, f"{clip(element.name)} of {what}")
        if typed.fault:
            return typed
        values[element.name] = typed.value
    return TypedValue(values)


def _value_of(element: _Element, schema: object, root: JsonObject, what: str) -> TypedValue:
    types = types_of(schema, root)
    if not element.parts:
        is_empty = not element.text.strip() and "string" not in types
        empty: dict[str, object] = {_ARRAY: [], _OBJECT: {}}
        kind = next((kind for kind in empty if kind in types), None)
        return TypedValue(empty[kind]) if is_empty and kind else typed_text(element.text, types, what)
    if _ARRAY in types:
        return _array_of(element.parts, schema_for(_ARRAY, schema, root).get("items"), root, what)
    if types and _OBJECT not in types:
        detail = f"{what} is of type {' or '.join(sorted(types))}, and holds elements"
        return TypedValue(fault=problem("not_schema_type", detail))
    return _object_of(element.parts, schema_for(_OBJECT, schema, root), root, what)


def _array_of(items: list[_Element], schema: object, root: JsonObject, what: str) -> TypedValue:
    values: list[object] = []
    for item in items:
        if item.name != _ITEM:
            return TypedValue(fault=problem("not_schema_type", f"{what} is an array, and holds {clip(item.name)}"))
        typed = _value_of(item, schema, root, f"an item of {what}")
        if typed.fault:
            return typed
        values.append(typed.value)
    return TypedValue(values)


MINIMAX_M3 = ReplyFormat(
    name="minimax_m3",
    is_shown_in=lambda template: _MARK in template and "<invoke name=" in template,
    read=Sections(_SECTION, _CALL, _read_body).read,
    mark=_SECTION[0],
    closing_tag=_SECTION[1],
    other_marks=_CALL,
    thoughts=(("<mm:think>", "</mm:think>"), *THINK_TAGS),
    vllm_parser="minimax_m3",
    reasoning_parser="minimax_m3",
)
