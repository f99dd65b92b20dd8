"""Values that a notation writes as text without their types, such as `<parameter=days>3</parameter>`.

They are read by the JSON Schema of the tool's parameters, and as text only where no other type fits: `3` is a number
where the schema has `"type": ["integer", "string"]`, and text where it names no type. A text that is of none of the
types is a problem. vLLM's parsers read them in the same way, but turn on guessing where this module refuses.

Other values than texts are strict JSON. Only the constants may also be spelled as Python prints them (`True`, `False`,
`None`), because the chat templates of some families write them so; `None` stays text where text is allowed.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from orchestrator.chat.formats.reply import Attempt, ParseProblem, Schemas, clip, json_type, named_call, problem
from orchestrator.core.records import JsonObject
from orchestrator.notation.strict_json import StrictJsonError, first_fault, parse

_TEXT = "string"
_PRINTED = {"True": True, "False": False, "None": None}
_BRANCHES = ("anyOf", "oneOf", "allOf")
_MAX_SCHEMAS = 256
"""About so many schemas are looked at for the types of one value; a reference may lead in a circle."""


class TypedValue(NamedTuple):
    """The value that a text stands for, or what is wrong with it."""

    value: Any = None
    fault: ParseProblem | None = None


def typed_call(name: str, texts: Iterable[tuple[str, str]], schemas: Schemas) -> Attempt:
    """The call of a name and pairs of parameter and text, each text read by the schema of its parameter.

    The texts of a tool that is not offered stay texts.
    """
    arguments: JsonObject = {}
    for parameter, text in texts:
        if parameter in arguments:
            return problem("not_a_call_object", f"the argument {clip(parameter)} is given twice")
        typed = typed_argument(name, parameter, text, schemas)
        if typed.fault:
            return typed.fault
        arguments[parameter] = typed.value
    if fault := first_fault([name, arguments]):
        return problem("not_strict_json", fault.detail)
    return named_call(name, arguments)


def typed_argument(tool: str, parameter: str, text: str, schemas: Schemas) -> TypedValue:
    """The value of a parameter of an offered tool; the text itself where its schema leaves the type open."""
    root = schemas.get(tool, {})
    return typed_text(text, types_of(property_schema(root, parameter), root), f"{clip(parameter)} of {clip(tool)}")


def property_schema(schema: JsonObject, name: str) -> Any:
    """What an object's schema says of one of its properties; None if nothing."""
    properties = schema.get("properties")
    known = properties.get(name) if isinstance(properties, dict) else None
    return schema.get("additionalProperties") if known is None else known


def typed_text(text: str, types: frozenset[str], what: str) -> TypedValue:
    """The value of a text as one of these types; the text itself if there are none. Faults say `what` it is."""
    if types <= {_TEXT}:
        return TypedValue(text)
    found = _read(text, types)
    if found.fault is None:
        return found
    if _TEXT in types:
        return TypedValue(text)
    detail = f"{what} is of type {' or '.join(sorted(types))}, and {found.fault.detail}"
    return TypedValue(fault=problem("not_schema_type", detail))


def _read(text: str, types: frozenset[str]) -> TypedValue:
    """The value of a text as one of these types, other than as text."""
    may_be_text = _TEXT in types
    written = text.strip()
    value: Any
    if written in _PRINTED and not (written == "None" and may_be_text):
        value = _PRINTED[written]
    else:
        try:
            value = parse(text)
        except StrictJsonError as error:
            return TypedValue(fault=problem("not_schema_type", f"{clip(text)} is {error.fault.detail}"))
    named = "array" if isinstance(value, list) else _type_of(value)
    fits = {named} | ({"number"} if named == "integer" else set())
    if isinstance(value, float) and value.is_integer() and not may_be_text:
        fits.add("integer")  # as JSON Schema has it
    if fits.isdisjoint(types):
        return TypedValue(fault=problem("not_schema_type", f"{clip(text)} is {json_type(value)}"))
    return TypedValue(value)


def _type_of(value: Any) -> str:
    """The narrowest JSON Schema type of a JSON value."""
    names = {bool: "boolean", int: "integer", float: "number", str: _TEXT, list: "array", dict: "object"}
    return names.get(type(value), "null")


def types_of(schema: Any, root: JsonObject) -> frozenset[str]:
    """The types that a schema inside a tool's own, `root`, allows as far as it names any; empty if it is open."""
    return _types_of(schema, root, _MAX_SCHEMAS)


def schema_for(kind: str, schema: Any, root: JsonObject, budget: int = _MAX_SCHEMAS) -> JsonObject:
    """The schema, or the one behind its reference or in its branches, that is of a type; empty if none is."""
    if not isinstance(schema, dict) or budget <= 0 or kind not in _types_of(schema, root, budget):
        return {}
    if not schema.get("type"):
        branches = [branch for key in _BRANCHES for branch in schema.get(key) or ()]
        referred = [_referred(schema["$ref"], root)] if isinstance(schema.get("$ref"), str) else []
        found = (schema_for(kind, part, root, budget // 2) for part in (*referred, *branches))
        return next(filter(None, found), {})
    return schema


def _types_of(schema: Any, root: JsonObject, budget: int) -> frozenset[str]:
    """The types that a schema names by itself, by its constants, behind a reference or in branches; empty if open."""
    if not isinstance(schema, dict) or budget <= 0:
        return frozenset()
    if named := schema.get("type"):
        listed = named if isinstance(named, list) else [named]
        return frozenset(name for name in listed if isinstance(name, str))
    constants = [schema["const"]] if "const" in schema else schema.get("enum")
    if constants and isinstance(constants, list):
        return frozenset(map(_type_of, constants))
    if isinstance(schema.get("$ref"), str):
        return _types_of(_referred(schema["$ref"], root), root, budget - 1)
    for key in _BRANCHES:
        branches = schema.get(key)
        if branches and isinstance(branches, list):
            every = [_types_of(branch, root, budget // len(branches)) for branch in branches]
            is_open = key != "allOf" and not all(every)
            return frozenset().union(*every, {_TEXT} if is_open else ())
    return frozenset()


def _referred(reference: str, root: JsonObject) -> Any:
    """What a reference inside the tool's own schema leads to; None if nothing."""
    place: Any = root if reference.startswith("#") else None
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        place = place.get(step) if isinstance(place, dict) else None
    return place
