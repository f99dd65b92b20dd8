from functools import partial
from typing import Any

import pytest
from raw_rows import FUNCTION, TOOL, call, rejection

from orchestrator.core.records import JsonObject, Message
from orchestrator.data.formats.langchain import read_langchain

rejected = partial(rejection, read_langchain)
CALL = {"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}
RAW_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}
TURNS: list[tuple[str, JsonObject]] = [
    ("system", {"content": "Be kind."}),
    ("human", {"content": "Weather in Rome?", "example": False}),
    ("ai", {"content": "", "tool_calls": [CALL], "invalid_tool_calls": [], "usage_metadata": None}),
    ("tool", {"content": "9 C", "tool_call_id": "c1", "id": "t", "status": "success", "artifact": None}),
    ("ai", {"content": [{"type": "text", "text": "Mild."}], "additional_kwargs": {}, "response_metadata": {}}),
]
WHOLE = [
    Message(role="system", content="Be kind."),
    Message(role="user", content="Weather in Rome?"),
    Message(role="assistant", tool_calls=(call("Rome", "c1"),)),
    Message(role="tool", content="9 C", tool_call_id="c1"),
    Message(role="assistant", content="Mild."),
]
CLASSES = {"system": "SystemMessage", "human": "HumanMessage", "ai": "AIMessageChunk", "tool": "ToolMessage"}


def flat(kind: str, fields: JsonObject) -> JsonObject:
    return {"type": kind, "name": None, **fields}


def as_dict(kind: str, fields: JsonObject) -> JsonObject:
    return {"type": kind, "data": {"type": kind, **fields}}


def dumped(kind: str, fields: JsonObject) -> JsonObject:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", CLASSES[kind]], "kwargs": fields}


@pytest.mark.parametrize("write", [flat, as_dict, dumped])
def test_messages_are_read_however_they_were_dumped(write: Any) -> None:
    draft = read_langchain({"messages": [write(kind, fields) for kind, fields in TURNS], "tools": [FUNCTION]})
    assert draft.messages == WHOLE
    assert draft.tools == (TOOL,)


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "", "additional_kwargs": {"tool_calls": [RAW_CALL]}},
        {"content": "", "additional_kwargs": {"tool_calls": [RAW_CALL]}, "tool_calls": [CALL]},
        {
            "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}],
            "tool_calls": [CALL],
        },
        {"content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}], "tool_calls": []},
    ],
)
def test_a_call_that_stands_twice_is_one_call(fields: JsonObject) -> None:
    draft = read_langchain({"messages": [flat("human", {"content": "Rome?"}), flat("ai", fields)]})
    assert draft.messages[1] == WHOLE[2]


def test_calls_that_langchain_could_not_read_are_refused() -> None:
    broken = {"content": "", "invalid_tool_calls": [{"name": "weather", "args": "{", "error": "not JSON"}]}
    found = rejected({"messages": [flat("human", {"content": "Rome?"}), flat("ai", broken)]})
    assert (found.reason, found.detail[:6]) == ("call_not_json", "turn 2")


def test_messages_of_openais_form_may_stand_between() -> None:
    turns = [{"role": "user", "content": "Weather in Rome?"}, flat("ai", {"content": "Mild."})]
    assert [message.role for message in read_langchain({"messages": turns}).messages] == ["user", "assistant"]
