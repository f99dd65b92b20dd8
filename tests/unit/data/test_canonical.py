import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.canonical import content_hash, ignored_fields, sample_from_messages, sample_from_sharegpt
from orchestrator.data.rejection import RowRejected
from orchestrator.jsonl import dump_line
from orchestrator.records import (
    SAMPLE_KINDS,
    FunctionCall,
    FunctionSpec,
    JsonObject,
    Message,
    Sample,
    ToolCall,
    ToolSpec,
)

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather in a city", "parameters": PARAMETERS}
TOOL = ToolSpec(function=FunctionSpec(**FUNCTION))
ASK: JsonObject = {"role": "user", "content": "Weather in Rome?"}


def called(arguments: Any, **fields: Any) -> JsonObject:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "weather", "arguments": arguments}}],
        **fields,
    }


def call(city: str, call_id: str | None = None) -> ToolCall:
    return ToolCall(id=call_id, function=FunctionCall(name="weather", arguments={"city": city}))


def conversation(*turns: tuple[str, Any], **fields: Any) -> JsonObject:
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns], **fields}


@pytest.mark.parametrize("tools", [[FUNCTION], [{"type": "function", "function": FUNCTION}]])
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city": "Rome"}'])
def test_messages_in_all_their_spellings_give_one_sample(
    tools: list[JsonObject], as_text: bool, arguments: Any
) -> None:
    row = {"messages": [ASK, called(arguments)], "tools": json.dumps(tools) if as_text else tools}
    sample = sample_from_messages(row, source="f:1")
    assert sample.messages == (
        Message(role="user", content="Weather in Rome?"),
        Message(role="assistant", tool_calls=(call("Rome"),)),
    )
    assert sample.tools == (TOOL,)
    assert (sample.kind, sample.source, sample.tags) == ("tool_call", "f:1", ())
    assert sample.id == content_hash(sample)[:16]


def test_a_bare_call_and_a_schema_as_text_are_read() -> None:
    tools = [{"name": "weather", "description": "The weather in a city", "parameters": json.dumps(PARAMETERS)}]
    turn = {"role": "assistant", "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}
    sample = sample_from_messages({"messages": [ASK, turn], "tools": tools}, source="f:1")
    assert sample.messages[1].tool_calls == (call("Rome"),)
    assert sample.tools == (TOOL,)


def test_given_kind_id_tags_and_system_are_kept() -> None:
    turns = [
        ASK,
        {"role": "assistant", "content": [{"type": "text", "text": "I "}, {"type": "text", "text": "won't."}]},
    ]
    row = {"messages": turns, "system": "Be safe.", "kind": "refusal", "id": 7, "tags": ["harmful"], "tools": None}
    sample = sample_from_messages(row, source="f:1")
    assert [message.content for message in sample.messages] == ["Be safe.", "Weather in Rome?", "I won't."]
    assert (sample.kind, sample.id, sample.tags, sample.tools) == ("refusal", "7", ("harmful",), ())


def test_the_developer_role_is_the_system_role() -> None:
    turns = [{"role": "developer", "content": "Be brief."}, ASK, {"role": "assistant", "content": "Sunny."}]
    assert sample_from_messages({"messages": turns}, source="f:1").messages[0].role == "system"


def test_results_are_linked_by_id_in_any_order() -> None:
    calls: list[JsonObject] = [
        {"id": f"c{city}", "function": {"name": name, "arguments": {}}} for city, name in [("1", "a"), ("2", "b")]
    ]
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": {"n": 1}},
    ]
    turns = [ASK, {"role": "assistant", "tool_calls": calls}, *results, {"role": "assistant", "content": "Done."}]
    linked = sample_from_messages({"messages": turns}, source="f:1").messages[2:4]
    assert [(result.name, result.tool_call_id, result.content) for result in linked] == [
        ("b", "c2", "two"),
        ("a", "c1", '{"n": 1}'),
    ]


def test_results_are_linked_by_place_only_where_they_are_as_many_as_the_calls() -> None:
    calls: list[JsonObject] = [{"name": name, "arguments": {}} for name in ("a", "b")]
    after = ("gpt", "Done.")
    both = conversation(("human", "Go."), ("function_call", calls), ("observation", "1"), ("observation", "2"), after)
    one = conversation(("human", "Go."), ("function_call", calls), ("observation", "both"), after)
    assert [m.name for m in sample_from_sharegpt(both, source="f:1").messages[2:4]] == ["a", "b"]
    assert sample_from_sharegpt(one, source="f:1").messages[2].name is None


def test_sharegpt_calls_become_one_assistant_message() -> None:
    row = conversation(
        ("human", "Weather in Rome and Oslo?"),
        ("gpt", "I will look."),
        ("function_call", json.dumps({"name": "weather", "arguments": {"city": "Rome"}})),
        ("tool_call", json.dumps([{"name": "weather", "arguments": '{"city": "Oslo"}'}])),
        ("observation", "sun"),
        ("tool_response", {"sky": "snow"}),
        ("gpt", "Sun and snow."),
        tools=json.dumps([FUNCTION]),
        system="Be brief.",
    )
    sample = sample_from_sharegpt(row, source="f:1")
    assert sample.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Weather in Rome and Oslo?"),
        Message(role="assistant", content="I will look.", tool_calls=(call("Rome"), call("Oslo"))),
        Message(role="tool", content="sun", name="weather"),
        Message(role="tool", content='{"sky": "snow"}', name="weather"),
        Message(role="assistant", content="Sun and snow."),
    )
    assert sample.tools == (TOOL,)
    assert sample.kind == "answer"


def test_empty_tools_and_system_columns_are_absent() -> None:
    sample = sample_from_sharegpt(conversation(("human", "Hi."), ("gpt", "Hello."), tools="", system=""), source="f:1")
    assert sample.tools == ()
    assert [message.role for message in sample.messages] == ["user", "assistant"]


def test_ignored_fields_are_named_once_and_only_where_they_hold_something() -> None:
    turns = [
        {**ASK, "weight": 1, "audio": None},
        {"role": "assistant", "content": "Sunny.", "weight": 0, "reasoning_content": "Hm."},
    ]
    row = {"messages": turns, "tools": [], "category": "weather", "split": ""}
    assert list(ignored_fields(row)) == ["category", "turn.reasoning_content", "turn.weight"]


REPLY: JsonObject = {"role": "assistant", "content": "Sunny."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "empty_conversation"),
        ({"messages": [ASK]}, "no_assistant_turn"),
        ({"messages": ["hello", REPLY]}, "malformed_field"),
        ({"messages": [{"content": "no role"}, REPLY]}, "unknown_role"),
        ({"messages": [{"role": "function", "content": "x"}, REPLY]}, "unknown_role"),
        ({"messages": [{"role": ["user"], "content": "x"}, REPLY]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": 3}, REPLY]}, "malformed_field"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]}, "unsupported_content"),
        ({"messages": [ASK, {"role": "assistant", "function_call": {"name": "f"}}]}, "unsupported_content"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": {"name": "f"}}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": ["f"]}]}, "malformed_field"),
        (
            {"messages": [ASK, {"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]},
            "malformed_field",
        ),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"function": None}]}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "unsupported_content"),
        ({"messages": [{**ASK, "tool_calls": [{"name": "f", "arguments": {}}]}, REPLY]}, "malformed_field"),
        ({"messages": [ASK, called("{'city': 'Rome'}")]}, "arguments_not_json"),
        ({"messages": [ASK, called("")]}, "arguments_not_json"),
        ({"messages": [ASK, called('{"city": NaN}')]}, "arguments_not_json"),
        ({"messages": [ASK, called('{"city": "a", "city": "b"}')]}, "arguments_not_json"),
        ({"messages": [ASK, called('{"city": "\\ud800"}')]}, "arguments_not_json"),
        ({"messages": [ASK, called("[" * 9000)]}, "arguments_not_json"),
        ({"messages": [ASK, called('["Rome"]')]}, "arguments_not_object"),
        ({"messages": [ASK, called(None)]}, "arguments_not_object"),
        ({"messages": [ASK, called('"{}"')]}, "arguments_not_object"),
        ({"messages": [{**ASK, "name": 3}, REPLY]}, "malformed_field"),
        ({"messages": [ASK, REPLY], "tools": "[{"}, "tools_not_json"),
        ({"messages": [ASK, REPLY], "tools": '[{"name": "a", "name": "b"}]'}, "tools_not_json"),
        ({"messages": [ASK, REPLY], "tools": {"name": "weather"}}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [3]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"description": "x"}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"name": ""}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"type": "web_search"}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "description": ["x"]}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "parameters": []}]}, "invalid_tool_schema"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "parameters": "{"}]}, "tools_not_json"),
        ({"messages": [ASK, REPLY], "functions": [FUNCTION]}, "unsupported_content"),
        ({"messages": [ASK, REPLY], "kind": "chat"}, "unknown_kind"),
        ({"messages": [ASK, REPLY], "kind": ["answer"]}, "unknown_kind"),
        ({"messages": [ASK, REPLY], "id": ["a"]}, "malformed_field"),
        ({"messages": [ASK, REPLY], "id": True}, "malformed_field"),
        ({"messages": [ASK, REPLY], "tags": "harmful"}, "malformed_field"),
        ({"messages": [ASK, REPLY], "tags": [1]}, "malformed_field"),
        ({"messages": [ASK, REPLY], "system": ["x"]}, "malformed_field"),
    ],
)
def test_malformed_messages_rows_are_rejected_with_their_reason(row: JsonObject, reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        sample_from_messages(row, source="f:1")
    assert caught.value.reason == reason
    assert caught.value.detail


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (conversation(), "empty_conversation"),
        (conversation(("human", "Hi.")), "no_assistant_turn"),
        (conversation(("human", "Hi."), ("bing", "Hello.")), "unknown_role"),
        (conversation(("human", {"a": 1}), ("gpt", "Hello.")), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", "weather(city='Rome')")), "call_not_json"),
        (conversation(("human", "Hi."), ("function_call", '{"name": "f", "arguments": {"a": NaN}}')), "call_not_json"),
        (conversation(("human", "Hi."), ("function_call", "[]")), "empty_turn"),
        (conversation(("human", "Hi."), ("function_call", None)), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", '"f"')), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", '{"arguments": {}}')), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", '{"name": "f"}')), "arguments_not_object"),
        (conversation(("human", "Hi."), ("function_call", '{"name": "f", "arguments": "{"}')), "arguments_not_json"),
        (conversation(("human", "Hi."), ("gpt", "Hello."), tools="{"), "tools_not_json"),
        ({"conversations": [{"value": "Hi."}]}, "unknown_role"),
        ({"conversations": [None]}, "malformed_field"),
    ],
)
def test_malformed_sharegpt_rows_are_rejected_with_their_reason(row: JsonObject, reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        sample_from_sharegpt(row, source="f:1")
    assert caught.value.reason == reason
    assert caught.value.detail


# Surrogates cannot be written as UTF-8; the reader refuses them before this point.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text("abc_.-é", min_size=1, max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, json_values, max_size=3)
calls = st.builds(ToolCall, id=st.none() | names, function=st.builds(FunctionCall, name=names, arguments=arguments))
spoken = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts)
asked = st.builds(
    Message, role=st.just("assistant"), content=texts, tool_calls=st.lists(calls, min_size=1, max_size=3).map(tuple)
)
tools = st.builds(ToolSpec, function=st.builds(FunctionSpec, name=names, description=texts, parameters=arguments))
samples = st.builds(
    Sample,
    id=names,
    messages=st.tuples(spoken, asked, st.builds(Message, role=st.just("assistant"), content=texts)),
    tools=st.lists(tools, max_size=2).map(tuple),
    kind=st.sampled_from(SAMPLE_KINDS),
    source=names,
    tags=st.lists(texts, max_size=2).map(tuple),
)


@given(samples)
def test_a_canonical_sample_reads_back_as_itself(sample: Sample) -> None:
    assert sample_from_messages(json.loads(dump_line(sample)), source=sample.source) == sample


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (["Oslo", "Bergen"], '["Oslo", "Bergen"]'),
        ([], "[]"),
        ([{"type": "text", "text": "Os"}, {"type": "text", "text": "lo"}], "Oslo"),
        ({"city": "Oslo"}, '{"city": "Oslo"}'),
    ],
)
def test_what_a_tool_answers_is_kept_as_it_is(answer: Any, text: str) -> None:
    result = {"role": "tool", "content": answer}
    turns = [ASK, called({"city": "Oslo"}), result, {"role": "assistant", "content": "Cold."}]
    row = {"messages": turns, "tools": [FUNCTION]}
    assert sample_from_messages(row, source="f:1").messages[2].content == text


def test_a_call_written_as_text_is_rejected() -> None:
    text = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
    row = {"messages": [ASK, {"role": "assistant", "content": text}], "tools": [FUNCTION]}
    with pytest.raises(RowRejected) as rejected:
        sample_from_messages(row, source="f:1")
    assert rejected.value.reason == "call_in_text"
