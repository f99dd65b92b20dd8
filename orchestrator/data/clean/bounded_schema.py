"""JSON Schema checks that end: patterns, references and lists of a schema can keep a plain validator busy for years.

Work is counted, not timed, so that every machine judges a row alike.
"""

import re
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any

from jsonschema import validators
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.protocols import Validator
from referencing import Registry

from orchestrator.core.records import JsonObject

MAX_STEPS = 50_000
"""Keywords of a schema that are applied in one check; those of a long call are some hundred."""
MAX_SCHEMA_STEPS = 1_000_000
"""As many for the schema itself, which is checked once: each of its parts takes some twenty."""
ENTRIES_PER_STEP = 8
"""Entries of a list or object that a keyword looks at in the time of one step."""
MAX_TRIES = 10**7
"""Ways in which Python's `re` may try a pattern that only it can read."""

_REPEAT_OF_GROUP = re.compile(r"\)[*+{]")
_CHOICE = re.compile(r"[*+?{|]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)

Keyword = Callable[[Validator, Any, Any, Any], Iterator[ValidationError] | None]


class TooMuchWorkError(ValueError):
    """A check would take too long."""


class _Steps(threading.local):
    """Steps left to the check that this thread runs."""

    left = MAX_STEPS

    def spend(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise TooMuchWorkError("too many steps are needed")


_steps = _Steps()


class BoundedSchema:
    """A JSON Schema that values are checked against, each in at most MAX_STEPS.

    Nothing is ever fetched: a `$ref` to another document is an error. Patterns are read as RE2 reads them, digits and
    word characters as ASCII like ECMA-262; what RE2 lacks, such as look-ahead, is left to Python where that is quick.

    `dialect` is the class of `jsonschema` for the schema's dialect; a `$schema` further inside changes nothing. Where a
    schema says `nullable: true`, as OpenAPI 3.0 does, null fits it.

    Raises:
        SchemaError: If `schema` does not fit the schema of its dialect.
        TooMuchWorkError: If that cannot be decided in bounded time.
    """

    def __init__(self, schema: JsonObject, dialect: type[Validator]) -> None:
        bounded = _bounded(dialect)
        meta = bounded(dialect.META_SCHEMA, registry=Registry(), format_checker=dialect.FORMAT_CHECKER)
        _steps.left = MAX_SCHEMA_STEPS
        for error in meta.iter_errors(schema):
            raise SchemaError.create_from(error)
        self.schema = schema
        self._validator = bounded(schema, registry=Registry())

    def error(self, value: Any) -> ValidationError | None:
        """What is wrong with a value, most telling first; None if it fits.

        Raises:
            TooMuchWorkError: If that cannot be decided in bounded time.
            Exception: What `jsonschema` raises on a schema that cannot be applied.
        """
        _steps.left = MAX_STEPS
        found: ValidationError | None = best_match(self._validator.iter_errors(value))
        return found

    def is_valid(self, value: Any, *, part: Any = None) -> bool:
        """Whether a value fits the schema, or a part of it; raises as `error`."""
        _steps.left = MAX_STEPS
        validator = self._validator if part is None else self._validator.evolve(schema=part)
        return bool(validator.is_valid(value))


@lru_cache
def _bounded(dialect: type[Validator]) -> Any:
    """A dialect's class whose every keyword counts its work."""
    own = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": partial(_additional_properties, dialect.VALIDATORS["additionalProperties"]),
    }
    keywords = {**dialect.VALIDATORS, **own}
    counted = {name: _counted(name, check) for name, check in keywords.items()}
    bounded: Any = validators.extend(dialect, counted)  # type: ignore[no-untyped-call]
    bounded.evolve = _evolve
    return bounded


def _evolve(self: Any, **changes: Any) -> Any:
    """The same validator for another schema. That of `jsonschema` would follow a `$schema` to a class of its own."""
    for field in self.__attrs_attrs__:
        if field.init:
            changes.setdefault(field.alias, getattr(self, field.name))
    return type(self)(**changes)


def _counted(name: str, check: Keyword) -> Keyword:
    def counted(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        entries = sum(len(part) for part in (value, instance) if isinstance(part, (list, dict)))
        if name == "uniqueItems" and isinstance(instance, list):
            entries = len(instance) ** 2  # lists of unlike things are compared pair by pair
        _steps.spend(1 + entries // ENTRIES_PER_STEP)
        if instance is None and schema.get("nullable") is True:
            return  # OpenAPI 3.0's word: beside it no other keyword rules null out
        yield from check(validator, value, instance, schema) or ()

    return counted


def _pattern(validator: Validator, pattern: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in patterns.items():
        for name, value in instance.items():
            _steps.spend(1)
            if _matches(pattern, name):
                yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(
    check: Keyword, validator: Validator, allowed: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    patterns = schema.get("patternProperties")
    if patterns and isinstance(instance, dict):
        _steps.spend(len(patterns) * len(instance))
        known = {name: True for name in instance if any(_matches(pattern, name) for pattern in patterns)}
        schema = {"properties": {**schema.get("properties", {}), **known}}
    yield from check(validator, allowed, instance, schema) or ()


def _matches(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text; linear in the text where RE2 can read the pattern."""
    import pyarrow as pa
    from pyarrow import compute

    re2 = _ESCAPE.sub(lambda escape: f"\\x{{{escape[1]}}}" if escape[1] else escape[0], pattern)
    try:
        return bool(compute.match_substring_regex(pa.array([text]), pattern=re2)[0].as_py())
    except pa.ArrowInvalid:
        pass
    # Without repeated groups, a pattern is tried in no more ways than this.
    tries = (len(text) + 1) ** min(len(_CHOICE.findall(pattern)), 30)
    if _REPEAT_OF_GROUP.search(pattern) or tries > MAX_TRIES:
        raise TooMuchWorkError(f"the pattern {pattern[:80]!r} cannot be searched for in bounded time")
    return re.search(pattern, text) is not None
