import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.schema import ROW_FORMATS
from orchestrator.core.records import JsonObject
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.rejection import RowRejected

FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CALL = {"name": "weather", "arguments": {"city": "Rome"}}
TAGGED = f"<tool_call>{json.dumps(CALL)}</tool_call>"
REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}


def said(*turns: tuple[str, Any], speaker: str = "from", text: str = "value") -> list[JsonObject]:
    return [{speaker: who, text: what} for who, what in turns]


def chat(*turns: tuple[str, Any]) -> list[JsonObject]:
    return said(*turns, speaker="role", text="content")


HI = [("user", "Hi."), ("assistant", "Hello.")]
HUMAN_HI = [("human", "Hi."), ("gpt", "Hello.")]

DETECTED: list[tuple[JsonObject, str, str]] = [
    ({"messages": chat(*HI)}, "messages", "the turns have `role`"),
    ({"messages": json.dumps(chat(*HI)), "conversations": None}, "messages", "the turns have `role`"),
    ({"conversations": chat(*HI)}, "messages", "the turns have `role`"),
    (
        {"messages": [{"role": "assistant", "content": TAGGED, "tool_calls": [CALL]}]},
        "messages",
        "the turns have `role`",
    ),
    ({"messages": chat(*HI), "tools": [{"name": "f", "inputSchema": {}}]}, "messages", "the turns have `role`"),
    ({"messages": []}, "messages", "`messages` is empty"),
    ({"conversations": []}, "sharegpt", "`conversations` is empty"),
    ({"conversations": said(*HUMAN_HI)}, "sharegpt", "the turns have `from`"),
    ({"messages": said(*HUMAN_HI), "conversations": None}, "sharegpt", "the turns have `from`"),
    ({"conversations": said(("human", "Hi."), ("function_call", "{}"))}, "sharegpt", "a turn is a function_call"),
    ({"messages": chat(("user", "Hi."), ("tool_call", "{}"))}, "sharegpt", "a turn is a tool_call"),
    (
        {"messages": chat(("user", "Hi."), ("tool_response", "{}"))},
        "sharegpt",
        "the turns have `role`, one of them tool_response",
    ),
    ({"conversations": said(*HI, speaker="role")}, "sharegpt", "the turns have `role` and `value`"),
    (
        {"conversation": [{"human": "Hi.", "assistant": "Hello."}]},
        "sharegpt",
        "the turns are pairs of `human` and `assistant`",
    ),
    ({"query": "a", "response": "b", "history": []}, "sharegpt", "the row has `query`, `response` and `history`"),
    ({"conversations": said(("human", "Hi."), ("gpt", TAGGED))}, "hermes", "the assistant's text has <tool_call>"),
    ({"messages": chat(("user", "Hi."), ("assistant", TAGGED))}, "hermes", "the assistant's text has <tool_call>"),
    (
        {"conversations": said(("system", f"<tools>[{json.dumps(FUNCTION)}]</tools>"), *HUMAN_HI)},
        "hermes",
        "the system text has <tools>",
    ),
    (
        {"system": "<tools>{}</tools>", "conversations": said(*HUMAN_HI)},
        "hermes",
        "the system text has <tools>",
    ),
    ({"conversations": said(*HI, speaker="role", text="text")}, "sharegpt", "the turns have `role` and `text`"),
    (
        {"messages": said(("user", "Hi."), ("assistant", TAGGED), speaker="role", text="text")},
        "hermes",
        "the assistant's text has <tool_call>",
    ),
    ({"conversations": said(("human", "Hi."), ("function-call", "{}"))}, "glaive", "a turn is a function-call"),
    (
        {"conversations": said(("human", "Hi."), ("gpt", "<functioncall> {}"))},
        "glaive",
        "the assistant's text has <functioncall>",
    ),
    (
        {"messages": chat(("user", "Hi."), ("assistant", "Yes. <functioncall> {}"))},
        "glaive",
        "the assistant's text has <functioncall>",
    ),
    (
        {"question": "Rome?", "correct_answer": "direct", "answers": {"direct": "Sunny."}, "tools": []},
        "messages",
        "the row has `question`, `answers` and `correct_answer`",
    ),
    ({"query": "Rome?", "answers": "[]", "tools": "[]"}, "xlam", "the row has `query` and `answers`"),
    (
        {
            "system": "Tools: [{}]",
            "conversations": said(("user", "Rome?"), ("assistant", '[Get Weather(city="Rome")]')),
        },
        "toolace",
        "the assistant calls like [name(argument=value)]",
    ),
    (
        {"system": "You are an expert in composing functions.", "conversations": said(*HI)},
        "toolace",
        "the system text asks for calls like [name(argument=value)]",
    ),
    ({"system": "", "chat": "\nUSER: Hi\nASSISTANT: Hello"}, "glaive", "`chat` is a text with USER: and ASSISTANT:"),
    ({"session": []}, "mcp", "the row has `session`"),
    ({"jsonrpc": "2.0", "method": "tools/call", "prompt": "Rome?"}, "mcp", "the row has `jsonrpc`"),
    ({"query": "Rome?", "tools": [FUNCTION], "request": REQUEST}, "mcp", "`request` is a call"),
    ({"query": "Rome?", "tools": [FUNCTION], "expected": json.dumps(REQUEST)}, "mcp", "`expected` is a call"),
    ({"method": "tools/call", "params": CALL, "prompt": "Rome?"}, "mcp", "`method` is tools/call"),
    ({"messages": chat(("user", "Rome?"), ("assistant", REQUEST))}, "mcp", "the turns hold JSON-RPC"),
    ({"messages": chat(("user", "Rome?"), ("assistant", json.dumps(REQUEST)))}, "mcp", "the turns hold JSON-RPC"),
    ({"messages": [*chat(("user", "Rome?")), REQUEST]}, "mcp", "the turns hold JSON-RPC"),
    ({"messages": chat(*HI), "tools": {"tools": []}}, "mcp", "`tools` is a tools/list result"),
    (
        {"query": "Rome?", "answer": "Sunny.", "tools": [{"name": "f", "inputSchema": {}}]},
        "mcp",
        "the tools have `inputSchema`",
    ),
    ({"input": "Rome?", "tool": "weather", "arguments": {}}, "tool_pairs", "the row has `tool` and `arguments`"),
    (
        {"instruction": "Rome?", "output": '{"tool": "weather", "arguments": {}}'},
        "tool_pairs",
        "`output` is a pair of tool and arguments",
    ),
    ({"input": "Hi.", "tool": None, "output": "Hello."}, "tool_pairs", "the row has `tool`"),
    ({"id": "simple_0", "question": [[]], "function": [FUNCTION]}, "bfcl", "the row has `question` and `function`"),
    ({"instruction": "Hi.", "input": "", "output": "Hello."}, "instruction", "the row has `instruction` and `output`"),
    ({"prompt": "Hi.", "completion": "Hello."}, "instruction", "the row has `prompt` and `completion`"),
    ({"query": "Hi.", "response": "Hello."}, "instruction", "the row has `query` and `response`"),
    (
        {"messages": chat(*HI)[:1], "rejected": "No.", "chosen": "Hello."},
        "messages",
        "the turns have `role`",
    ),
    ({"messages": chat(*HI), "toolConfig": {"tools": []}}, "bedrock", "the row has `toolConfig`"),
    (
        {"messages": chat(("user", [{"text": "Hi.", "toolUse": None}]))},
        "bedrock",
        "the turns have blocks of `text` without a `type`",
    ),
    ({"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}, "gemini", "`contents` has turns of `parts`"),
    (
        {"messages": json.dumps([{"type": "human", "content": "Hi."}])},
        "langchain",
        "the turns are messages of LangChain",
    ),
    (
        {
            "messages": [
                *chat(("user", "Hi.")),
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            ]
        },
        "responses",
        "`messages` has items of type function_call",
    ),
    (
        {"input": "Hi.", "output": [{"type": "message", "role": "assistant", "content": []}]},
        "responses",
        "`output` has items of the Responses API",
    ),
    (
        {"request": {"messages": chat(*HI)[:1]}, "response": {"choices": []}},
        "api_log",
        "`request` and `response` hold a request and its response",
    ),
]


@pytest.mark.parametrize(("row", "name", "why"), DETECTED)
def test_the_format_is_told_with_what_told_it(row: JsonObject, name: str, why: str) -> None:
    assert detect_format(row) == (name, why)


def test_every_format_can_be_detected() -> None:
    assert {name for _, name, _ in DETECTED} == set(ROW_FORMATS)


def test_json_rpc_that_a_tool_answered_with_is_no_mcp_row() -> None:
    answer = json.dumps({"jsonrpc": "2.0", "result": {}})
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    turns = [*chat(("user", "Rome?")), calling, *chat(("tool", answer), ("assistant", "Sunny."))]
    assert detect_format({"messages": turns}).format == "messages"


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ({}, "unknown_format", "the row has the keys (none), which no format has; name the columns"),
        ({"text": "hello"}, "unknown_format", "the row has the keys text, which no format has; name the columns"),
        (
            {"trajectory": "x", "tools": []},
            "unknown_format",
            "which no format has; name the columns of turns",
        ),
        ({"request": "x", "response": "y"}, "unknown_format", "which no format has; name the columns"),
        ({"message": []}, "unknown_format", "the row has the keys message; the nearest format is messages"),
        ({"query": "a", "tools": "[]"}, "unknown_format", "xlam, with `query` and `answers` and `tools`"),
        ({"questions": "a", "functions": []}, "unknown_format", "bfcl, with `question` and `function`"),
        ({"chat": "Hi", "system": ""}, "unknown_format", "glaive"),
        ({"messages": [], "conversations": []}, "unknown_format", "both `messages` and `conversations`"),
        ({"messages": ["hello"]}, "unknown_format", 'a turn is "hello"'),
        ({"messages": [{"speaker": "user"}]}, "unknown_format", "keys: speaker"),
        ({"messages": "hello"}, "malformed_field", "`messages` is not JSON"),
        ({"messages": {"role": "user"}}, "malformed_field", "`messages` is not a list"),
    ],
)
def test_a_row_of_no_known_format_is_rejected(row: JsonObject, reason: str, detail: str) -> None:
    with pytest.raises(RowRejected) as caught:
        detect_format(row)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


@pytest.mark.parametrize("piece", ["<tool_call>", "USER:", "[", "<tools>", "[a(", '{"tool"', "\n", "[ "])
def test_a_long_hostile_row_is_decided_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    rows: list[JsonObject] = [
        {"conversations": said(("system", text), ("user", text), ("assistant", text))},
        {"chat": text},
        {"input": text, "output": text},
        {"messages": text},
        {text: 1, **{f"{number}{piece}": 1 for number in range(2000)}},
    ]
    begin = time.process_time()
    for row in rows:
        try:
            detect_format(row)
        except RowRejected:
            continue
    assert time.process_time() - begin < 1


@pytest.mark.skipif("ORCHESTRATOR_PUBLIC_DATA" not in os.environ, reason="ORCHESTRATOR_PUBLIC_DATA names no folder")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("glaive_toolcall_en_demo.json", "sharegpt"),
        ("reason_tool_use_demo_50.jsonl", "messages"),
        ("bfcl_multiple.jsonl", "bfcl"),
        ("bfcl_irrelevance.jsonl", "bfcl"),
    ],
)
def test_the_public_files_are_told(name: str, expected: str) -> None:
    text = (Path(os.environ["ORCHESTRATOR_PUBLIC_DATA"]) / name).read_text(encoding="utf-8")
    rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]
    assert {detect_format(row).format for row in rows} == {expected}
