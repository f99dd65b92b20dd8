import json
from typing import Any

import pytest

from orchestrator.data.formats.mcp import FORMAT, read_mcp
from orchestrator.data.rejection import Reason, RowRejected

TOOLS: list[dict[str, Any]] = [
    {
        "name": "fs.read_file",
        "title": "Read a file",
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {"path": {"type": "string"}},
            "required": ["path"],
        },
        "outputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
    },
    {"name": "now", "description": "The time.", "inputSchema": {"type": "object"}},
]


def request(name: str = "fs.read_file", identifier: Any = 1, **arguments: Any) -> dict[str, Any]:
    params = {"name": name, **({"arguments": arguments} if arguments else {})}
    return {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}


def response(text: str, identifier: Any = 1, **more: Any) -> dict[str, Any]:
    result = {"content": [{"type": "text", "text": text}], **more}
    return {"jsonrpc": "2.0", "id": identifier, "result": result}


def words(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


ASKED = words("user", "What is in a.txt?")


@pytest.mark.parametrize(
    "tools",
    [
        TOOLS,
        {"tools": TOOLS},
        {"jsonrpc": "2.0", "id": 0, "result": {"tools": TOOLS}},
        json.dumps({"tools": TOOLS}),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_conversation(tools: Any, *, as_text: bool) -> None:
    call, answer = request(path="a.txt"), response("hello")
    turns = [
        words("system", "Be brief."),
        ASKED,
        words("assistant", json.dumps(call) if as_text else call),
        words("tool", json.dumps(answer) if as_text else [answer]),
        words("assistant", "It says hello."),
    ]
    draft = read_mcp({"tools": tools, "messages": turns})
    assert [message.role for message in draft.messages] == ["system", "user", "assistant", "tool", "assistant"]
    (read,) = draft.messages[2].tool_calls
    assert (read.id, read.function.name, read.function.arguments) == ("1", "fs_read_file", {"path": "a.txt"})
    assert (draft.messages[3].tool_call_id, draft.messages[3].name) == ("1", "fs_read_file")
    assert draft.messages[3].content == "hello"
    assert draft.messages[4].content == "It says hello."
    assert draft.original_names == {"fs_read_file": "fs.read_file"}
    assert draft.tools[0].function.parameters == TOOLS[0]["inputSchema"]
    assert [tool.function.description for tool in draft.tools] == ["Read a file", "The time."]


def test_a_session_as_it_went_over_the_wire() -> None:
    session = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "id": 0, "result": {"protocolVersion": "2025-06-18"}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": "list", "method": "tools/list"},
        {"jsonrpc": "2.0", "id": "list", "result": {"tools": TOOLS}},
        request(identifier=1, path="a.txt"),
        request("now", identifier="1"),
        response("12:00", identifier="1"),
        response("hello", identifier=1),
    ]
    row = {"query": "What is in a.txt, and when?", "session": session, "answer": "hello, at noon"}
    draft = read_mcp(row)
    assert [message.role for message in draft.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    calls = draft.messages[1].tool_calls
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        ("fs_read_file", {"path": "a.txt"}),
        ("now", {}),
    ]
    assert [(message.name, message.content) for message in draft.messages[2:4]] == [
        ("now", "12:00"),
        ("fs_read_file", "hello"),
    ]
    assert draft.messages[4].content == "hello, at noon"
    assert row.keys() <= FORMAT.fields


def test_words_before_a_call_and_calls_in_openai_form() -> None:
    call = {"type": "function", "function": {"name": "now", "arguments": "{}"}}
    turns = [ASKED, {"role": "assistant", "content": "Let me look.", "tool_calls": [call]}, words("tool", "12:00")]
    draft = read_mcp({"tools": TOOLS, "messages": [*turns, words("assistant", "Noon.")]})
    assert [message.role for message in draft.messages] == ["user", "assistant", "tool", "assistant"]
    assert draft.messages[1].content == "Let me look."
    assert draft.messages[1].tool_calls[0].function.name == "now"


@pytest.mark.parametrize("field", ["request", "call", "expected"])
@pytest.mark.parametrize("call", [request(path="a"), request(path="a")["params"], json.dumps(request(path="a"))])
def test_a_single_pair(field: str, call: Any) -> None:
    draft = read_mcp({"prompt": "Read a.", "tools": TOOLS, field: call})
    assert [message.content for message in draft.messages] == ["Read a.", ""]
    (read,) = draft.messages[1].tool_calls
    assert (read.function.name, read.function.arguments) == ("fs_read_file", {"path": "a"})


def test_the_row_itself_may_be_the_request() -> None:
    draft = read_mcp({"query": "Read a.", "tools": TOOLS, **request(path="a")})
    assert draft.messages[1].tool_calls[0].function.arguments == {"path": "a"}


def test_a_pair_without_a_call_is_an_answer() -> None:
    draft = read_mcp({"query": "Sing.", "tools": TOOLS, "expected": None, "answer": "I cannot sing."})
    assert draft.messages[1].content == "I cannot sing."


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": [{"type": "text", "text": '{"a": 1}'}], "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"content": [], "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"content": [{"type": "text", "text": "one"}], "structuredContent": {"a": 1}}, 'one\n{"a": 1}'),
        ({"content": [{"type": "text", "text": "no file"}], "isError": True}, '{"error": "no file"}'),
    ],
)
def test_results(result: dict[str, Any], content: str) -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "result": result}
    draft = read_mcp({"tools": TOOLS, "session": [ASKED, request(path="a"), answer, words("assistant", "x")]})
    assert draft.messages[2].content == content


def rpc(method: str, identifier: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": {}}


def test_what_a_client_asks_beside_tools_is_passed_and_both_sides_count_their_ids() -> None:
    lists = ("prompts/list", "resources/list", "resources/templates/list", "roots/list")
    passed = [part for method in lists for part in (rpc(method, 1), {"jsonrpc": "2.0", "id": 1, "result": {}})]
    turns = [*passed, ASKED, request(path="a"), response("x"), rpc("roots/list", 1), words("assistant", "y")]
    messages = read_mcp({"tools": TOOLS, "session": turns}).messages
    assert [(message.role, message.content) for message in messages[1:]] == [
        ("assistant", ""),
        ("tool", "x"),
        ("assistant", "y"),
    ]


def test_a_protocol_error_is_what_the_model_sees() -> None:
    answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "Unknown tool"}}
    draft = read_mcp({"tools": TOOLS, "session": [ASKED, request(path="a"), answer, words("assistant", "x")]})
    assert json.loads(draft.messages[2].content) == {"error": {"code": -32602, "message": "Unknown tool"}}


IMAGE = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "image", "data": "", "mimeType": "image/png"}]}}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([request(path="a") | {"jsonrpc": "1.0"}], Reason.MALFORMED_FIELD),
        ([{"id": 1, "method": "tools/call", "params": {}}], Reason.MALFORMED_FIELD),
        ([request(path="a") | {"id": None}], Reason.MALFORMED_FIELD),
        ([request(path="a") | {"id": True}], Reason.MALFORMED_FIELD),
        ([request(path="a") | {"method": "resources/read"}], Reason.UNSUPPORTED_CONTENT),
        ([request(path="a") | {"method": 5}], Reason.UNSUPPORTED_CONTENT),
        ([request(path="a") | {"result": {}}], Reason.MALFORMED_FIELD),
        ([{"jsonrpc": "2.0", "id": 1}], Reason.MALFORMED_FIELD),
        ([request(path="a") | {"params": [1]}], Reason.MALFORMED_FIELD),
        ([request(path="a") | {"params": {"name": "now", "arguments": "{}"}}], Reason.ARGUMENTS_NOT_OBJECT),
        ([request(path="a") | {"params": {"arguments": {}}}], Reason.MALFORMED_FIELD),
        ([request("fs_read_file", path="a")], Reason.UNKNOWN_TOOL),
        ([request(path="a"), request(path="b")], Reason.MALFORMED_FIELD),
        ([response("x")], Reason.TOOL_RESULT_WITHOUT_CALL),
        ([request(path="a"), response("x"), response("y")], Reason.TOOL_RESULT_WITHOUT_CALL),
        ([request(path="a") | {"method": ["ping"]}], Reason.UNSUPPORTED_CONTENT),
        ([request(path="a"), response("x", identifier="1")], Reason.TOOL_RESULT_WITHOUT_CALL),
        ([request(path="a"), IMAGE], Reason.UNSUPPORTED_CONTENT),
        ([request(path="a"), {"jsonrpc": "2.0", "id": 1, "result": "x"}], Reason.MALFORMED_FIELD),
        ([words("user", request(path="a"))], Reason.MALFORMED_FIELD),
        ([words("tool", request(path="a"))], Reason.MALFORMED_FIELD),
        ([words("assistant", '{"jsonrpc": "2.0", ')], Reason.CALL_NOT_JSON),
        ([words("robot", "x")], Reason.UNKNOWN_ROLE),
        (["x"], Reason.MALFORMED_FIELD),
        ([{"jsonrpc": "2.0", "id": 9, "result": {"tools": TOOLS[:1]}}], Reason.INVALID_TOOL),
    ],
)
def test_rejections_of_sessions(turns: list[Any], reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_mcp({"tools": TOOLS, "session": [ASKED, *turns]})
    assert rejected.value.reason is reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "a", "tools": TOOLS}, Reason.NO_ANSWER),
        ({"query": "a", "call": request("now"), "request": request("now")}, Reason.MALFORMED_FIELD),
        ({"query": "a", "tools": TOOLS, "call": request("now"), "answer": "Noon."}, Reason.CALL_WITHOUT_RESULT),
        ({"query": "a", "tools": TOOLS, "call": {"method": "tools/call", "params": {}}}, Reason.MALFORMED_FIELD),
        ({"query": "a", "tools": TOOLS, "call": request("now") | {"method": "tools/run"}}, Reason.UNSUPPORTED_CONTENT),
        ({"query": "a", "tools": TOOLS, "call": "now()"}, Reason.CALL_NOT_JSON),
        ({"query": "a", "tools": TOOLS, "call": [5]}, Reason.MALFORMED_FIELD),
        ({"tools": TOOLS, "call": request("now")}, Reason.NO_USER_TURN),
        ({"query": "a", "tools": {"tools": 5}, "call": request("now")}, Reason.INVALID_TOOL),
        ({"query": "a", "tools": "{", "call": request("now")}, Reason.TOOLS_NOT_JSON),
        ({"query": "a", "tools": {"jsonrpc": "1.0", "result": {"tools": []}}}, Reason.NO_ANSWER),
        ({"query": "a", "tools": {"jsonrpc": "1.0", "result": {}}, "call": request("now")}, Reason.MALFORMED_FIELD),
        ({"query": "a", "session": [ASKED], "tools": TOOLS}, Reason.MALFORMED_FIELD),
        ({"messages": [ASKED], "session": [ASKED]}, Reason.MALFORMED_FIELD),
        ({"messages": "x"}, Reason.MALFORMED_FIELD),
    ],
)
def test_rejections_of_rows(row: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_mcp(row)
    assert rejected.value.reason is reason
