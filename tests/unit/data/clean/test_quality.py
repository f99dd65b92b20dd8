from typing import Any

import pytest

from orchestrator.core.records import (
    FunctionCall,
    FunctionSpec,
    JsonObject,
    Message,
    Sample,
    SampleKind,
    ToolCall,
    ToolSpec,
)
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.rejection import RowRejected

PARAMETERS: JsonObject = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "note": {"type": ["string", "null"]},
        "unit": {"$ref": "#/$defs/unit"},
        "place": {"type": "object", "properties": {"street": {"type": "string"}, "zip": {"type": "string"}}},
        "stops": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "extra": {"type": "object"},
    },
    "required": ["city"],
    "$defs": {"unit": {"enum": ["C", "F", None]}},
}
USER, ANSWER = Message(role="user", content="Weather?"), Message(role="assistant", content="Sunny.")
SYSTEM, RESULT = Message(role="system", content="Be brief."), Message(role="tool", content="sun")


def tool(parameters: JsonObject, name: str = "weather") -> ToolSpec:
    return ToolSpec(function=FunctionSpec(name=name, parameters=parameters))


def calls(*arguments: JsonObject, name: str = "weather", ids: bool = False) -> Message:
    made = (
        ToolCall(id=f"c{n}" if ids else None, function=FunctionCall(name=name, arguments=a))
        for n, a in enumerate(arguments)
    )
    return Message(role="assistant", tool_calls=tuple(made))


CALL = calls({"city": "Rome"})


def sample(
    *messages: Message, kind: SampleKind | None = None, tools: tuple[ToolSpec, ...] = (tool(PARAMETERS),)
) -> Sample:
    found: SampleKind = "tool_call" if messages[-1].tool_calls else "answer"
    return Sample(id="a", messages=messages, tools=tools, kind=kind or found, source="f:1")


def result(**fields: Any) -> Message:
    return RESULT.model_copy(update=fields)


@pytest.mark.parametrize(
    "good",
    [
        sample(USER, ANSWER, tools=()),
        sample(SYSTEM, USER, ANSWER),
        sample(USER, ANSWER, kind="refusal"),
        sample(USER, CALL),
        sample(USER, CALL, RESULT, ANSWER, USER, CALL),
        sample(USER, CALL, RESULT, CALL, RESULT, ANSWER),
        sample(USER, calls({"city": "a"}, {"city": "b"}), RESULT, RESULT, ANSWER),
        sample(USER, calls({"city": "a"}, {"city": "b"}), RESULT, ANSWER),
        sample(USER, calls({"city": "a", "note": None, "unit": None})),
        sample(USER, ANSWER, tools=(tool({"$schema": "http://json-schema.org/draft-07/schema#"}),)),
        sample(USER, ANSWER, tools=(tool({}),)),
    ],
)
def test_a_good_sample_passes_unchanged(good: Sample) -> None:
    assert check_sample(good) == (good, 0)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (sample(SYSTEM, ANSWER), "no_user_turn"),
        (sample(USER, USER, ANSWER), "roles_out_of_order"),
        (sample(USER, ANSWER, ANSWER), "roles_out_of_order"),
        (sample(ANSWER, USER, ANSWER), "roles_out_of_order"),
        (sample(USER, SYSTEM, ANSWER), "roles_out_of_order"),
        (sample(SYSTEM, SYSTEM, USER, ANSWER), "roles_out_of_order"),
        (sample(USER, CALL, RESULT, USER, ANSWER), "roles_out_of_order"),
        (sample(USER, ANSWER, USER), "ends_without_assistant"),
        (sample(USER, CALL, RESULT), "ends_without_assistant"),
        (sample(USER, CALL, USER, ANSWER), "call_without_result"),
        (sample(USER, CALL, ANSWER), "call_without_result"),
        (sample(RESULT, USER, ANSWER), "tool_result_without_call"),
        (sample(USER, RESULT, ANSWER), "tool_result_without_call"),
        (sample(USER, CALL, RESULT, RESULT, ANSWER), "tool_result_without_call"),
        (sample(USER, CALL, result(name="other"), ANSWER), "tool_result_without_call"),
        (sample(USER, calls({"city": "a"}, ids=True), result(tool_call_id="c9"), ANSWER), "tool_result_without_call"),
        (
            sample(USER, calls({"city": "a"}, {"city": "b"}, ids=True), *[result(tool_call_id="c0")] * 2, ANSWER),
            "tool_result_without_call",
        ),
        (sample(USER, USER.model_copy(update={"role": "assistant", "content": " \n"})), "empty_turn"),
        (sample(USER.model_copy(update={"content": ""}), ANSWER), "empty_turn"),
        (sample(USER, CALL, kind="answer"), "kind_disagrees"),
        (sample(USER, ANSWER, kind="tool_call"), "kind_disagrees"),
        (sample(USER, CALL, tools=()), "unknown_tool"),
        (sample(USER, calls({"city": "Rome"}, name="Weather")), "unknown_tool"),
        (sample(USER, ANSWER, tools=(tool({}), tool({}))), "duplicate_tool"),
        (sample(USER, calls({})), "arguments_do_not_fit_schema"),
        (sample(USER, calls({"city": 3})), "arguments_do_not_fit_schema"),
        (sample(USER, calls({"city": None})), "arguments_do_not_fit_schema"),
        (sample(USER, calls({"city": "a", "days": 0})), "arguments_do_not_fit_schema"),
        (sample(USER, calls({"city": "a", "days": "2"})), "arguments_do_not_fit_schema"),
        (sample(USER, calls({"city": "a", "unit": "K"})), "arguments_do_not_fit_schema"),
        (sample(USER, calls({"city": "a"}, {"city": 1})), "arguments_do_not_fit_schema"),
    ],
)
def test_a_bad_sample_is_rejected_with_its_reason(bad: Sample, reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        check_sample(bad)
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "dict"},
        {"type": "string"},
        {"type": ["object", "null"]},
        {"type": "object", "properties": {"a": {"type": "str"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.invalid/schema.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"type": "object", "required": "a"},
        {"$schema": 5},
        {"$schema": []},
        {"$schema": "http://["},
    ],
)
def test_an_invalid_schema_is_a_reason_even_when_its_tool_is_not_called(parameters: JsonObject) -> None:
    with pytest.raises(RowRejected) as caught:
        check_sample(sample(USER, ANSWER, tools=(tool(parameters),)))
    assert caught.value.reason == "invalid_tool_schema"


def test_odd_numbers_and_identifiers_in_a_schema_are_a_reason_not_a_crash() -> None:
    odd = {"properties": {"a": {"multipleOf": 1e-300}, "b": {"$id": "http://[", "$ref": "#/x"}}}
    for arguments in ({"a": 10**400}, {"b": 1}):
        with pytest.raises(RowRejected) as caught:
            check_sample(sample(USER, calls(arguments), tools=(tool(odd),)))
        assert caught.value.reason in ("invalid_tool_schema", "arguments_do_not_fit_schema")


@pytest.mark.parametrize("target", ["#", "#/$defs/absent"])
def test_a_reference_that_never_resolves_is_an_invalid_schema(target: str) -> None:
    with pytest.raises(RowRejected) as caught:
        check_sample(sample(USER, calls({"a": 1}), tools=(tool({"$ref": target}),)))
    assert caught.value.reason == "invalid_tool_schema"


@pytest.mark.parametrize(
    ("given", "kept", "count"),
    [
        ({"city": "a", "days": None}, {"city": "a"}, 1),
        ({"city": "a", "of_another_tool": None, "x": None}, {"city": "a"}, 2),
        ({"city": "a", "note": None, "unit": None}, {"city": "a", "note": None, "unit": None}, 0),
        ({"city": "a", "place": {"street": "b", "zip": None}}, {"city": "a", "place": {"street": "b"}}, 1),
        (
            {"city": "a", "stops": [{"name": "b", "x": None}, {"name": None}]},
            {"city": "a", "stops": [{"name": "b"}, {}]},
            2,
        ),
        ({"city": "a", "extra": {"any": None}}, {"city": "a", "extra": {"any": None}}, 0),
        ({"city": "a", "of_another_tool": 3}, {"city": "a", "of_another_tool": 3}, 0),
    ],
)
def test_only_nulls_that_the_schema_gives_no_meaning_are_removed(
    given: JsonObject, kept: JsonObject, count: int
) -> None:
    checked = check_sample(sample(USER, calls(given)))
    assert checked.num_repaired_nulls == count
    assert checked.sample.messages[-1].tool_calls[0].function.arguments == kept


def test_nulls_of_undeclared_arguments_stay_where_the_schema_allows_them() -> None:
    open_schema = {"type": "object", "properties": {}, "additionalProperties": {"type": ["string", "null"]}}
    assert check_sample(sample(USER, calls({"a": None}), tools=(tool(open_schema),))).num_repaired_nulls == 0


def test_nulls_that_fill_a_schema_are_removed_and_meaningful_ones_stay() -> None:
    filled = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": None, "default": None}, "of_another_tool": None},
        "required": ["city"],
    }
    checked = check_sample(sample(USER, CALL, tools=(tool(filled),)))
    assert checked.num_repaired_nulls == 2
    assert checked.sample.tools[0].function.parameters["properties"] == {"city": {"type": "string", "default": None}}
