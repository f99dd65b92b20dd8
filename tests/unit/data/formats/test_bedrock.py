from functools import partial
from typing import Any

import pytest
from raw_rows import FUNCTION, TOOL, call, rejection

from orchestrator.core.records import JsonObject, Message
from orchestrator.data.formats.bedrock import read_bedrock

rejected = partial(rejection, read_bedrock)
SPEC = {"toolSpec": {**FUNCTION, "parameters": None, "inputSchema": {"json": FUNCTION["parameters"]}}}
CONFIG = {"tools": [SPEC, {"cachePoint": {"type": "default"}}], "toolChoice": {"auto": {}}}


def turn(role: str, *blocks: Any) -> JsonObject:
    return {"role": role, "content": list(blocks)}


def use(city: str, name: str = "t1") -> JsonObject:
    return {"toolUse": {"toolUseId": name, "name": "weather", "input": {"city": city}}}


def result(*content: Any, name: str = "t1") -> JsonObject:
    return {"toolResult": {"toolUseId": name, "content": list(content), "status": "success"}}


TEXTS = ({"text": "a"}, {"text": "b"})
ASK = turn("user", {"text": "Weather in Rome?"})


def test_a_conversation_with_calls_results_and_thoughts() -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "x"}}}
    filled = {"text": "One moment.", "toolUse": None, "toolResult": None, "image": None}
    row = {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": "Be kind."}, {"cachePoint": {"type": "default"}}],
        "messages": [
            ASK,
            turn("assistant", thought, filled, use("Rome"), use("Oslo", "t2")),
            turn(
                "user", result({"json": {"sky": 1}}), result({"text": "a"}, {"text": "b"}, name="t2"), {"text": "So?"}
            ),
            turn("assistant", {"text": "Sunny."}),
        ],
        "toolConfig": CONFIG,
    }
    draft = read_bedrock(row)
    assert draft.tools == (TOOL,)
    assert draft.messages == [
        Message(role="system", content="Be kind."),
        Message(role="user", content="Weather in Rome?"),
        Message(
            role="assistant",
            content="One moment.",
            reasoning_content="Hm.",
            tool_calls=(call("Rome", "t1"), call("Oslo", "t2")),
        ),
        Message(role="tool", content='{"sky": 1}', tool_call_id="t1"),
        Message(role="tool", content="a\nb", tool_call_id="t2"),
        Message(role="user", content="So?"),
        Message(role="assistant", content="Sunny."),
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([turn("user", {"image": {"format": "png"}}), turn("assistant", {"text": "A cat."})], "unsupported_content"),
        ([ASK, turn("assistant", {"toolUse": {"toolUseId": "t"}})], "unsupported_content"),
        ([ASK, turn("assistant", use("Rome")), turn("user", result({"image": {}}))], "unsupported_content"),
        ([ASK, turn("critic", {"text": "x"})], "unknown_role"),
        (["x"], "malformed_field"),
    ],
)
def test_what_is_no_text_or_call_is_refused(turns: list[Any], reason: str) -> None:
    assert rejected({"messages": turns, "toolConfig": CONFIG}).reason == reason


def test_a_row_without_tools_and_one_with_broken_ones() -> None:
    row = {"messages": [ASK, turn("assistant", {"text": "Sunny."})]}
    assert read_bedrock(row).tools == ()
    assert rejected({**row, "toolConfig": {"tools": 3}}).reason == "invalid_tool"
    assert rejected({**row, "toolConfig": "{"}).reason == "tools_not_json"
