"""Whatever a row holds, it becomes a sample or is rejected with a reason; nothing else is raised."""

import json
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from orchestrator.config.schema import ROW_FORMATS, RowFormat
from orchestrator.core.files import dump_line, parse_line
from orchestrator.core.records import JsonObject, Sample
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.formats.canonical import hashes_of, ignored_fields, sample_from_row
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.rejection import RowRejected


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The usual value, or any other JSON in its place."""
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, "", "x", "{", "{}", "[]", '{"a": 1, "a": 2}', 0, -1.5, True, [], {}, [[]], [None], {"a": None}]
    )
    return st.integers(0, 19).flatmap(lambda number: odd if number == 0 else usual)


schemas = st.fixed_dictionaries(
    {"type": mostly(st.just("object"))},
    optional={
        "properties": mostly(
            st.fixed_dictionaries({"a": mostly(st.sampled_from([{"type": "string"}, {"$ref": "#"}]))})
        ),
        "required": mostly(st.just(["a"])),
        "$ref": mostly(st.sampled_from(["#", "#/x", "http://["])),
        "$schema": mostly(st.just("http://json-schema.org/draft-03/schema#")),
    },
)
functions = st.fixed_dictionaries({"name": mostly(st.just("f")), "parameters": mostly(schemas)})
tools = st.lists(
    mostly(functions | functions.map(lambda function: {"type": "function", "function": function})), max_size=2
)
calls = st.fixed_dictionaries(
    {"name": mostly(st.just("f")), "arguments": mostly(st.sampled_from([{}, {"a": "x"}, {"a": None}, '{"a": "x"}']))},
    optional={"id": mostly(st.just("c1")), "type": mostly(st.just("function"))},
)
messages = st.fixed_dictionaries(
    {"role": mostly(st.sampled_from(["system", "user", "assistant", "tool"])), "content": mostly(st.just("text"))},
    optional={"tool_calls": mostly(st.lists(mostly(calls), max_size=2)), "tool_call_id": mostly(st.just("c1"))},
)
turns = st.fixed_dictionaries(
    {
        "from": mostly(st.sampled_from(["human", "gpt", "function_call", "observation", "system"])),
        "value": mostly(st.just("text") | calls | st.lists(calls, max_size=2)),
    }
)
ASKED: JsonObject = {"role": "user", "content": "go"}
rows = st.fixed_dictionaries(
    {"messages": mostly(st.tuples(st.just(ASKED), messages).map(list) | st.lists(mostly(messages), max_size=5))},
    optional={
        "tools": mostly(tools),
        "kind": mostly(st.just("answer")),
        "id": mostly(st.just("i")),
        "tags": mostly(st.just(["t"])),
    },
) | st.fixed_dictionaries(
    {"conversations": mostly(st.lists(mostly(turns), max_size=5))},
    optional={"tools": mostly(tools), "system": mostly(st.just("s"))},
)


calling = st.builds(
    lambda call, function: {"messages": [ASKED, {"role": "assistant", "tool_calls": [call]}], "tools": [function]},
    calls,
    functions,
)


FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
CALL = {"name": "f", "arguments": {"a": "x"}}
TOOLS_JSON, CALL_JSON = json.dumps([FUNCTION]), json.dumps(CALL)
GOOD_ROWS: dict[RowFormat, JsonObject] = {
    "messages": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "value": "go"}]},
            {
                "role": "assistant",
                "content": [{"type": "reasoning", "value": "h"}, {"type": "tool_use", "value": CALL}],
            },
            {"role": "tool", "content": json.dumps([{"tool_call_id": "1", "name": "f", "content": "r"}])},
            {"role": "assistant", "content": "<think>a</think>b", "refusal": None},
        ],
        "functions": [FUNCTION],
    },
    "sharegpt": {
        "messages": [{"role": "user", "content": "go"}, {"role": "tool_call", "content": CALL_JSON}],
        "tools": TOOLS_JSON,
    },
    "hermes": {
        "conversations": [
            {"from": "system", "value": f"Be kind. <tools>{TOOLS_JSON}</tools>"},
            {"from": "human", "value": "go"},
            {"from": "gpt", "value": f"<think>a</think> b <tool_call>{CALL}</tool_call>"},
            {"from": "tool", "value": '<tool_response>{"name": "f", "content": 1}</tool_response>'},
            {"from": "gpt", "value": f"<tool_call>{CALL_JSON}</tool_call>"},
        ]
    },
    "xlam": {"query": "go", "answers": json.dumps([CALL]), "tools": TOOLS_JSON},
    "toolace": {
        "system": f"Here is a list of functions in JSON format that you can invoke:\n{TOOLS_JSON}\nGo.",
        "conversations": [{"from": "user", "value": "go"}, {"from": "assistant", "value": '[f(a="x")]'}],
    },
    "glaive": {
        "system": "You are a helpful assistant with access to the following functions. Use them if required - "
        + json.dumps(FUNCTION),
        "chat": 'USER: go\nASSISTANT: <functioncall> {"name": "f", "arguments": \'{"a": "x"}\'} <|endoftext|>',
    },
    "mcp": {
        "query": "go",
        "tools": {"tools": [{"name": "f", "inputSchema": FUNCTION["parameters"]}]},
        "request": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL},
    },
    "tool_pairs": {"input": "go", "tool": "f", "arguments": {"a": "x"}, "tools": [FUNCTION]},
    "bfcl": {
        "id": "b",
        "question": [[{"role": "user", "content": "go"}]],
        "function": [FUNCTION],
        "ground_truth": [{"f": {"a": ["x"]}}],
    },
    "instruction": {"instruction": "go", "input": "", "output": CALL_JSON, "tools": TOOLS_JSON},
    "api_log": {
        "request": {"body": {"messages": [{"role": "user", "content": "go"}], "tools": [FUNCTION]}},
        "response": {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "tool_calls": [CALL]}}]},
    },
    "bedrock": {
        "system": [{"text": "s"}],
        "messages": [
            {"role": "user", "content": [{"text": "go"}]},
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "h"}}},
                    {"text": "a"},
                    {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": "x"}}},
                ],
            },
            {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"json": {"b": 1}}]}}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "u", "name": "f", "input": {}}}]},
        ],
        "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": FUNCTION["parameters"]}}}]},
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "go"}]},
            {"role": "model", "parts": [{"text": "h", "thought": True}, {"functionCall": {"name": "f", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"b": 1}}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": "x"}}}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}],
    },
    "langchain": {
        "messages": [
            {"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {"content": "go"}},
            {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"a": "x"}, "id": "c"}]},
            {"type": "tool", "data": {"content": "r", "tool_call_id": "c"}},
            {
                "type": "ai",
                "content": "b",
                "additional_kwargs": {"reasoning_content": "h", "function_call": {"name": "f", "arguments": "{}"}},
            },
        ],
        "tools": [FUNCTION],
    },
    "responses": {
        "instructions": "s",
        "input": [
            {"role": "user", "content": "go"},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "h"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": "x"}'},
            {"type": "function_call_output", "call_id": "c", "output": "r"},
        ],
        "output": [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
            {"type": "function_call", "call_id": "d", "name": "f", "arguments": "{}"},
        ],
        "tools": [{"type": "function", **FUNCTION}],
    },
}
PIECES = ("", "<tool_call>", "</tool_call>", "<tools>", "<think>", "USER:", "\nASSISTANT:", *"'\"{]\\,\0")


@st.composite
def damaged(draw: st.DrawFn, value: Any) -> Any:
    """A value with one part of it exchanged, left out, doubled, or, in a text, cut out or put in."""
    children = [key for key, _ in _items(value)]
    if isinstance(value, str) and value and draw(st.booleans()):
        start, end = sorted((draw(st.integers(0, len(value))), draw(st.integers(0, len(value)))))
        return value[:start] + draw(st.sampled_from(PIECES)) + value[min(end, start + draw(st.integers(0, 8))) :]
    if not children or draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from([None, "", "x", 0, 1.5, True, [], {}, [None], {"a": None}, [[]], "[]", "{}"]))
    place = draw(st.sampled_from(children))
    changed = dict(value) if isinstance(value, dict) else list(value)
    action = draw(st.sampled_from(["change", "change", "change", "drop", "double"]))
    if action == "drop":
        del changed[place]
    elif action == "double" and isinstance(changed, list):
        changed.insert(place, changed[place])
    else:
        changed[place] = draw(damaged(value[place]))
    return changed


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def converted(row: JsonObject, row_format: RowFormat | None) -> Sample:
    """What becomes of a row; the format is detected where None is given."""
    known = row_format or detect_format(row).format
    sample = sample_from_row(row, known, source="f:1", keep_reasoning=True).sample
    checked = check_sample(sample).sample
    list(ignored_fields(row, known))
    return checked


@pytest.mark.parametrize("row_format", ROW_FORMATS)
def test_the_rows_to_damage_are_good_ones(row_format: RowFormat) -> None:
    assert detect_format(GOOD_ROWS[row_format]).format == row_format
    assert converted(GOOD_ROWS[row_format], None).kind == ("answer" if row_format == "messages" else "tool_call")


@settings(max_examples=600)
@given(st.data(), st.sampled_from(ROW_FORMATS), st.booleans())
def test_a_damaged_row_becomes_a_sample_or_is_rejected(
    data: st.DataObject, row_format: RowFormat, is_detected: bool
) -> None:
    row = data.draw(damaged(GOOD_ROWS[row_format]))
    if not isinstance(row, dict):
        return
    try:
        checked = converted(row, None if is_detected else row_format)
    except RowRejected as found:
        event(f"{row_format}: rejected")
        detail = found.detail
    else:
        event(f"{row_format}: sample")
        detail = "-"
        assert parse_line(dump_line(checked), Sample, where="f:1") == checked
    assert 0 < len(detail) < 1000


@settings(max_examples=400)
@given(rows | calling)
def test_any_row_becomes_a_sample_that_can_be_written_or_is_rejected(row: JsonObject) -> None:
    try:
        checked = converted(row, None)
    except RowRejected as rejected:
        event(rejected.reason)
    else:
        event("sample")
        again = parse_line(dump_line(checked), Sample, where="f:1")
        assert again == checked
        assert hashes_of(again).content == hashes_of(checked).content
        assert check_sample(again) == (checked, 0)
