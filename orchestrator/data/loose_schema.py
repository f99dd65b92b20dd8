"""JSON Schema and legal names from the looser tool descriptions that public data sets use.

Three looser ways are read, at any depth: parameters without the schema around them (`{"city": {"type": "str"}}`, as in
xLAM), type words of Python, Java and JavaScript (`dict`, `float`, `ArrayList`, as in BFCL and ToolACE), and Python
type expressions (`List[int]`, `Optional[float]`, `str, optional`). A word that is none of these is refused.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from orchestrator.data.formats.common import read_call, short
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.data.strict_json import MAX_DEPTH
from orchestrator.records import JsonObject, ToolCall, ToolSpec

JSON_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})

_WORDS_OF_TYPE = {
    # A function is written as its source text: JSON has no other place for it.
    "string": "str string char character text callable function lambda",
    "integer": "int integer long short byte bigint biginteger int32 int64",
    "number": "float double number decimal bigdecimal float32 float64",
    "boolean": "bool boolean",
    "array": "list array tuple set frozenset sequence iterable ndarray arraylist linkedlist hashset queue stack",
    "object": "dict dictionary object map mapping hashmap hashtable",
    "null": "none null nonetype",
}
TYPE_WORDS = {word: json_type for json_type, words in _WORDS_OF_TYPE.items() for word in words.split()}
"""JSON types by the words of Python, Java and JavaScript, in lower case. `any` is not here: it allows every value."""

_CALLABLES = ("callable", "function")
_SCHEMA_KEYWORDS = frozenset(
    {"items", "additionalProperties", "additionalItems", "contains", "propertyNames", "not", "if", "then", "else"}
)
_SCHEMA_LIST_KEYWORDS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMA_MAP_KEYWORDS = frozenset({"$defs", "definitions", "patternProperties", "dependentSchemas"})
_ANNOTATIONS = frozenset({"title", "description", "examples"})

_TOKEN = re.compile(r"\s*+(?:([A-Za-z_][\w.]*+)|(\.\.\.|[\[\]<>,|()]))")
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
MAX_NAME_CHARS = 64
"""Longest name of a function that common clients and servers accept."""
MAX_TYPE_CHARS = 500
"""Longest type expression: far beyond any that a person writes."""


class OfferedTools(NamedTuple):
    """The tools of a row, and for every name that the row gives them the legal name that they have here."""

    specs: tuple[ToolSpec, ...]
    legal_names: dict[str, str]

    @property
    def original_names(self) -> dict[str, str]:
        """The changed names only, as `Draft.original_names`: legal name to the name in the row."""
        return {legal: name for name, legal in self.legal_names.items() if legal != name}


def offered_tools(specs: Iterable[ToolSpec]) -> OfferedTools:
    """Tools as they stand in a row, with JSON Schema parameters (see `json_schema`) and legal names.

    Raises:
        RowRejected: If a schema is neither JSON Schema nor a known looser form.
    """
    given = list(specs)
    names = legal_names(spec.function.name for spec in given)
    tools = []
    for number, spec in enumerate(given, start=1):
        name = spec.function.name
        parameters = json_schema(spec.function.parameters, f"tool {number} ({short(name)})")
        function = spec.function.model_copy(update={"name": names[name], "parameters": parameters})
        tools.append(spec.model_copy(update={"function": function}))
    return OfferedTools(tuple(tools), names)


def offered_call(call: Any, offered: OfferedTools, where: str) -> ToolCall:
    """A call `{"name", "arguments"}` by a tool's name in the row, as a call of the tool's legal name.

    Raises:
        RowRejected: If it is no call, or names no offered tool.
    """
    read = read_call(call, where)
    name = read.function.name
    legal = offered.legal_names.get(name)
    if legal is None:
        names = ", ".join(sorted(offered.legal_names))[:200] or "none"
        raise RowRejected(Reason.UNKNOWN_TOOL, f"{where}: {short(name)} is called; offered: {names}")
    if legal == name:
        return read
    return read.model_copy(update={"function": read.function.model_copy(update={"name": legal})})


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
    `required` inside a property moves to the list of the object.

    Raises:
        RowRejected: INVALID_TOOL_SCHEMA, for a type word that is not known or a description that is none.
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
    return not (isinstance(words, str) and _read_type(words, where).is_optional)


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
    return _with_lifted_required(converted, schema)


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
        return _read_type(given, where).schema
    if isinstance(given, list) and all(isinstance(word, str) for word in given):
        if JSON_TYPES.issuperset(given):
            return {"type": given}
        return _union([_read_type(word, where).schema for word in given])
    raise _invalid(f"{where}: the type is {short(given)}, not a word")


class _LooseType(NamedTuple):
    schema: JsonObject
    is_optional: bool


def _read_type(text: str, where: str) -> _LooseType:
    try:
        return _parse_type(text)
    except ValueError as error:
        raise _invalid(f"{where}: the type {short(text)} {error}") from None


def _invalid(detail: str) -> RowRejected:
    return RowRejected(Reason.INVALID_TOOL_SCHEMA, detail)


@lru_cache(maxsize=4096)
def _parse_type(text: str) -> _LooseType:
    """A type expression; the caller must not change the schema. ValueError says what is wrong with it."""
    if len(text) > MAX_TYPE_CHARS:
        raise ValueError(f"is longer than {MAX_TYPE_CHARS} characters")
    reader = _TypeReader(text)
    schema = reader.union(0)
    is_optional = _allows_null(schema) or reader.ends_with_optional()
    if reader.tokens[reader.place] != "":
        raise ValueError("is followed by more than a type")
    return _LooseType(schema, is_optional)


def _allows_null(schema: JsonObject) -> bool:
    alternatives = schema.get("anyOf", [])
    return "null" in schema.get("type", ()) or {"type": "null"} in alternatives


class _TypeReader:
    """Recursive descent over the words and brackets of a type expression."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        place = 0
        text = text.strip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise ValueError("is not known")
            self.tokens.append(match[1] or match[2])
            place = match.end()
        self.tokens.append("")
        self.place = 0

    def take(self, *expected: str) -> bool:
        """Step over these tokens if they come next."""
        end = self.place + len(expected)
        if tuple(token.lower() for token in self.tokens[self.place : end]) != expected:
            return False
        self.place = end
        return True

    def ends_with_optional(self) -> bool:
        return self.take(",", "optional") or self.take("(", "optional", ")")

    def union(self, depth: int) -> JsonObject:
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        alternatives = [self.one(depth)]
        while self.take("|"):
            alternatives.append(self.one(depth))
        return _union(alternatives)

    def one(self, depth: int) -> JsonObject:
        word = self.tokens[self.place].rpartition(".")[2].lower()
        self.place += bool(word)
        if word in _CALLABLES and self.tokens[self.place] == "[":
            self.skip_brackets()
            schema: JsonObject = {"type": "string"}
        elif self.tokens[self.place : self.place + 2] != ["[", "]"] and (self.take("[") or self.take("<")):
            closing = {"[": "]", "<": ">"}[self.tokens[self.place - 1]]
            schema = _generic(word, self.arguments(closing, depth + 1))
        elif word == "any":
            schema = {}
        elif word in TYPE_WORDS:
            schema = {"type": TYPE_WORDS[word]}
        else:
            raise ValueError("is not known")
        while self.take("[", "]"):
            depth += 1
            schema = _array_of(schema)
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
        return schema

    def arguments(self, closing: str, depth: int) -> list[JsonObject | None]:
        """The types between brackets; None stands for `...`."""
        given: list[JsonObject | None] = []
        while True:
            given.append(None if self.take("...") else self.union(depth))
            if self.take(closing):
                return given
            if not self.take(","):
                raise ValueError("has a bracket that does not close")

    def skip_brackets(self) -> None:
        open_brackets = 0
        while True:
            token = self.tokens[self.place]
            if token == "":
                raise ValueError("has a bracket that does not close")
            open_brackets += (token == "[") - (token == "]")
            self.place += 1
            if open_brackets == 0:
                return


def _generic(word: str, arguments: list[JsonObject | None]) -> JsonObject:
    """The schema of `word[arguments]`."""
    types = [part for part in arguments if part is not None]
    if word == "tuple" and len(arguments) == 2 and arguments[1] is None and types:
        return _array_of(types[0])
    if len(types) < len(arguments):
        raise ValueError("is not known")
    if word == "optional" and len(types) == 1:
        return _union([types[0], {"type": "null"}])
    if word == "union":
        return _union(types)
    if word == "tuple":
        items = {"items": types[0]} if all(part == types[0] for part in types) else {"prefixItems": types}
        return {"type": "array", **items, "minItems": len(types), "maxItems": len(types)}
    if TYPE_WORDS.get(word) == "array" and len(types) == 1:
        return _array_of(types[0])
    if TYPE_WORDS.get(word) == "object" and len(types) == 2:
        return {"type": "object", **({"additionalProperties": types[1]} if types[1] else {})}
    raise ValueError("is not known")


def _array_of(items: JsonObject) -> JsonObject:
    return {"type": "array", **({"items": items} if items else {})}


def _union(alternatives: list[JsonObject]) -> JsonObject:
    if {} in alternatives:
        return {}
    distinct = [part for index, part in enumerate(alternatives) if part not in alternatives[:index]]
    if {"type": "number"} in distinct:
        distinct = [part for part in distinct if part != {"type": "integer"}]
    if len(distinct) == 1:
        return distinct[0]
    if all(part.keys() == {"type"} and isinstance(part["type"], str) for part in distinct):
        return {"type": [part["type"] for part in distinct]}
    return {"anyOf": distinct}
