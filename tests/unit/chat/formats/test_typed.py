"""Texts that stand for values are read by the schema of their parameter, and never guessed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat.formats.reply import ParseProblem
from orchestrator.chat.formats.typed import typed_argument, typed_call
from orchestrator.core.records import JsonObject, ToolCall

INTEGER, TEXT, NUMBER, FLAG = ({"type": name} for name in ("integer", "string", "number", "boolean"))
POINT = {"type": "object", "properties": {"x": NUMBER}}


def read(schema: JsonObject, text: str, **root: Any) -> Any:
    """The value, or the reason why there is none."""
    found = typed_argument("f", "a", text, {"f": {"properties": {"a": schema}, **root}})
    return found.fault.reason if found.fault else found.value


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (TEXT, "3", "3"),
        (TEXT, " x\n", " x\n"),
        (TEXT, "", ""),
        (INTEGER, "3", 3),
        (INTEGER, " -3\n", -3),
        (INTEGER, "3.0", 3.0),
        (NUMBER, "3", 3),
        (NUMBER, "1e-05", 1e-05),
        (FLAG, "true", True),
        (FLAG, "True", True),
        (FLAG, "False", False),
        ({"type": "null"}, "null", None),
        ({"type": "null"}, "None", None),
        ({"type": "object"}, '{"b": [1, null]}', {"b": [1, None]}),
        ({"type": "array"}, '["1", 1]', ["1", 1]),
        ({"type": ["integer", "null"]}, "None", None),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "None", "None"),
        ({"type": ["string", "null"]}, "NULL", "NULL"),
        ({"type": ["integer", "string"]}, "3", 3),
        ({"type": ["integer", "string"]}, "3.0", "3.0"),
        ({"type": ["integer", "string"]}, "three", "three"),
        ({"type": ["boolean", "string"]}, "1", "1"),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "7", 7),
        ({"oneOf": [POINT, TEXT]}, '{"x": 1}', {"x": 1}),
        ({"anyOf": [INTEGER, {}]}, "x", "x"),
        ({"allOf": [INTEGER, {"minimum": 1}]}, "7", 7),
        ({"enum": [1, 2]}, "2", 2),
        ({"enum": ["1", "2"]}, "2", "2"),
        ({"const": 5}, "5", 5),
        ({}, "3", "3"),
        ({"description": "Anything."}, "true", "true"),
        ({"type": "object", "anyOf": [{"required": ["x"]}, {"required": ["y"]}]}, '{"x": 1}', {"x": 1}),
    ],
)
def test_a_text_is_read_as_a_type_of_its_schema(schema: JsonObject, text: str, value: Any) -> None:
    found = read(schema, text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (INTEGER, "three"),
        (INTEGER, "3.5"),
        (INTEGER, "1_000"),
        (INTEGER, "٣"),
        (INTEGER, "+3"),
        (INTEGER, "true"),
        (INTEGER, "None"),
        (INTEGER, ""),
        (NUMBER, "NaN"),
        (NUMBER, "1e999"),
        (NUMBER, '"3"'),
        (FLAG, "1"),
        (FLAG, "yes"),
        (FLAG, "TRUE"),
        ({"type": "object"}, "{'a': 1}"),
        ({"type": "object"}, '{"a": 1, "a": 2}'),
        ({"type": "object"}, "[1]"),
        ({"type": "array"}, "[1,]"),
        ({"type": ["integer", "null"]}, "x"),
        ({"enum": [1, 2]}, "x"),
    ],
)
def test_a_text_that_no_type_takes_is_a_problem(schema: JsonObject, text: str) -> None:
    assert read(schema, text) == "not_schema_type"


def test_references_lead_to_the_schema_inside_the_tool() -> None:
    assert read({"$ref": "#/$defs/point"}, '{"x": 1}', **{"$defs": {"point": POINT}}) == {"x": 1}
    assert read({"$ref": "#/$defs/a~1b"}, "3", **{"$defs": {"a/b": INTEGER}}) == 3
    assert read({"$ref": "#/$defs/gone"}, "3") == "3"
    assert read({"$ref": "https://example.com/schema"}, "3") == "3"


def test_schemas_that_lead_in_a_circle_leave_the_type_open() -> None:
    loop = {"anyOf": [{"$ref": "#/$defs/a"}] * 3}
    assert read({"$ref": "#/$defs/a"}, "3", **{"$defs": {"a": loop}}) == "3"


def test_a_parameter_that_the_tool_does_not_list_is_text_unless_the_others_have_a_schema() -> None:
    assert typed_argument("f", "b", "3", {"f": {"properties": {"a": INTEGER}}}).value == "3"
    assert typed_argument("f", "b", "3", {"f": {"additionalProperties": INTEGER}}).value == 3
    assert typed_argument("f", "b", "3", {"f": {"additionalProperties": False}}).value == "3"
    assert typed_argument("g", "a", "3", {"f": {"properties": {"a": INTEGER}}}).value == "3"


def test_a_call_is_made_of_its_texts() -> None:
    schemas = {"f": {"properties": {"n": INTEGER}}}
    call = typed_call("f", [("n", "3"), ("s", "3")], schemas)
    assert isinstance(call, ToolCall)
    assert (call.function.name, call.function.arguments) == ("f", {"n": 3, "s": "3"})
    twice = typed_call("f", [("n", "3"), ("n", "4")], schemas)
    wrong = typed_call("f", [("s", "x"), ("n", "x")], schemas)
    nameless, lone = typed_call("", [], schemas), typed_call("f", [("s", "\ud800")], schemas)
    assert [problem.reason for problem in (twice, wrong, nameless, lone) if isinstance(problem, ParseProblem)] == [
        *("not_a_call_object", "not_schema_type", "not_a_call_object", "not_strict_json")
    ]
    assert isinstance(wrong, ParseProblem)
    assert wrong.detail == "'n' of 'f' is of type integer, and 'x' is not JSON: Expecting value at column 1"


KEYS = ["type", "anyOf", "$ref", "enum"]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner),
)


@given(schema=ANY_JSON, text=st.text(st.characters()))
def test_no_schema_and_no_text_makes_it_raise(schema: Any, text: str) -> None:
    typed_argument("f", "a", text, {"f": {"properties": {"a": schema}}})
