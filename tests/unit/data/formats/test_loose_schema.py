import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.records import FunctionSpec, ToolSpec
from orchestrator.data.formats.loose_schema import (
    declared_call,
    json_schema,
    legal_name,
    legal_names,
    offered_call,
    offered_tools,
    read_tool,
)
from orchestrator.data.formats.type_words import JSON_TYPES
from orchestrator.data.rejection import Reason, RowRejected


def of_type(words: str) -> Any:
    """The schema of one parameter of a type, given without a schema around it."""
    return json_schema({"p": {"type": words}})["properties"]["p"]


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("str", {"type": "string"}),
        ("int, optional", {"type": "integer"}),
        ("float (optional)", {"type": "number"}),
        ("list", {"type": "array"}),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("List[List[str]]", {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
        ("Dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("Dict[str, Any]", {"type": "object"}),
        ("Optional[float]", {"type": ["number", "null"]}),
        ("int | None", {"type": ["integer", "null"]}),
        ("Union[str, int]", {"type": ["string", "integer"]}),
        ("Union[int, float]", {"type": "number"}),
        ("Union[List[int], str]", {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "string"}]}),
        ("Tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        ("Tuple[float, float]", {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
        (
            "Tuple[str, int]",
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2},
        ),
        ("set", {"type": "array"}),
        ("np.ndarray", {"type": "array"}),
        ("Callable[[float, List[int]], float]", {"type": "string"}),
        ("ArrayList<String>", {"type": "array", "items": {"type": "string"}}),
        ("string[]", {"type": "array", "items": {"type": "string"}}),
        ("Any", {}),
        ("Bigint", {"type": "integer"}),
        ("HashMap", {"type": "object"}),
        ("char", {"type": "string"}),
    ],
)
def test_type_expressions_become_json_types(words: str, schema: Any) -> None:
    assert of_type(words) == schema


@pytest.mark.parametrize(
    "words",
    [
        "datetime",
        "List[",
        "List[int",
        "List[int] int",
        "Dict[str]",
        "str, required",
        "int[3]",
        "List[...]",
        "a+b",
        "int" + "[]" * 100,
        "List[" * 100_000,
        "Union[" + "int," * 100_000,
        "x" * 1_000_000,
    ],
)
def test_an_unknown_type_is_refused(words: str) -> None:
    start = time.process_time()
    with pytest.raises(RowRejected) as rejected:
        of_type(words)
    assert rejected.value.reason is Reason.INVALID_TOOL_SCHEMA
    assert 'parameter "p"' in rejected.value.detail
    assert time.process_time() - start < 1


def test_bare_parameters_are_required_without_default_or_optional() -> None:
    schema = json_schema(
        {
            "type": {"description": "The kind.", "type": "str"},
            "properties": {"description": "What to list.", "type": "List[str]"},
            "page": {"type": "int, optional"},
            "limit": {"type": "int", "default": 10},
            "unit": {"type": "Optional[str]"},
            "flag": {"type": "bool", "required": False},
            "days": "int",
        }
    )
    assert schema["required"] == ["type", "properties", "days"]
    assert schema["type"] == "object"
    assert schema["properties"]["type"] == {"description": "The kind.", "type": "string"}
    assert schema["properties"]["properties"] == {
        "description": "What to list.",
        "type": "array",
        "items": {"type": "string"},
    }
    assert schema["properties"]["limit"] == {"type": "integer", "default": 10}
    assert schema["properties"]["flag"] == {"type": "boolean"}
    assert schema["properties"]["days"] == {"type": "integer"}


def test_bare_parameters_with_a_list_of_required_names() -> None:
    schema = json_schema({"city": {"type": "str"}, "unit": {"type": "str"}, "required": ["city"]})
    assert schema == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"type": "string"}},
        "required": ["city"],
    }


def test_loose_words_are_replaced_at_every_depth() -> None:
    loose = {
        "type": "dict",
        "properties": {
            "size": {"type": "dict", "properties": {"width": {"type": "float"}}, "required": ["width"]},
            "points": {"type": "array", "items": {"type": "tuple", "items": {"type": "float"}}},
            "extra": {"type": "any", "description": "Anything.", "default": {"type": "dict"}},
            "either": {"anyOf": [{"type": "int"}, {"type": "String"}]},
            "mixed": {"type": ["str", "null"]},
        },
        "required": ["size"],
    }
    assert json_schema(loose) == {
        "type": "object",
        "properties": {
            "size": {"type": "object", "properties": {"width": {"type": "number"}}, "required": ["width"]},
            "points": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            "extra": {"description": "Anything.", "default": {"type": "dict"}},
            "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "mixed": {"type": ["string", "null"]},
        },
        "required": ["size"],
    }


def test_boolean_required_moves_to_the_object() -> None:
    loose = {"type": "object", "properties": {"a": {"type": "string", "required": True}, "b": {"required": False}}}
    assert json_schema(loose) == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {}},
        "required": ["a"],
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "object", "properties": {"type": {"type": "string"}, "required": {"type": "boolean"}}},
        {"type": "object"},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}},
        {"anyOf": [{"type": "object"}, {"required": ["a"]}]},
        {"additionalProperties": False, "description": "None."},
        {"type": "object", "properties": {"a": True, "b": {"type": ["string", "null"], "enum": ["x", None]}}},
        {"type": "object", "properties": {"a": {"type": "string", "optional": True}}, "required": None},
    ],
)
def test_json_schema_comes_back_unchanged(schema: dict[str, Any]) -> None:
    assert json_schema(schema) == schema


def test_no_parameters_at_all() -> None:
    assert json_schema({}) == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    "bad", [{"type": "dict", "properties": {"a": 5}}, {"a": {"type": {"b": 1}}}, {"a": {"type": 5}}]
)
def test_descriptions_that_are_none_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(RowRejected) as rejected:
        json_schema(bad)
    assert rejected.value.reason is Reason.INVALID_TOOL_SCHEMA


def test_nesting_is_bounded() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5_000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RowRejected) as rejected:
        json_schema({"type": "object", "properties": {"a": schema}})
    assert rejected.value.reason is Reason.INVALID_TOOL_SCHEMA


NODES = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(sorted(JSON_TYPES))}, optional={"description": st.text(max_size=5)}),
    lambda nodes: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": nodes}),
        st.fixed_dictionaries({"anyOf": st.lists(nodes, min_size=1, max_size=3)}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.text(max_size=5), nodes, max_size=3)}
        ),
    ),
    max_leaves=8,
)
PARAMETERS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(st.text(max_size=8), NODES, max_size=4)}
)
WORDS = st.sampled_from(["str", "int, optional", "List[int]", "Dict[str, int]", "Optional[float]", "any", "tuple"])


@given(PARAMETERS)
def test_proper_schemas_are_left_alone(schema: dict[str, Any]) -> None:
    assert json_schema(schema) == schema


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.fixed_dictionaries({"type": WORDS}), min_size=1))
def test_what_is_made_of_loose_parameters_is_proper(parameters: dict[str, Any]) -> None:
    schema = json_schema(parameters)
    assert json_schema(schema) == schema
    if not any(name.startswith("$") for name in parameters):
        assert schema["properties"].keys() == parameters.keys()


@given(st.lists(st.text(min_size=1, max_size=80), max_size=20))
def test_legal_names_are_legal_unique_and_reversible(names: list[str]) -> None:
    legal = legal_names(names)
    assert legal.keys() == set(names)
    assert len(set(legal.values())) == len(legal)
    for name, stand_in in legal.items():
        assert stand_in.isascii()
        assert stand_in.replace("-", "_").replace("_", "a").isalnum()
        assert 1 <= len(stand_in) <= 64
        assert legal_names([stand_in]) == {stand_in: stand_in}
        if legal_names([name])[name] == name:
            assert stand_in == name


def test_collisions_get_numbers_and_legal_names_stay() -> None:
    assert legal_names(["a.b", "a b", "a_b", "a/b"]) == {"a.b": "a_b_2", "a b": "a_b_3", "a_b": "a_b", "a/b": "a_b_4"}
    assert legal_name("x" * 70, {"x" * 64}) == "x" * 62 + "_2"


def test_many_colliding_names_take_no_quadratic_time() -> None:
    start = time.process_time()
    names = legal_names(f"tool{chr(0x4E00 + number)}" for number in range(20_000))
    assert len(set(names.values())) == 20_000
    assert time.process_time() - start < 1


def tool(name: str, **parameters: Any) -> ToolSpec:
    return ToolSpec(function=FunctionSpec(name=name, parameters=parameters or {"type": "object", "properties": {}}))


def test_offered_tools_have_legal_names_and_proper_schemas() -> None:
    offered = offered_tools([tool("math.sqrt", x={"type": "float"}), tool("plain")])
    assert [spec.function.name for spec in offered.specs] == ["math_sqrt", "plain"]
    assert offered.specs[0].function.arguments_schema["properties"] == {"x": {"type": "number"}}
    assert offered.original_names == {"math_sqrt": "math.sqrt"}
    call = offered_call({"name": "math.sqrt", "arguments": {"x": 2}}, offered, "answer 1")
    assert (call.function.name, call.function.arguments) == ("math_sqrt", {"x": 2})


def test_a_call_by_the_legal_name_of_another_tool_is_unknown() -> None:
    offered = offered_tools([tool("math.sqrt")])
    with pytest.raises(RowRejected) as rejected:
        offered_call({"name": "math_sqrt", "arguments": {}}, offered, "answer 1")
    assert rejected.value.reason is Reason.UNKNOWN_TOOL
    assert "math.sqrt" in rejected.value.detail


@pytest.mark.parametrize(
    ("parameter", "enum"),
    [
        ({"type": "boolean", "enum": ["True", "False", "dontcare"]}, [True, False, "dontcare"]),
        ({"type": "int", "enum": ["1", "2", 3, "many", "true"]}, [1, 2, 3, "many", "true"]),
        ({"type": "float", "enum": ["0.5", "1"]}, [0.5, 1]),
        ({"type": "string", "enum": ["True", "1"]}, ["True", "1"]),
        ({"enum": ["True", 1]}, ["True", 1]),
    ],
)
def test_values_of_an_enum_are_of_its_type(parameter: dict[str, Any], enum: list[Any]) -> None:
    assert json_schema({"p": parameter})["properties"]["p"]["enum"] == enum


def test_an_empty_type_says_nothing() -> None:
    schema = json_schema({"p": {"type": "", "description": "Anything."}})
    assert schema == {"type": "object", "properties": {"p": {"description": "Anything."}}, "required": ["p"]}


def finder(parameters: dict[str, Any]) -> ToolSpec:
    return ToolSpec(function=FunctionSpec(name="find it", description="", parameters=parameters))


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        ({"city": "str"}, {"city": "Oslo"}),
        ({"city": "str"}, {"city": "Oslo", "filled_in": None}),
        ({"type": "dict", "properties": {"city": {"type": "str"}}, "additionalProperties": True}, {"town": "Oslo"}),
        ({"type": "dict"}, {"town": "Oslo"}),
        ({"type": "dict", "anyOf": [{"required": ["town"]}], "properties": {}}, {"town": "Oslo"}),
    ],
)
def test_arguments_of_a_function(parameters: dict[str, Any], arguments: dict[str, Any]) -> None:
    offered = offered_tools([finder(parameters)])
    call = declared_call({"name": "find it", "arguments": arguments}, offered, "answer 1")
    assert (call.function.name, call.function.arguments) == ("find_it", arguments)


@pytest.mark.parametrize("parameters", [{}, {"city": "str"}, {"type": "dict", "properties": {"city": {"type": "str"}}}])
def test_a_function_takes_no_other_arguments(parameters: dict[str, Any]) -> None:
    offered = offered_tools([finder(parameters)])
    with pytest.raises(RowRejected, match='answer 1: the tool has no parameter "town"') as rejected:
        declared_call({"name": "find it", "arguments": {"town": "Oslo"}}, offered, "answer 1")
    assert rejected.value.reason is Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA


def test_the_names_that_a_row_uses() -> None:
    offered = offered_tools([finder({"city": "str", "days": "int, optional"})])
    assert offered.parameter_names == {"find it": frozenset({"city", "days"})}


def test_what_a_tool_lacks_stays_missing_and_strict_stays() -> None:
    bare = read_tool({"name": "f"}, "tool 1").function
    assert (bare.description, bare.parameters, bare.strict) == (None, None, None)
    full = {"name": "f", "description": "", "parameters": {"type": "object"}, "strict": True}
    assert read_tool({"type": "function", "function": full}, "tool 1").function.model_dump() == full
    (offered,) = offered_tools([read_tool({"name": "f"}, "tool 1")]).specs
    assert offered.function.parameters is None
    with pytest.raises(RowRejected, match="`strict` is neither true nor false"):
        read_tool({"name": "f", "strict": "yes"}, "tool 1")
