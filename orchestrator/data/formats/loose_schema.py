"""Tools as public data sets describe them, often loosely, with JSON Schema and legal names.

Four looser ways are read, at any depth: parameters without the schema around them (`{"city": {"type": "str"}}`, as in
xLAM), type words of Python, Java and JavaScript (`dict`, `float`, `ArrayList`, as in BFCL and ToolACE), Python type
expressions (`List[int]`, `Optional[float]`, `str, optional`), and `enum` values of a boolean or a number that stand as
text (`"True"`, `"3"`). A type word that is none of these is refused; an empty one says nothing.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from orchestrator.core.records import FunctionSpec, JsonObject, ToolCall, ToolSpec
from orchestrator.core.remember import KEPT, remembered
from orchestrator.data.formats.common import TOOL_LISTS, read_call, short
from orchestrator.data.formats.type_words import JSON_TYPES, LooseType, parse_type, union_of
from orchestrator.data.rejection import OFFERED_NONE, Reason, RowRejected, parse_or_reject, parse_printed_or_reject
from orchestrator.notation.pythonic import first_called
from orchestrator.notation.strict_json import MAX_DEPTH, StrictJsonError, parse

SCHEMA_KEYS = ("parameters", "inputSchema", "input_schema")
"""Where a tool keeps the JSON Schema of its arguments: OpenAI's name, MCP's and Anthropic's."""
MISNAMED_SCHEMAS = ("args", "arguments", "params", "properties", "schema", "input")
"""Keys of tools that look like a schema; a tool with one of them in place of a schema is not one without arguments."""

MAX_TEXT_LEVELS = 3
"""How often a list of tools may be wrapped as JSON text; tools that went through two tables are text in text."""

_SCHEMA_KEYWORDS = frozenset(
    {"items", "additionalProperties", "additionalItems", "contains", "propertyNames", "not", "if", "then", "else"}
)
_SCHEMA_LIST_KEYWORDS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMA_MAP_KEYWORDS = frozenset({"$defs", "definitions", "patternProperties", "dependentSchemas"})
_ANNOTATIONS = frozenset({"title", "description", "examples"})
_OPEN_KEYWORDS = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "allOf", "if", "$ref"}
)
"""Keywords of an object that may allow, or rule on, properties beside those of `properties`."""

_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
MAX_NAME_CHARS = 64
"""Longest name of a function that common clients and servers accept."""


def read_tools(row: JsonObject) -> tuple[ToolSpec, ...]:
    """The tools in the one of a row's `TOOL_LISTS` that holds any: a list of tools, or its JSON text."""
    named = [key for key in TOOL_LISTS if row.get(key) not in (None, "", [])]
    if len(named) > 1:
        raise RowRejected(Reason.INVALID_TOOL, f"the row has both `{named[0]}` and `{named[1]}`")
    given = row[named[0]] if named else []
    for _ in range(MAX_TEXT_LEVELS):
        if isinstance(given, str):
            given = parse_printed_or_reject(given, Reason.TOOLS_NOT_JSON, f"`{named[0]}` is") if given.strip() else []
    tools = [] if given is None else given
    if not isinstance(tools, list):
        raise RowRejected(Reason.INVALID_TOOL, f"`{named[0]}` is {short(tools)}, not a list")
    return _written_tools(json.dumps(tools))


@lru_cache(maxsize=KEPT)
def _written_tools(text: str) -> tuple[ToolSpec, ...]:
    """Tools from the JSON text of their list; most rows of a source offer the same."""
    return tuple(read_tool(tool, f"tool {number}") for number, tool in enumerate(json.loads(text), start=1))


def read_tool(tool: Any, where: str) -> ToolSpec:
    """A tool as an object with a name, or its JSON text, with or without the `function` wrapper.

    The schema stands under one of `SCHEMA_KEYS`, as an object or its JSON text, or is absent for a tool without
    arguments. A list of `required` names beside a schema that has none belongs to it.
    """
    if isinstance(tool, str):
        tool = parse_or_reject(tool, Reason.TOOLS_NOT_JSON, f"{where} is")
    if not isinstance(tool, dict):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} is {short(tool)}, not an object")
    is_custom = tool.get("type") == "custom" and tool.get("input_schema") is not None  # Anthropic's word for a function
    if tool.get("type") not in (None, "function") and not is_custom:
        detail = f"{where} is of type {short(tool['type'])}, not a function; what an API runs itself has no schema"
        raise RowRejected(Reason.INVALID_TOOL, detail)
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowRejected(Reason.INVALID_TOOL, f"{where} has no name")
    description, strict = function.get("description"), function.get("strict")
    if not isinstance(description, str | None):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} ({name[:80]}): the description is not text")
    if not isinstance(strict, bool | None):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} ({name[:80]}): `strict` is neither true nor false")
    parameters = _parameters(function, f"{where} ({name[:80]})")
    return ToolSpec(function=FunctionSpec(name=name, description=description, parameters=parameters, strict=strict))


def _parameters(function: JsonObject, where: str) -> JsonObject | None:
    named = [key for key in SCHEMA_KEYS if function.get(key) is not None]
    if len(named) > 1:
        raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"{where} has both `{named[0]}` and `{named[1]}`")
    if not named:
        misnamed = next((key for key in MISNAMED_SCHEMAS if function.get(key)), None)
        if misnamed:
            raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"{where} has `{misnamed}` and no `parameters`")
        return None
    parameters = function[named[0]]
    if isinstance(parameters, str):
        parameters = parse_or_reject(parameters, Reason.TOOLS_NOT_JSON, f"{where}: the schema is")
    if not isinstance(parameters, dict):
        raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"{where}: the parameters are {short(parameters)}, not an object")
    required = function.get("required")
    if isinstance(required, list) and isinstance(parameters.get("properties"), dict) and not parameters.get("required"):
        return {**parameters, "required": required}
    return parameters


def with_json_schema(tool: ToolSpec, where: str) -> ToolSpec:
    """A tool whose parameters may be described loosely, with JSON Schema in their place."""
    if tool.function.parameters is None:
        return tool
    schema = json_schema(tool.function.parameters, where)
    return tool.model_copy(update={"function": tool.function.model_copy(update={"parameters": schema})})


@remembered
def with_json_schemas(tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    """The tools of a row, each as by `with_json_schema`."""
    numbered = enumerate(tools, start=1)
    return tuple(with_json_schema(tool, f"tool {number} ({tool.function.name[:80]})") for number, tool in numbered)


class OfferedTools(NamedTuple):
    """The tools of a row, and for every name that the row gives them the legal name that they have here."""

    specs: tuple[ToolSpec, ...]
    legal_names: dict[str, str]

    @property
    def original_names(self) -> dict[str, str]:
        """The changed names only, as `Draft.original_names`: legal name to the name in the row."""
        return {legal: name for name, legal in self.legal_names.items() if legal != name}

    @property
    def parameter_names(self) -> dict[str, frozenset[str]]:
        """The names in the row with the parameters that their tools declare."""
        declared = {spec.function.name: _properties(spec.function.arguments_schema) for spec in self.specs}
        return {name: frozenset(declared[legal]) for name, legal in self.legal_names.items()}

    def parameters_of(self, legal_name: str) -> JsonObject:
        """The schema of the arguments of a tool."""
        return next(spec.function.arguments_schema for spec in self.specs if spec.function.name == legal_name)


def offered_tools(specs: Iterable[ToolSpec]) -> OfferedTools:
    """Tools as they stand in a row, with JSON Schema parameters (see `json_schema`) and legal names."""
    given = list(specs)
    names = legal_names(spec.function.name for spec in given)
    tools = []
    for number, spec in enumerate(given, start=1):
        name = spec.function.name
        schemed = with_json_schema(spec, f"tool {number} ({short(name)})")
        tools.append(schemed.model_copy(update={"function": schemed.function.model_copy(update={"name": names[name]})}))
    return OfferedTools(tuple(tools), names)


def offered_call(call: Any, offered: OfferedTools, where: str) -> ToolCall:
    """A call `{"name", "arguments"}` by a tool's name in the row, as a call of the tool's legal name."""
    read = read_call(call, where)
    name = read.function.name
    legal = offered.legal_names.get(name)
    if legal is None:
        names = ", ".join(sorted(offered.legal_names))[:200]
        known = f"offered: {names}" if names else OFFERED_NONE
        raise RowRejected(Reason.UNKNOWN_TOOL, f"{where}: {short(name)} is called; {known}")
    if legal == name:
        return read
    return read.model_copy(update={"function": read.function.model_copy(update={"name": legal})})


def declared_call(call: Any, offered: OfferedTools, where: str) -> ToolCall:
    """`offered_call` where parameters are those of a function, as in xLAM, ToolACE and BFCL: there are no others.

    An argument that the tool does not declare is refused as ARGUMENTS_DO_NOT_FIT_SCHEMA.
    """
    read = offered_call(call, offered, where)
    parameters = offered.parameters_of(read.function.name)
    for name, value in read.function.arguments.items():
        # A null may have been filled in by a table; the schema check takes it out.
        if value is not None and not is_declared(name, parameters):
            raise undeclared(name, parameters, where)
    return read


def words_only(text: str, offered: OfferedTools, where: str) -> str:
    """A reply; CALL_IN_TEXT if it calls a tool as `[name(...)]` or `name(...)`, which would be learned as words."""
    called = first_called(text, offered.legal_names)
    if called is not None:
        raise RowRejected(Reason.CALL_IN_TEXT, f"{where} calls {short(called)} in a text that is no list of calls")
    return text


def is_declared(name: str, parameters: JsonObject) -> bool:
    """Whether a function with these parameters takes an argument of this name."""
    is_open = "properties" not in parameters or not _OPEN_KEYWORDS.isdisjoint(parameters)
    return is_open or name in _properties(parameters)


def undeclared(name: str, parameters: JsonObject, where: str) -> RowRejected:
    """The refusal of an argument that the tool does not declare."""
    names = ", ".join(_properties(parameters))[:200] or "none"
    detail = f"{where}: the tool has no parameter {short(name)}; declared: {names}"
    return RowRejected(Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA, detail)


def _properties(parameters: JsonObject) -> JsonObject:
    properties = parameters.get("properties")
    return properties if isinstance(properties, dict) else {}


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """Each name with the legal name that stands for it; two names never share one, and legal names stay as they are."""
    given = list(dict.fromkeys(names))
    legal = {name: name for name in given if 0 < len(name) <= MAX_NAME_CHARS and _ILLEGAL.search(name) is None}
    taken = set(legal)
    tried = Counter[str]()  # so that a thousand names that look alike do not all count from one
    for name in given:
        if name not in legal:
            base = _ILLEGAL.sub("_", name)[:MAX_NAME_CHARS]
            legal[name] = legal_name(name, taken, first_number=tried[base] + 1)
            tried[base] += 1
            taken.add(legal[name])
    return legal


def legal_name(name: str, taken: Collection[str], first_number: int = 1) -> str:
    """A name of 1 to 64 letters, digits, `_` and `-` that is not taken: others become `_`, collisions get a number."""
    base = _ILLEGAL.sub("_", name)[:MAX_NAME_CHARS] or "_"
    number = first_number
    while (candidate := _numbered(base, number)) in taken:
        number += 1
    return candidate


def _numbered(base: str, number: int) -> str:
    suffix = f"_{number}" if number > 1 else ""
    return base[: MAX_NAME_CHARS - len(suffix)] + suffix


def json_schema(parameters: JsonObject, where: str = "the parameters") -> JsonObject:
    """JSON Schema of an object from a tool's parameters, however loosely they are described.

    A proper JSON Schema comes back unchanged. Parameters without a schema around them become its `properties`; one is
    required unless it has a `default`, its type says optional or allows null, or it says `"required": false` or
    `"optional": true`: xLAM marks its optional parameters by default and by word, never by a list. A boolean
    `required` inside a property moves to the list of the object. An unknown type word is refused as
    INVALID_TOOL_SCHEMA, as is what describes nothing.
    """
    bare = _bare_parameters(parameters)
    if bare is None:
        schema: JsonObject = _schema(parameters, where, 0)
        return schema
    listed = parameters.get("required") if isinstance(parameters.get("required"), list) else None
    properties, required = {}, []
    for name, description in bare.items():
        place = f"{where}: parameter {short(name)}"
        properties[name] = _property(description, place, 1)
        if listed is None and _is_required(description, place):
            required.append(name)
    required = required if listed is None else listed
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _bare_parameters(parameters: JsonObject) -> JsonObject | None:
    """The parameters of a description that has no schema around them; None where there is one."""
    properties = parameters.get("properties")
    has_properties = isinstance(properties, dict) and not isinstance(properties.get("type"), str)
    if has_properties or isinstance(parameters.get("type"), (str, list)):
        return None
    bare = {name: part for name, part in parameters.items() if name != "required" or isinstance(part, dict)}
    if not all(part is None or isinstance(part, (dict, str)) for part in bare.values()):
        return None
    if parameters and all(name in _ANNOTATIONS and not isinstance(part, dict) for name, part in bare.items()):
        return None
    return None if any(name.startswith("$") for name in bare) else bare


def _is_required(description: Any, where: str) -> bool:
    if not isinstance(description, dict):
        return isinstance(description, str) and not _read_type(description, where).is_optional
    if "default" in description or description.get("required") is False or description.get("optional") is True:
        return False
    words = description.get("type")
    return not (isinstance(words, str) and words.strip() and _read_type(words, where).is_optional)


def _schema(schema: Any, where: str, depth: int) -> Any:
    """A schema with JSON types at every depth. A text is the shorthand for its type."""
    if schema is None or isinstance(schema, bool):
        return schema
    if isinstance(schema, str):
        return dict(_read_type(schema, where).schema)
    if not isinstance(schema, dict):
        raise _invalid(f"{where} is {short(schema)}, not a description")
    if depth > MAX_DEPTH:
        raise _invalid(f"{where} is nested deeper than {MAX_DEPTH} levels")
    converted: JsonObject = {}
    for key, value in schema.items():
        if key == "type":
            derived = _json_type(value, where)
            converted |= {name: part for name, part in derived.items() if name == "type" or name not in schema}
        else:
            converted[key] = _keyword(key, value, f"{where}.{key}", depth + 1)
    if isinstance(converted.get("enum"), list):
        converted["enum"] = [_enum_value(value, converted.get("type")) for value in converted["enum"]]
    return _with_lifted_required(converted, schema)


def _enum_value(value: Any, json_type: Any) -> Any:
    """One of the values of an `enum`; text cannot be meant where the type is no text, only what it spells."""
    if not isinstance(value, str) or json_type not in ("boolean", "integer", "number"):
        return value
    if json_type == "boolean":
        return {"true": True, "false": False}.get(value.lower(), value)
    try:
        number = parse(value)
    except StrictJsonError:
        return value
    return number if isinstance(number, (int, float)) and not isinstance(number, bool) else value


def _keyword(key: str, value: Any, where: str, depth: int) -> Any:
    if key == "properties" and isinstance(value, dict):
        return {name: _property(part, f"{where}.{name}", depth) for name, part in value.items()}
    if key in _SCHEMA_KEYWORDS and not isinstance(value, list):
        return _schema(value, where, depth)
    if (key in _SCHEMA_LIST_KEYWORDS or key == "items") and isinstance(value, list):
        return [_schema(part, where, depth) for part in value]
    if key in _SCHEMA_MAP_KEYWORDS and isinstance(value, dict):
        return {name: _schema(part, f"{where}.{name}", depth) for name, part in value.items()}
    return value


def _property(schema: Any, where: str, depth: int) -> Any:
    converted = _schema(schema, where, depth)
    if isinstance(converted, dict) and isinstance(converted.get("required"), bool):
        return {key: value for key, value in converted.items() if key != "required"}
    return converted


def _with_lifted_required(converted: JsonObject, schema: JsonObject) -> JsonObject:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return converted
    flagged = [name for name, part in properties.items() if isinstance(part, dict) and part.get("required") is True]
    listed = converted["required"] if isinstance(converted.get("required"), list) else []
    known = {name for name in listed if isinstance(name, str)}
    missing = [name for name in flagged if name not in known]
    return {**converted, "required": [*listed, *missing]} if missing else converted


def _json_type(given: Any, where: str) -> JsonObject:
    if given is None or (isinstance(given, str) and given in JSON_TYPES):
        return {"type": given}
    if isinstance(given, str):
        return _read_type(given, where).schema if given.strip() else {}
    if isinstance(given, list) and all(isinstance(word, str) for word in given):
        if JSON_TYPES.issuperset(given):
            return {"type": given}
        return union_of([_read_type(word, where).schema for word in given])
    raise _invalid(f"{where}: the type is {short(given)}, not a word")


def _read_type(text: str, where: str) -> LooseType:
    try:
        return parse_type(text)
    except ValueError as error:
        raise _invalid(f"{where}: the type {short(text)} {error}") from None


def _invalid(detail: str) -> RowRejected:
    return RowRejected(Reason.INVALID_TOOL_SCHEMA, detail)
