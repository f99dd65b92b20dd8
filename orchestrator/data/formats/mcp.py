"""Model Context Protocol: tools from `tools/list`, calls as `tools/call` requests of JSON-RPC 2.0.

Three kinds of rows are read; `tools` is a list of tools, a `tools/list` result or the whole response:

1. A conversation, `{"tools": ..., "messages": [...]}`. A turn with a `role` holds text or JSON-RPC (an object, a list
   of them or their JSON text) as its `content`: requests in an assistant's turn, responses in a tool's turn.
2. A session, `{"session": [...]}`, or a conversation whose turns are JSON-RPC messages as they went over the wire,
   with turns of text between them. The request of the user is such a turn or a text field of the row (as in
   `instruction`), the last words of the assistant are a turn or the row's `answer`. Tools may come from a
   `tools/list` response inside. What says nothing of a conversation is passed: the handshake, pings, notifications,
   lists of prompts and resources (`PASSED_METHODS`).
3. A single pair: a text field and the call in `request`, `call` or `expected`, as a request or as its `params`.
   The row itself may be the request. Without a call, `answer` is what the assistant says.

Of a tool, `inputSchema` becomes its parameters and `title` stands in for a missing description; its output schema and
annotations have no place in a sample. Of a result, its text is kept, and its `structuredContent` where the text does
not say the same. An error, in the protocol or with `isError`, becomes `{"error": ...}` as JSON.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from orchestrator.core.records import JsonObject, Message, Role, ToolCall
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    ROLES,
    Draft,
    Format,
    read_content,
    read_role,
    short,
    text_field,
    with_calls,
)
from orchestrator.data.formats.instruction import MATERIALS, REQUESTS, asked
from orchestrator.data.formats.loose_schema import OfferedTools, offered_call, offered_tools, read_tools
from orchestrator.data.formats.turn_lists import learned_of
from orchestrator.data.read.json_files import MCP_TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely, parse

PASSED_METHODS = frozenset(
    {"initialize", "ping", "logging/setLevel", "completion/complete", "server/discover"}
    | {"roots/list", "tools/list", "prompts/list", "resources/list", "resources/templates/list"}
    | {"resources/subscribe", "resources/unsubscribe"}
)
"""Requests whose answers no model reads. Prompts and resources that are fetched it may have read: those are refused."""

CALLS = ("request", "call", "expected")

RequestId = tuple[str, str | int]
"""The type and value of a JSON-RPC id: 1 and "1" are two ids."""


class _Words(NamedTuple):
    """A turn of text."""

    role: Role
    text: str
    learned: bool = True


class _Call(NamedTuple):
    """A `tools/call` request; `key` is None for a call without an envelope."""

    key: RequestId | None
    params: Any
    where: str
    learned: bool = True


class _Result(NamedTuple):
    """What a tool answered; `key` is None for an answer without an envelope."""

    key: RequestId | None
    text: str


class _Listed(NamedTuple):
    """The tools of one `tools/list` result."""

    tools: list[Any]


Event = _Words | _Call | _Result | _Listed


def read_mcp(row: JsonObject) -> Draft:
    """The conversation of an MCP row, of one of the three kinds in the module's docstring."""
    events = list(_events(row))
    listed = [tool for event in events if isinstance(event, _Listed) for tool in event.tools]
    given = _tool_list(row.get("tools"))
    if given is not None and listed and given != listed:
        raise RowRejected(Reason.INVALID_TOOL, "`tools` and the tools/list result in the session differ")
    tools = [_with_description(tool) for tool in (listed if given is None else given)]
    offered = offered_tools(read_tools({"tools": tools}))
    return Draft(messages=_messages(events, offered), tools=offered.specs, original_names=offered.original_names)


def _tool_list(given: Any) -> list[Any] | None:
    """The tools in a list, in a tools/list result, in its response, or in the JSON text of one of these."""
    if isinstance(given, str) and given.strip():
        given = parse_or_reject(given, Reason.TOOLS_NOT_JSON, "`tools` is")
    if given is None or given == "":
        return None
    if isinstance(given, dict) and "jsonrpc" in given:
        _check_version(given, "`tools`")
        given = given.get("result")
    tools = given.get("tools") if isinstance(given, dict) else given
    if not isinstance(tools, list):
        raise RowRejected(Reason.INVALID_TOOL, f"`tools` is {short(given)}, neither a list nor a tools/list result")
    return tools


def _with_description(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("description") or not isinstance(tool.get("title"), str):
        return tool
    return {**tool, "description": tool["title"]}


def _events(row: JsonObject) -> Iterator[Event]:
    named = [name for name in MCP_TURN_LISTS if row.get(name) is not None]
    if len(named) > 1:
        raise RowRejected(Reason.MALFORMED_FIELD, f"the row has both {' and '.join(named)}")
    if not named:
        yield _Words("user", asked(row))
        yield from _single_reply(row)
        return
    turns = row[named[0]]
    if not isinstance(turns, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{named[0]}` is {short(turns)}, not a list")
    inside = list(_Session().read(turns))
    if any(row.get(name) for name in (*REQUESTS, *MATERIALS)):
        if any(isinstance(event, _Words) and event.role == "user" for event in inside):
            raise RowRejected(Reason.MALFORMED_FIELD, "the row and its turns both hold words of the user")
        yield _Words("user", asked(row))
    yield from inside
    if row.get("answer"):
        yield _Words("assistant", read_content(row["answer"], "assistant", "`answer`"))


def _single_reply(row: JsonObject) -> Iterator[Event]:
    given = [row[name] for name in CALLS if row.get(name)]
    given += [row] if "jsonrpc" in row or "method" in row else []
    if len(given) > 1:
        raise RowRejected(Reason.MALFORMED_FIELD, "the row gives its call twice")
    if not given:
        if not row.get("answer"):
            raise RowRejected(Reason.NO_ANSWER, f"none of {', '.join((*CALLS, 'answer'))} holds a reply")
        yield _Words("assistant", read_content(row["answer"], "assistant", "`answer`"))
        return
    if row.get("answer"):
        raise RowRejected(Reason.CALL_WITHOUT_RESULT, "the row has an `answer` after a call without a result")
    calls = _parsed(given[0], "the call")
    for number, call in enumerate(calls if isinstance(calls, list) else [calls], start=1):
        where = f"call {number}"
        if isinstance(call, dict) and not {"jsonrpc", "method", "params"} & call.keys():
            yield _Call(None, call, where)  # the params alone
        else:
            yield _request(call, where)


def _parsed(value: Any, where: str) -> Any:
    return parse_or_reject(value, Reason.CALL_NOT_JSON, f"{where} is") if isinstance(value, str) else value


def _request(message: Any, where: str) -> _Call:
    _check_version(message, where)
    if message.get("method") != "tools/call":
        detail = f"{where}: the method is {short(message.get('method'))}, not tools/call"
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    return _Call(_key(message, where), message.get("params"), where)


def _check_version(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is {short(message)}, not a JSON-RPC message")
    if message.get("jsonrpc") != "2.0":
        raise RowRejected(Reason.MALFORMED_FIELD, f'{where}: `jsonrpc` is {short(message.get("jsonrpc"))}, not "2.0"')


def _key(message: JsonObject, where: str) -> RequestId:
    identifier = message.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: `id` is {short(identifier)}, neither text nor an integer")
    return type(identifier).__name__, identifier


class _Session:
    """Reads turns in order and remembers the requests that wait for their answer."""

    def __init__(self) -> None:
        self.methods: dict[RequestId, str] = {}

    def read(self, turns: list[Any]) -> Iterator[Event]:
        for number, turn in enumerate(turns, start=1):
            where = f"turn {number}"
            if isinstance(turn, dict) and "role" in turn:
                learned = turn["role"] != "assistant" or learned_of(turn, where)
                for event in self.spoken(turn, where):
                    yield event._replace(learned=learned) if isinstance(event, _Words | _Call) else event
            else:
                yield from self.message(turn, where)

    def spoken(self, turn: JsonObject, where: str) -> Iterator[Event]:
        role = read_role(text_field(turn, "role", where), ROLES, tuple(ROLES), where)
        content = turn.get("content")
        calls = turn.get("tool_calls") or []
        if not isinstance(calls, list) or (calls and role != "assistant"):
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a {role} turn has `tool_calls`, or they are no list")
        inside = _rpc_inside(content, where)
        if inside is not None and role not in ("assistant", "tool"):
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a {role} turn holds a JSON-RPC message")
        for message in inside or []:
            if isinstance(message, dict) and ("method" in message) != (role == "assistant"):
                detail = f"{where}: not what a turn of {role} can hold: {short(message)}"
                raise RowRejected(Reason.MALFORMED_FIELD, detail)
            yield from self.message(message, where)
        if inside is None and role == "tool":
            yield _Result(None, read_content(content, role, where))
        elif inside is None and (content or not calls):
            yield _Words(role, read_content(content, role, where))
        for call in calls:
            if isinstance(call, dict) and "jsonrpc" in call:
                yield from self.message(call, where)
            else:
                yield _Call(None, call, where)

    def message(self, message: Any, where: str) -> Iterator[Event]:
        """The event in one JSON-RPC message; none for the handshake, pings and notifications."""
        _check_version(message, where)
        parts = [part for part in ("method", "result", "error") if part in message]
        if len(parts) != 1:
            one = "a JSON-RPC message has one of method, result and error"
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: {one}, not {' and '.join(parts) or 'none'}")
        if parts[0] != "method":
            yield from self.response(message, where)
        elif message["method"] == "tools/call":
            self.remember(message, where)
            yield _request(message, where)
        elif isinstance(message["method"], str) and message["method"] in PASSED_METHODS:
            self.remember(message, where)
        elif not str(message["method"]).startswith("notifications/"):
            raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where}: the method {short(message['method'])}")

    def remember(self, message: JsonObject, where: str) -> None:
        key = _key(message, where)
        if key in self.methods:
            detail = f"{where}: an earlier request with the id {short(key[1])} has no answer yet"
            raise RowRejected(Reason.MALFORMED_FIELD, detail)
        self.methods[key] = message["method"]

    def response(self, message: JsonObject, where: str) -> Iterator[Event]:
        key = _key(message, where)
        result = message.get("result")
        lists_tools = isinstance(result, dict) and isinstance(result.get("tools"), list)
        # Freed by its answer: both sides count their own requests, so that an id may come twice.
        method = self.methods.pop(key, "tools/list" if lists_tools else None)
        if method is None:
            detail = f"{where}: no request that waits for an answer has the id {short(key[1])}"
            raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, detail)
        if method == "tools/call":
            yield _Result(key, _result_text(message, where))
        elif method == "tools/list" and "result" in message:
            yield _Listed(_tool_list(message["result"]) or [])


def _rpc_inside(content: Any, where: str) -> list[Any] | None:
    """The JSON-RPC messages that a turn's content is; None for content of another kind."""
    if isinstance(content, str):
        if content.lstrip()[:1] not in ("{", "[") or '"jsonrpc"' not in content:
            return None
        content = _parsed(content, f"{where}: the JSON-RPC message")
    if isinstance(content, dict) and {"jsonrpc", "method"} & content.keys():
        return [content]
    is_batch = isinstance(content, list) and bool(content) and all(isinstance(part, dict) for part in content)
    return content if is_batch and any("jsonrpc" in part for part in content) else None


def _result_text(message: JsonObject, where: str) -> str:
    if "error" in message:
        return dump_loosely({"error": message["error"]})
    result = message["result"]
    parts = result.get("content") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(parts or [], list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: {short(result)} is no result of tools/call")
    text = _joined(parts or [], where)
    structured = result.get("structuredContent")
    if structured is not None and not _says(text, structured):
        text = "\n".join(part for part in (text, dump_loosely(structured)) if part)
    return dump_loosely({"error": text}) if result.get("isError") is True else text


def _joined(parts: list[Any], where: str) -> str:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where} has the part {short(part)}; only text is read")
    return "\n".join(part["text"] for part in parts)


def _says(text: str, structured: Any) -> bool:
    try:
        return bool(parse(text) == structured)
    except StrictJsonError:
        return False


def _messages(events: list[Event], offered: OfferedTools) -> list[Message]:
    messages: list[Message] = []
    names: dict[RequestId, str] = {}
    for event in events:
        if isinstance(event, _Words):
            messages.append(Message(role=event.role, content=event.text, learned=event.learned))
        elif isinstance(event, _Call):
            call = _tool_call(event, offered)
            if event.key is not None:
                names[event.key] = call.function.name
            said = Message(role="assistant", tool_calls=(call,), learned=event.learned)
            messages[-1:] = with_calls(messages[-1:], said)
        elif isinstance(event, _Result):
            link = {} if event.key is None else {"tool_call_id": str(event.key[1]), "name": names[event.key]}
            messages.append(Message(role="tool", content=event.text, **link))
    return messages


def _tool_call(event: _Call, offered: OfferedTools) -> ToolCall:
    if event.key is None:
        return offered_call(event.params, offered, event.where)
    params = event.params
    if not isinstance(params, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{event.where}: `params` is {short(params)}, not an object")
    arguments = params.get("arguments", {})
    if not isinstance(arguments, dict):
        detail = f"{event.where}: the arguments are {short(arguments)}, not an object"
        raise RowRejected(Reason.ARGUMENTS_NOT_OBJECT, detail)
    call = offered_call({"name": params.get("name"), "arguments": arguments}, offered, event.where)
    return call.model_copy(update={"id": str(event.key[1])})


def why_tools(row: JsonObject) -> str | None:
    """Why a row's tools can only be those of MCP: a result or response of tools/list, or tools with `inputSchema`."""
    tools = row.get("tools")
    if isinstance(tools, dict) and ("jsonrpc" in tools or "tools" in tools):
        return "`tools` is a tools/list result"
    if isinstance(tools, list) and any(isinstance(tool, dict) and "inputSchema" in tool for tool in tools):
        return "the tools have `inputSchema`"
    return None


def is_rpc(value: Any) -> bool:
    """Whether a value is a JSON-RPC message or a list that holds one, or looks like the JSON text of either."""
    if isinstance(value, str):
        return value.lstrip()[:1] in ("{", "[") and ('"jsonrpc"' in value or '"tools/call"' in value)
    values = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and ("jsonrpc" in item or item.get("method") == "tools/call") for item in values)


def _recognised(row: JsonObject) -> str | None:
    if row.get("method") == "tools/call":
        return "`method` is tools/call"
    call = next((key for key in CALLS if row.get(key) is not None), None)
    asks = any(row.get(key) is not None for key in (*REQUESTS, *MATERIALS))
    if call and asks and (isinstance(row[call], (dict, list)) or is_rpc(row[call])):
        return f"`{call}` is a call"
    return why_tools(row) if asks and row.get("answer") is not None else None


FORMAT = Format(
    read_mcp,
    COMMON_FIELDS | {*MCP_TURN_LISTS, *CALLS, *REQUESTS, *MATERIALS, "answer", "jsonrpc", "method", "params"},
    hint=("tools", "request"),
    recognise=_recognised,
    precedence=5,
)
