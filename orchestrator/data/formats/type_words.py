"""Type words of Python, Java and JavaScript, and expressions of them, as JSON Schema.

`dict`, `List[int]`, `Optional[float]`, `Dict[str, Any]`, `ArrayList<String>`, `string[]`, `int | None`, and the endings
`, optional` and `(optional)`.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from orchestrator.core.records import JsonObject
from orchestrator.notation.strict_json import MAX_DEPTH

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

_TOKEN = re.compile(r"\s*+(?:([A-Za-z_][\w.]*+)|(\.\.\.|[\[\]<>,|()]))")
MAX_TYPE_CHARS = 500
"""Longest type expression: far beyond any that a person writes."""


class LooseType(NamedTuple):
    """The JSON Schema of a type, and whether it says that the parameter may be left out."""

    schema: JsonObject
    is_optional: bool


@lru_cache(maxsize=4096)
def parse_type(text: str) -> LooseType:
    """The type that an expression stands for. The caller must not change its schema.

    Raises:
        ValueError: With what is wrong with the expression, to be read after it.
    """
    if len(text) > MAX_TYPE_CHARS:
        raise ValueError(f"is longer than {MAX_TYPE_CHARS} characters")
    reader = _TypeReader(text)
    schema = reader.union(0)
    is_optional = _allows_null(schema) or reader.ends_with_optional()
    if reader.tokens[reader.place] != "":
        raise ValueError("is followed by more than a type")
    return LooseType(schema, is_optional)


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
        return union_of(alternatives)

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
        return union_of([types[0], {"type": "null"}])
    if word == "union":
        return union_of(types)
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


def union_of(alternatives: list[JsonObject]) -> JsonObject:
    """The schema of what fits one of some schemas, in its shortest form."""
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
