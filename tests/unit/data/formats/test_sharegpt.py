import json
import os
import time
from pathlib import Path

import pytest
from conversation_strategies import conversations, tool_lists
from hypothesis import given
from hypothesis import strategies as st
from raw_rows import FUNCTION, TOOL, call, conversation, rejection

from orchestrator.chat.formats.reply import THINK_TAGS
from orchestrator.core.records import JsonObject, Message, ToolSpec
from orchestrator.data.formats.sharegpt import read_sharegpt
from orchestrator.data.rejection import RowRejected


def test_calls_become_one_assistant_message() -> None:
    row = conversation(
        ("system", "Be brief."),
        ("human", "Weather in Rome and Oslo?"),
        ("gpt", "I will look."),
        ("function_call", json.dumps({"name": "weather", "arguments": {"city": "Rome"}})),
        ("tool_call", json.dumps([{"name": "weather", "arguments": '{"city": "Oslo"}'}])),
        ("observation", "sun"),
        ("tool_response", {"sky": "snow"}),
        ("gpt", "Sun and snow."),
        tools=json.dumps([FUNCTION]),
    )
    draft = read_sharegpt(row)
    assert draft.messages == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Weather in Rome and Oslo?"),
        Message(role="assistant", content="I will look.", tool_calls=(call("Rome"), call("Oslo"))),
        Message(role="tool", content="sun"),
        Message(role="tool", content='{"sky": "snow"}'),
        Message(role="assistant", content="Sun and snow."),
    ]
    assert draft.tools == (TOOL,)


def test_a_turn_may_keep_its_words_as_text() -> None:
    turns = [{"role": "user", "text": "Hi."}, {"role": "assistant", "text": "Hello.", "value": None}]
    assert [message.content for message in read_sharegpt({"messages": turns}).messages] == ["Hi.", "Hello."]


@pytest.mark.parametrize("turn", [("gpt", "Hello."), ("function_call", '{"name": "weather", "arguments": {}}')])
def test_a_turn_is_learned_unless_it_says_otherwise(turn: tuple[str, str]) -> None:
    row = conversation(("human", "Hi."), turn)
    row["conversations"][1]["loss"] = False
    assert [message.learned for message in read_sharegpt(row).messages] == [True, False]


def test_a_row_with_images_is_refused() -> None:
    with pytest.raises(RowRejected, match="the row has `images`"):
        read_sharegpt(conversation(("human", "<image> What is it?"), ("gpt", "A cat."), images=["a.png"]))


@pytest.mark.parametrize(
    ("user", "calls", "result", "assistant"),
    [
        ("human", "function_call", "observation", "gpt"),
        ("user", "tool_call", "tool_response", "assistant"),
        ("user", "tool_call", "tool", "assistant"),
        ("human", "function_call", "function_response", "chatgpt"),
        ("user", "tool_calls", "function", "model"),
    ],
)
@pytest.mark.parametrize(("speaker", "said"), [("from", "value"), ("role", "content"), ("role", "value")])
@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
def test_all_dialects_give_one_draft(
    user: str, calls: str, result: str, assistant: str, speaker: str, said: str, name: str
) -> None:
    written = json.dumps({"name": "weather", "arguments": {"city": "Rome"}})
    turns = [(user, "Rome?"), (calls, written), (result, '{"sky": "sun"}'), (assistant, "Sunny.")]
    row = {name: [{speaker: who, said: what} for who, what in turns], "tools": [json.dumps(FUNCTION)]}
    draft = read_sharegpt(row)
    assert draft.messages == [
        Message(role="user", content="Rome?"),
        Message(role="assistant", tool_calls=(call("Rome"),)),
        Message(role="tool", content='{"sky": "sun"}'),
        Message(role="assistant", content="Sunny."),
    ]
    assert draft.tools == (TOOL,)


@pytest.mark.parametrize(
    "row",
    [
        {"query": "And Oslo?", "response": "Snow.", "history": [["Rome?", "Sunny."]]},
        {"conversation": [{"human": "Rome?", "assistant": "Sunny."}, {"human": "And Oslo?", "assistant": "Snow."}]},
    ],
)
def test_questions_and_answers_of_ms_swift_are_turns(row: JsonObject) -> None:
    messages = read_sharegpt(row).messages
    assert [message.role for message in messages] == ["user", "assistant"] * 2
    assert [message.content for message in messages] == ["Rome?", "Sunny.", "And Oslo?", "Snow."]


@pytest.mark.parametrize(("opening", "closing"), THINK_TAGS)
def test_thoughts_before_a_call_or_a_text_are_reasoning(opening: str, closing: str) -> None:
    written = f'{opening}\nI need the weather.\n{closing}\n\n{{"name": "weather", "arguments": {{"city": "Rome"}}}}'
    row = conversation(("human", "Rome?"), ("function_call", written), ("gpt", f"{opening}Nice.{closing}Sunny."))
    assert read_sharegpt(row).messages[1:] == [
        Message(role="assistant", reasoning_content="I need the weather.", tool_calls=(call("Rome"),)),
        Message(role="assistant", content="Sunny.", reasoning_content="Nice."),
    ]


def test_calls_in_a_field_of_a_turn_are_not_lost() -> None:
    row = conversation(("human", "Rome?"), ("gpt", "I will look."))
    row["conversations"][1]["tool_calls"] = [{"name": "weather", "arguments": {"city": "Rome"}}]
    message = read_sharegpt(row).messages[1]
    assert message == Message(role="assistant", content="I will look.", tool_calls=(call("Rome"),))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (conversation(("human", "Hi."), ("bing", "Hello.")), "unknown_role"),
        (conversation(("human", {"a": 1}), ("gpt", "Hello.")), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", "weather(city='Rome')")), "call_not_json"),
        (conversation(("human", "Hi."), ("function_call", '{"name": "f", "arguments": {"a": NaN}}')), "call_not_json"),
        (conversation(("human", "Hi."), ("function_call", "[]")), "empty_turn"),
        (conversation(("human", "Hi."), ("function_call", None)), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", '"f"')), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", '{"arguments": {}}')), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", '{"name": "f", "kwargs": {}}')), "arguments_not_object"),
        (conversation(("human", "Hi."), ("function_call", '{"name": "f", "arguments": "{"}')), "arguments_not_json"),
        (conversation(("human", "Hi."), ("gpt", '<tool_call>{"name": "f"}</tool_call>')), "call_in_text"),
        (conversation(("human", "Hi."), ("gpt", "Hello."), tools="{"), "tools_not_json"),
        ({"conversations": [{"value": "Hi."}]}, "unknown_role"),
        ({"conversations": [None]}, "malformed_field"),
        ({"conversations": [{"from": "human", "value": "a", "content": "b"}]}, "malformed_field"),
        ({"conversations": [{"from": "tool_call", "value": "{}", "reasoning": "Hm."}]}, "malformed_field"),
        ({"query": "a", "response": "b", "history": ["c"]}, "malformed_field"),
        ({"query": "a"}, "unknown_format"),
    ],
)
def test_malformed_rows_are_rejected_with_their_reason(row: JsonObject, reason: str) -> None:
    assert rejection(read_sharegpt, row).reason == reason


def as_turns(message: Message, *, is_swift: bool) -> list[tuple[str, str]]:
    """A message in the dialect of ms-swift or of LLaMA-Factory."""
    if message.role == "tool":
        return [("tool_response" if is_swift else "observation", message.content)]
    if message.role != "assistant":
        return [("human" if message.role == "user" and not is_swift else message.role, message.content)]
    thoughts = f"<think>{message.reasoning_content}</think>" if message.reasoning_content else ""
    said = [("assistant" if is_swift else "gpt", thoughts + message.content)] if message.content else []
    calls = [json.dumps(called.function.model_dump(mode="json")) for called in message.tool_calls]
    if calls and not said:
        calls[0] = thoughts + calls[0]
    return said + [("tool_call" if is_swift else "function_call", written) for written in calls]


@given(conversations(), tool_lists, st.booleans())
def test_a_conversation_reads_back_as_itself(messages: list[Message], tools: list[ToolSpec], is_swift: bool) -> None:
    turns = [turn for message in messages for turn in as_turns(message, is_swift=is_swift)]
    speaker, said = ("role", "content") if is_swift else ("from", "value")
    listed = json.dumps([tool.model_dump(mode="json") for tool in tools])
    row = {"conversations": [{speaker: who, said: what} for who, what in turns], "tools": listed}
    draft = read_sharegpt(row)
    assert draft.messages == messages
    assert draft.tools == tuple(tools)


@pytest.mark.parametrize("piece", ["<think>", "[", '{"name":', "</think>"])
def test_a_long_hostile_call_is_decided_at_once(piece: str) -> None:
    row = conversation(("human", "Hi."), ("function_call", piece * (1_000_000 // len(piece))))
    begin = time.process_time()
    with pytest.raises(RowRejected):
        read_sharegpt(row)
    assert time.process_time() - begin < 1


@pytest.mark.skipif("ORCHESTRATOR_PUBLIC_DATA" not in os.environ, reason="ORCHESTRATOR_PUBLIC_DATA names no folder")
def test_the_public_glaive_rows_are_all_read_with_their_calls() -> None:
    path = Path(os.environ["ORCHESTRATOR_PUBLIC_DATA"]) / "glaive_toolcall_en_demo.json"
    drafts = [read_sharegpt(row) for row in json.loads(path.read_text(encoding="utf-8"))]
    assert len(drafts) == 300
    assert sum(len(message.tool_calls) for draft in drafts for message in draft.messages) == 211
    assert sum(not draft.tools for draft in drafts) == 109
