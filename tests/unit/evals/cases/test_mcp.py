"""Lists of MCP tools with expected calls as cases."""

import json
from typing import Any

import pytest

from evals.cases.rows import cases_from_mcp_row, is_mcp_case
from orchestrator.core.records import FunctionCall, JsonObject, ToolCall
from orchestrator.data.rejection import RowRejected

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
TOOLS = {"tools": [{"name": "read_file", "description": "Reads.", "inputSchema": SCHEMA}]}
PARAMS: JsonObject = {"name": "read_file", "arguments": {"path": "a.txt"}}
REQUEST: JsonObject = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": PARAMS}
ASKED = [{"role": "user", "content": "Read a.txt"}]
CONVERSATION = [*ASKED, {"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "The first."}]


def called(call: ToolCall) -> FunctionCall:
    return call.function


@pytest.mark.parametrize("expected", [PARAMS, [PARAMS], REQUEST, [REQUEST], json.dumps([REQUEST])])
@pytest.mark.parametrize("asked", [{"prompt": "Read a.txt"}, {"messages": ASKED}, {"session": ASKED}])
def test_the_expected_call_is_the_reply(asked: JsonObject, expected: Any) -> None:
    (case,) = cases_from_mcp_row({"id": "m1", "tools": TOOLS, "expected": expected, **asked}, source="f:1")
    assert (case.id, case.kind, case.tags) == ("m1", "tool_call", ())
    assert [message.content for message in case.messages] == ["Read a.txt"]
    assert [called(call) for call in case.expected_calls] == [
        FunctionCall(name="read_file", arguments={"path": "a.txt"})
    ]
    assert [(tool.function.name, tool.function.parameters) for tool in case.tools] == [("read_file", SCHEMA)]


@pytest.mark.parametrize("asked", [{"prompt": "Write a.txt"}, {"messages": ASKED}, {"messages": CONVERSATION}])
@pytest.mark.parametrize("expected", [[], "[]"])
def test_an_empty_list_expects_no_call(asked: JsonObject, expected: Any) -> None:
    case = cases_from_mcp_row({"id": "m1", "tools": TOOLS, "expected": expected, **asked}, source="f:1")[-1]
    assert (case.id, case.kind, case.tags) == ("m1", "answer", ("no_fitting_tool", "no_call_suffices"))
    assert (case.expected_calls, case.expected_text, case.kind_inferred) == ((), "", False)


def test_earlier_turns_are_cases_too_unless_only_the_last_is_wanted() -> None:
    row = {"id": "m1", "tools": TOOLS, "messages": CONVERSATION, "expected": PARAMS}
    cases = cases_from_mcp_row(row, source="f:1")
    assert [(case.id, case.kind) for case in cases] == [("m1#0", "answer"), ("m1", "tool_call")]
    assert [case.id for case in cases_from_mcp_row(row, source="f:1", turns="last")] == ["m1"]


@pytest.mark.parametrize(
    ("expected", "detail"),
    [
        ({"name": "write_file", "arguments": {}}, "write_file"),
        ({"name": "read_file", "arguments": {"path": 3}}, "read_file.path"),
        ("{", "`expected` is not JSON"),
        (None, "holds a reply"),
    ],
)
def test_a_call_that_no_tool_takes_is_refused(expected: Any, detail: str) -> None:
    with pytest.raises(RowRejected) as refusal:
        cases_from_mcp_row({"id": "m1", "tools": TOOLS, "prompt": "Read a.txt", "expected": expected}, source="f:1")
    assert detail in refusal.value.detail


def test_a_row_is_told_by_tools_and_what_is_expected() -> None:
    assert is_mcp_case({"tools": TOOLS, "expected": []})
    assert not is_mcp_case({"tools": TOOLS})
    assert not is_mcp_case({"expected": []})
