import re
import time
from typing import Any

import pytest
from conversation_strategies import json_values
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft7Validator, Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator

from orchestrator.core.records import JsonObject
from orchestrator.data.clean.bounded_schema import MAX_STEPS, BoundedSchema, TooMuchWorkError

keys = st.sampled_from(["a", "b", "ab"])
schemas: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [
            *(True, False, {}, {"type": "integer"}, {"type": ["string", "null"]}, {"enum": [1, "a", None]}),
            *({"const": {}}, {"pattern": "^a+$"}, {"minimum": 0, "multipleOf": 2}, {"uniqueItems": True}),
            *({"required": ["a"]}, {"minLength": 2}, {"contains": {"type": "null"}}),
        ]
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("object"), "properties": st.dictionaries(keys, inner, max_size=2)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries(
            {"properties": st.dictionaries(keys, inner, max_size=1), "additionalProperties": inner},
            optional={"patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2)},
        ),
        st.fixed_dictionaries({"propertyNames": inner}),
    ),
    max_leaves=4,
)
values = json_values | st.dictionaries(keys, json_values, max_size=3)


@settings(max_examples=60)
@given(schemas, values)
def test_the_verdict_is_that_of_jsonschema(schema: Any, value: Any) -> None:
    whole = {"properties": {"x": schema}}
    for dialect in (Draft202012Validator, Draft7Validator):
        bounded = BoundedSchema(whole, dialect)
        expected = dialect(whole).is_valid({"x": value})
        assert (bounded.error({"x": value}) is None) == bounded.is_valid({"x": value}) == expected
        assert bounded.is_valid(value, part=schema) == expected


def laughs(depth: int) -> JsonObject:
    """A schema of a few lines that is applied 2 ** depth times."""
    parts = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**parts, f"d{depth}": {"type": "string"}}}


ENDLESS_PATTERN = "^(a+)+$"
LONG_NAME = "a" * 60 + "!"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (laughs(40), "x"),
        ({"uniqueItems": True}, [{"a": n} for n in range(20_000)] + [1]),
        ({"items": {"enum": list(range(3_000))}}, ["x"] * 3_000),
        ({"items": {"anyOf": [{"const": n} for n in range(1_000)]}}, ["x"] * 1_000),
        ({"pattern": "^(?=(a+)+$)"}, LONG_NAME),
        ({"pattern": "(?!x)" + "a?" * 40 + "b"}, "a" * 40),
        ({"$schema": DIALECT, "properties": {"x": {"$schema": DIALECT, **laughs(40)}}, **laughs(40)}, {"x": "x"}),
    ],
)
def test_a_check_that_would_take_too_long_is_given_up(schema: JsonObject, value: Any) -> None:
    started = time.process_time()
    bounded = BoundedSchema(schema, Draft202012Validator)
    with pytest.raises(TooMuchWorkError, match=r"too many steps|in bounded time"):
        bounded.error(value)
    assert time.process_time() - started < 20


def test_a_schema_that_takes_too_long_to_check_is_given_up() -> None:
    with pytest.raises(TooMuchWorkError, match="steps"):
        BoundedSchema({"enum": [*({"a": n} for n in range(20_000)), 1]}, Draft4Validator)


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"pattern": ENDLESS_PATTERN}, LONG_NAME, False),
        ({"patternProperties": {ENDLESS_PATTERN: False}}, {LONG_NAME: 1}, True),
        ({"patternProperties": {ENDLESS_PATTERN: True}, "additionalProperties": False}, {LONG_NAME: 1}, False),
        ({"propertyNames": {"pattern": ENDLESS_PATTERN}}, {LONG_NAME: 1}, False),
        ({"pattern": r"^[\u4e00-\u9fff]+$"}, "中文", True),
        ({"pattern": r"^\\u4e00$"}, r"\u4e00", True),
        ({"pattern": r"^\d+$"}, "٣", False),
        ({"pattern": "^.{1,5000}$"}, "x" * 5000, True),
        ({"pattern": r"^(?=.*\d)(?!.*\.\.)[\w.-]{3,}$"}, "a.b1", True),
        ({"pattern": r"^(?=.*\d)(?!.*\.\.)[\w.-]{3,}$"}, "a..b1", False),
    ],
)
def test_patterns_are_searched_for_in_bounded_time(schema: JsonObject, value: Any, fits: bool) -> None:
    assert BoundedSchema(schema, Draft202012Validator).is_valid(value) == fits


def test_each_check_has_all_the_steps() -> None:
    bounded = BoundedSchema({"items": {"type": "integer"}}, Draft202012Validator)
    for _ in range(4):
        assert bounded.error(list(range(MAX_STEPS // 3))) is None


def test_what_does_not_fit_is_told() -> None:
    bounded = BoundedSchema({"pattern": "^a", "additionalProperties": False}, Draft7Validator)
    error = bounded.error("b")
    assert error is not None
    assert (error.message, error.validator) == ("'b' does not match '^a'", "pattern")
    with pytest.raises(SchemaError, match=re.escape("'x' is not of type 'object'")):
        BoundedSchema({"properties": "x"}, Draft7Validator)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "string"},
        {"type": "integer", "minimum": 3},
        {"type": "string", "enum": ["a", "b"]},
        {"const": "a"},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"allOf": [{"$ref": "#/$defs/name"}]},
        {"$ref": "#/$defs/name"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ],
)
@pytest.mark.parametrize("dialect", [Draft202012Validator, Draft7Validator])
def test_nullable_allows_null_and_nothing_else(part: JsonObject, dialect: type[Validator]) -> None:
    def checked(**nullable: object) -> BoundedSchema:
        properties = {"list": {"type": "array", "items": {**part, **nullable}}, "plain": {**part, **nullable}}
        named = {"name": {"type": "string"}}
        return BoundedSchema({"type": "object", "properties": properties, "$defs": named}, dialect)

    assert checked(nullable=True).is_valid({"plain": None, "list": [None]})
    for schema in (checked(), checked(nullable=False), checked(nullable="yes")):
        assert not schema.is_valid({"plain": None})
        assert not schema.is_valid({"list": [None]})
    assert not checked(nullable=True).is_valid({"plain": [1.5]})
