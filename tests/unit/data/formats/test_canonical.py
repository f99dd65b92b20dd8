import json
import time
from functools import partial

import pytest
from conversation_strategies import arguments, names, schemas, texts
from hypothesis import given
from hypothesis import strategies as st
from raw_rows import FUNCTION, TOOL, call, conversation, rejection

from orchestrator.config.schema import ROW_FORMATS, RowFormat
from orchestrator.core.files import dump_line
from orchestrator.core.records import (
    SAMPLE_KINDS,
    FunctionCall,
    FunctionSpec,
    JsonObject,
    Message,
    Sample,
    ToolCall,
    ToolSpec,
)
from orchestrator.data.formats.canonical import FORMATS, hashes_of, ignored_fields, sample_from_row
from orchestrator.data.formats.common import call_mark

ASK: JsonObject = {"role": "user", "content": "Weather in Rome?"}
REPLY: JsonObject = {"role": "assistant", "content": "Sunny."}


def called(city: str) -> JsonObject:
    function = {"name": "weather", "arguments": {"city": city}}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}


def sample_of(row: JsonObject, row_format: RowFormat = "messages", *, keep_reasoning: bool = True) -> Sample:
    return sample_from_row(row, row_format, source="f:1", keep_reasoning=keep_reasoning).sample


def test_a_row_without_labels_gets_its_id_from_its_content_and_its_kind_from_its_last_turn() -> None:
    canonical = sample_from_row(
        {"messages": [ASK, called("Rome")], "tools": [FUNCTION]}, "messages", source="f:1", keep_reasoning=True
    )
    sample = canonical.sample
    assert sample.messages == (
        Message(role="user", content="Weather in Rome?"),
        Message(role="assistant", tool_calls=(call("Rome"),)),
    )
    assert sample.tools == (TOOL,)
    assert (sample.kind, sample.source, sample.tags) == ("tool_call", "f:1", ())
    assert sample.id == hashes_of(sample).content.hex()[:16]
    assert canonical.is_kind_inferred


def test_a_row_ends_with_its_last_turn_that_is_learned() -> None:
    unlearned = {**REPLY, "weight": 0}
    row = {"messages": [ASK, unlearned, ASK, called("Rome"), {"role": "tool", "content": "9 C"}, unlearned]}
    sample = sample_of({**row, "tools": [FUNCTION]})
    assert [(message.role, message.learned) for message in sample.messages] == [
        ("user", True),
        ("assistant", False),
        ("user", True),
        ("assistant", True),
    ]
    assert sample.kind == "tool_call"
    found = rejection(sample_of, {"messages": [ASK, unlearned]})
    assert (found.reason, found.detail) == (
        "no_assistant_turn",
        "every turn of the assistant is marked as not to be learned",
    )


@pytest.mark.parametrize(
    ("text", "tools", "kind"),
    [
        ("It is sunny in Rome.", [FUNCTION], "answer"),
        ("I'm sorry, but I can't help with that.", [FUNCTION], "refusal"),
        ("Which city do you mean?", [FUNCTION], "clarification"),
        ("Which city do you mean?", [], "answer"),
    ],
)
def test_the_kind_is_inferred_from_the_words_of_the_last_turn(text: str, tools: list[JsonObject], kind: str) -> None:
    assert sample_of({"messages": [ASK, {"role": "assistant", "content": text}], "tools": tools}).kind == kind


@pytest.mark.parametrize(
    ("row", "inferred"),
    [
        ({"messages": [ASK, REPLY]}, True),
        ({"messages": [ASK, {"role": "assistant", "content": "I'm sorry, but I can't help with that."}]}, True),
        ({"messages": [ASK, called("Rome")], "tools": [FUNCTION]}, False),
        ({"messages": [ASK, REPLY], "kind": "answer"}, False),
        ({"messages": [ASK, REPLY], "kind": "answer", "kind_inferred": True}, True),
        ({"messages": [ASK, REPLY], "kind": "answer", "kind_inferred": False}, False),
        ({"messages": [ASK, REPLY], "kind_inferred": "no"}, True),
        ({"question": "Rome?", "answers": {"direct": "Sunny."}, "correct_answer": "direct"}, False),
    ],
)
def test_a_kind_inferred_from_words_is_marked_and_stays_so_when_a_sample_is_read_again(
    row: JsonObject, inferred: bool
) -> None:
    sample = sample_of(row)
    assert sample.kind_inferred == inferred
    assert ("kind_inferred" in json.loads(dump_line(sample))) == inferred
    again = sample_of(json.loads(dump_line(sample)))
    assert again == sample
    assert list(ignored_fields(json.loads(dump_line(sample)), "messages")) == []


def test_the_mark_changes_neither_ids_nor_hashes_and_old_samples_load_without_it() -> None:
    bare, given = sample_of({"messages": [ASK, REPLY]}), sample_of({"messages": [ASK, REPLY], "kind": "answer"})
    assert (bare.id, hashes_of(bare).content) == (given.id, hashes_of(given).content)
    assert bare.id == "5f70d841ad891275"
    old = {key: value for key, value in json.loads(dump_line(bare)).items() if key != "kind_inferred"}
    assert Sample.model_validate(old) == bare.model_copy(update={"kind_inferred": False})


def test_given_kind_id_tags_and_system_are_kept() -> None:
    row = {"messages": [ASK, REPLY], "system": "Be safe.", "kind": "refusal", "id": 7, "tags": ["harmful"]}
    canonical = sample_from_row(row, "messages", source="f:1", keep_reasoning=True)
    sample = canonical.sample
    assert [message.content for message in sample.messages] == ["Be safe.", "Weather in Rome?", "Sunny."]
    assert (sample.kind, sample.id, sample.tags, sample.tools) == ("refusal", "7", ("harmful",), ())
    assert not canonical.is_kind_inferred


def test_the_same_content_has_the_same_id_in_every_spelling() -> None:
    spoken = sample_of(conversation(("human", "Weather in Rome?"), ("gpt", "Sunny.")), "sharegpt")
    assert spoken.id == sample_of({"messages": [ASK, REPLY]}).id
    assert spoken.id != sample_of({"messages": [ASK, REPLY], "tools": [FUNCTION]}).id


@pytest.mark.parametrize(("keep_reasoning", "kept"), [(True, "Hm."), (False, None)])
def test_thoughts_are_kept_or_dropped(keep_reasoning: bool, kept: str | None) -> None:
    row = {"messages": [ASK, {**REPLY, "reasoning_content": "Hm."}]}
    assert sample_of(row, keep_reasoning=keep_reasoning).messages[1] == Message(
        role="assistant", content="Sunny.", reasoning_content=kept
    )


def test_results_are_linked_by_id_and_brought_into_the_order_of_the_calls() -> None:
    calls: list[JsonObject] = [
        {"id": f"c{city}", "function": {"name": name, "arguments": {}}} for city, name in [("1", "a"), ("2", "b")]
    ]
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": {"n": 1}},
    ]
    turns = [ASK, {"role": "assistant", "tool_calls": calls}, *results, REPLY]
    linked = sample_of({"messages": turns}).messages[2:4]
    assert [(result.name, result.tool_call_id, result.content) for result in linked] == [
        ("a", "c1", '{"n": 1}'),
        ("b", "c2", "two"),
    ]


def test_results_are_linked_by_place_only_where_they_are_as_many_as_the_calls() -> None:
    calls: list[JsonObject] = [{"name": name, "arguments": {}} for name in ("a", "b")]
    after = ("gpt", "Done.")
    both = conversation(("human", "Go."), ("function_call", calls), ("observation", "1"), ("observation", "2"), after)
    one = conversation(("human", "Go."), ("function_call", calls), ("observation", "both"), after)
    assert [message.name for message in sample_of(both, "sharegpt").messages[2:4]] == ["a", "b"]
    assert sample_of(one, "sharegpt").messages[2].name is None


def test_empty_tools_and_system_columns_are_absent() -> None:
    sample = sample_of(conversation(("human", "Hi."), ("gpt", "Hello."), tools="", system=""), "sharegpt")
    assert sample.tools == ()
    assert [message.role for message in sample.messages] == ["user", "assistant"]


def test_a_system_text_that_holds_the_tools_is_no_message_as_it_stands() -> None:
    tools = json.dumps(FUNCTION)
    introduction = "You are a helpful assistant with access to the following functions. Use them if required -"
    glaive = sample_of({"system": f"SYSTEM: {introduction} {tools}", "chat": "USER: Hi.\nASSISTANT: Hello."}, "glaive")
    hermes = sample_of(
        conversation(("human", "Hi."), ("gpt", "Hello."), system=f"Be brief. <tools>{tools}</tools>"), "hermes"
    )
    assert [message.role for message in glaive.messages] == ["user", "assistant"]
    assert [message.content for message in hermes.messages] == ["Be brief.", "Hi.", "Hello."]
    assert glaive.tools == hermes.tools == (TOOL,)


def test_every_format_has_a_reader_that_knows_the_common_fields() -> None:
    assert set(FORMATS) == set(ROW_FORMATS)
    assert all({"id", "kind", "tags", "system", "tools"} <= reader.fields for reader in FORMATS.values())


def test_ignored_fields_are_named_once_and_only_where_they_hold_something() -> None:
    turns = [{**ASK, "score": 1, "audio": None}, {**REPLY, "weight": 1, "reasoning_content": "Hm."}]
    row = {"messages": turns, "tools": [], "category": "weather", "split": ""}
    assert list(ignored_fields(row, "messages")) == ["category", "turn.score"]
    spoken = conversation(("human", "Hi."), ("gpt", "Hello."), category="x", history=None)
    assert list(ignored_fields(spoken, "sharegpt")) == ["category"]
    assert list(ignored_fields({"query": "a", "response": "b", "history": [["c", "d"]]}, "sharegpt")) == []


@pytest.mark.parametrize(
    ("row", "row_format", "reason"),
    [
        ({"messages": []}, "messages", "empty_conversation"),
        ({"messages": [ASK]}, "messages", "no_assistant_turn"),
        (conversation(), "sharegpt", "empty_conversation"),
        (conversation(("human", "Hi.")), "sharegpt", "no_assistant_turn"),
        ({"messages": [ASK, REPLY], "kind": "chat"}, "messages", "unknown_kind"),
        ({"messages": [ASK, REPLY], "kind": ["answer"]}, "messages", "unknown_kind"),
        ({"messages": [ASK, REPLY], "id": ["a"]}, "messages", "malformed_field"),
        ({"messages": [ASK, REPLY], "id": True}, "messages", "malformed_field"),
        ({"messages": [ASK, REPLY], "tags": "harmful"}, "messages", "malformed_field"),
        ({"messages": [ASK, REPLY], "tags": [1]}, "messages", "malformed_field"),
        ({"messages": [ASK, REPLY], "system": [{"type": "image"}]}, "messages", "malformed_field"),
    ],
)
def test_malformed_rows_are_rejected_with_their_reason(row: JsonObject, row_format: RowFormat, reason: str) -> None:
    assert rejection(partial(sample_of, row_format=row_format), row).reason == reason


calls = st.builds(ToolCall, id=st.none() | names, function=st.builds(FunctionCall, name=names, arguments=arguments))
spoken = st.builds(Message, role=st.sampled_from(["system", "user"]), content=texts)
asked = st.builds(
    Message,
    role=st.just("assistant"),
    content=texts.filter(lambda text: call_mark(text) is None),
    reasoning_content=st.none() | st.just("Hm."),
    tool_calls=st.lists(calls, min_size=1, max_size=3).map(tuple),
)
tools = st.builds(ToolSpec, function=st.builds(FunctionSpec, name=names, description=texts, parameters=schemas))
samples = st.builds(
    Sample,
    id=names,
    messages=st.tuples(spoken, asked, spoken, st.builds(Message, role=st.just("assistant"), content=st.just("So."))),
    tools=st.lists(tools, max_size=2).map(tuple),
    kind=st.sampled_from(SAMPLE_KINDS),
    source=names,
    tags=st.lists(texts, max_size=2, unique=True).map(tuple),
)


@given(samples)
def test_a_canonical_sample_reads_back_as_itself(sample: Sample) -> None:
    row = json.loads(dump_line(sample))
    assert sample_from_row(row, "messages", source=sample.source, keep_reasoning=True).sample == sample


def test_results_in_another_order_are_brought_into_that_of_the_calls_of_their_name() -> None:
    calls = [{"id": name[0], "function": {"name": name, "arguments": {}}} for name in ("alpha", "beta", "alpha")]
    results = [{"role": "tool", "name": name, "content": text} for name, text in (("beta", "2"), ("alpha", "1"))]
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": calls}, *results]
    row = {"messages": [*turns, {"role": "assistant", "content": "done"}]}
    messages = sample_of(row).messages
    assert [(message.tool_call_id, message.content) for message in messages[2:4]] == [("a", "1"), ("b", "2")]


def test_many_results_are_linked_at_once() -> None:
    calls = [{"function": {"name": "ping", "arguments": {}}} for _ in range(20_000)]
    results = [{"role": "tool", "content": "pong"} for _ in range(20_000)]
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": calls}, *results]
    row = {"messages": [*turns, {"role": "assistant", "content": "done"}]}
    started = time.process_time()
    messages = sample_from_row(row, "messages", source="f:1", keep_reasoning=False).sample.messages
    assert all(message.name == "ping" for message in messages[2:-1])
    assert time.process_time() - started < 10


def test_samples_that_differ_in_the_ids_of_calls_alone_are_equal() -> None:
    def sample(id: str) -> Sample:
        call = {"id": id, "function": {"name": "ping", "arguments": ""}}
        result = {"role": "tool", "tool_call_id": id, "content": "pong"}
        turns = [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}, result]
        row = {"messages": [*turns, {"role": "assistant", "content": "done"}]}
        return sample_from_row(row, "messages", source="f:1", keep_reasoning=False).sample

    assert sample("a").messages[1].tool_calls[0].function.arguments == {}
    assert hashes_of(sample("a")).content == hashes_of(sample("b")).content
