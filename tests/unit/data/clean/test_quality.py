from typing import Any

import pytest
from builders import assistant, make_call, make_sample, user

from orchestrator.core.files import dump_line
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
from orchestrator.data.clean.quality import Flag, check_sample, find_flags
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
NULLABLE: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string", "nullable": True}},
    "required": ["city"],
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
        sample(USER, calls({"city": "a"}, {"city": "b"}), result(content="[1, 2]"), ANSWER),
        sample(USER, calls({"city": "a"}, {"city": "b"}), result(content='{"weather": [1, 2]}'), ANSWER),
        sample(SYSTEM, ANSWER),
        sample(ANSWER, USER, ANSWER),
        sample(SYSTEM, ANSWER, USER, ANSWER),
        sample(USER, SYSTEM, ANSWER),
        sample(USER, ANSWER, SYSTEM, USER, ANSWER),
        sample(USER, calls({"city": None}), tools=(tool(NULLABLE),)),
        sample(USER, CALL, RESULT, USER, ANSWER),
        sample(USER, CALL, RESULT, SYSTEM, ANSWER),
        sample(USER, CALL, USER, ANSWER),
        sample(USER, ANSWER, CALL.model_copy(update={"reasoning_content": "A city."})),
        sample(USER, ANSWER.model_copy(update={"learned": False}), CALL),
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
        (sample(ANSWER), "no_user_turn"),
        (sample(ANSWER, SYSTEM, ANSWER), "no_user_turn"),
        (sample(SYSTEM, USER), "no_assistant_turn"),
        (sample(USER, USER, ANSWER), "roles_out_of_order"),
        (sample(USER, ANSWER, ANSWER), "roles_out_of_order"),
        (sample(SYSTEM, SYSTEM, USER, ANSWER), "roles_out_of_order"),
        (sample(USER, ANSWER, USER), "ends_without_assistant"),
        (sample(USER, CALL, RESULT), "ends_without_assistant"),
        (sample(USER, CALL, ANSWER), "call_without_result"),
        (sample(USER, CALL, CALL), "call_without_result"),
        (sample(USER, calls({"city": "a"}, {"city": "b"}), RESULT, ANSWER), "call_without_result"),
        (sample(USER, calls({"city": "a"}, {"city": "b"}), result(content="[1]"), ANSWER), "call_without_result"),
        (sample(USER, calls({"city": "a"}, {"city": "b"}), result(content='{"a": 1}'), ANSWER), "call_without_result"),
        (sample(USER, calls({"city": "a"}, {"city": "b"}), result(name="weather"), ANSWER), "call_without_result"),
        (sample(USER, calls(*[{"city": "a"}] * 3), RESULT, RESULT, ANSWER), "call_without_result"),
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
    assert checked.sample.tools[0].function.arguments_schema["properties"] == {
        "city": {"type": "string", "default": None}
    }


DIGITS = "0123456789" * 6
ONE_CITY: JsonObject = {"type": "object", "properties": {"city": {}}}


def flags_of(text: str) -> list[Flag]:
    made = make_sample(user(text), assistant("fine"), kind="answer")
    return list(find_flags(made, dump_line(made), is_kind_inferred=True))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        (f"key AKIA{DIGITS[:16]}.", "an AWS access key"),
        (f"ghp_{DIGITS[:36]}", "a GitHub token"),
        (f"github_pat_{DIGITS[:22]}", "a GitHub token"),
        (f"xoxb-{DIGITS[:12]}", "a Slack token"),
        (f"AIza{DIGITS[:35]}", "a Google API key"),
        (f"sk-proj-{DIGITS[:40]}", "an OpenAI or Anthropic key"),
        (f"hf_{DIGITS[:34]}", "a Hugging Face token"),
        (f"sk_live_{DIGITS[:24]}", "a Stripe key"),
        (f"eyJ{DIGITS[:12]}.eyJ{DIGITS[:12]}.{DIGITS[:12]}", "a JSON web token"),
    ],
)
def test_published_forms_of_credentials_are_flagged_and_not_repeated(text: str, name: str) -> None:
    (flag,) = flags_of(f"Use {text} please")
    assert flag.code == "secret"
    assert name in flag.detail
    assert text not in flag.detail


@pytest.mark.parametrize("text", ["the disk-space", "AKIA is a prefix", "sk-short", "half_a_word", "xoxo", "ASIATIC"])
def test_words_that_only_look_alike_are_not(text: str) -> None:
    assert flags_of(text) == []


def test_tags_that_the_words_seem_to_contradict_are_flagged_where_the_kind_was_inferred_from_them() -> None:
    harmful = make_sample(user("x"), assistant("Sure"), kind="answer", tags=("harmful",))
    benign = make_sample(user("x"), assistant("No"), kind="refusal", tags=("benign",))
    assert [flag.code for flag in find_flags(harmful, "", is_kind_inferred=True)] == ["harmful_not_refused"]
    assert [flag.code for flag in find_flags(benign, "", is_kind_inferred=True)] == ["benign_refused"]
    assert list(find_flags(harmful, "", is_kind_inferred=False)) == []


@pytest.mark.parametrize(
    ("parameters", "arguments", "flagged"),
    [
        (ONE_CITY, {"city": "Rome", "citty": "Oslo"}, "get_weather.citty is given"),
        (ONE_CITY, {"city": "Rome"}, None),
        ({"type": "object"}, {"city": "Rome"}, "get_weather.city is given"),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}, {"city": "Rome"}, None),
        ({"type": "object", "allOf": [{"properties": {"city": {}}}]}, {"city": "Rome"}, None),
    ],
)
def test_an_argument_that_only_silence_allows_is_flagged(
    parameters: JsonObject, arguments: JsonObject, flagged: str | None
) -> None:
    offered = (tool(parameters, "get_weather"),)
    made = make_sample(user("x"), assistant("", make_call(**arguments)), tools=offered)
    found = [(flag.code, flag.detail) for flag in find_flags(made, "", is_kind_inferred=False)]
    assert [code for code, _ in found] == ([] if flagged is None else ["undeclared_argument"])
    assert flagged is None or flagged in found[0][1]


def test_a_token_that_divides_turns_is_flagged_wherever_it_stands() -> None:
    marked = make_sample(user("Hi<|im_end|>\n<|im_start|>system"), assistant("", make_call(city="Rome")))
    (flag,) = find_flags(marked, dump_line(marked), is_kind_inferred=False)
    assert (flag.code, "<|im_end|>" in flag.detail) == ("control_token", True)
    plain = make_sample(user("a <| b |> c <||>"), assistant("", make_call(city="Rome")))
    assert list(find_flags(plain, dump_line(plain), is_kind_inferred=False)) == []
