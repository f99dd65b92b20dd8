"""Rows of the two common formats as canonical samples. Pure: no file, no schema check (see `quality`).

Nothing is guessed but `kind`, where a row does not give it: `tool_call` if the last assistant turn calls a tool, else
`answer`. A refusal or a question back is told apart only by a row that says so.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from orchestrator.data.readers import RowFormat, turns_of
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.data.strict_json import StrictJsonError, dump_loosely, parse
from orchestrator.records import (
    SAMPLE_KINDS,
    FunctionCall,
    FunctionSpec,
    JsonObject,
    Message,
    Role,
    Sample,
    SampleKind,
    ToolCall,
    ToolSpec,
)

ROLES: dict[str, Role] = {**{role: role for role in get_args(Role)}, "developer": "system"}
"""Roles of the messages format; OpenAI's `developer` is its later name of `system`."""
SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
}
SHAREGPT_CALLS = ("function_call", "tool_call")
"""ShareGPT turns that hold the assistant's calls as JSON."""

ROW_FIELDS = {"messages", "conversations", "tools", "system", "kind", "id", "tags"}
TURN_FIELDS = {"role", "content", "tool_calls", "tool_call_id", "name"}
SHAREGPT_TURN_FIELDS = {"from", "value"}


def sample_from_row(row: JsonObject, row_format: RowFormat, *, source: str) -> Sample:
    """The sample in a row of the given format. See `sample_from_messages` and `sample_from_sharegpt`."""
    make = sample_from_messages if row_format == "messages" else sample_from_sharegpt
    return make(row, source=source)


def sample_from_messages(row: JsonObject, *, source: str) -> Sample:
    """The sample in an OpenAI or TRL row: `messages` and optional `tools`, `system`, `kind`, `id`, `tags`.

    Arguments are an object or its JSON text; tools a list or its JSON text, with or without the `function` wrapper;
    content is text, null or a list of text parts, and for a tool's result any JSON.

    Raises:
        RowRejected: If a part of the row has no place in a sample.
    """
    messages = [_message(turn, f"turn {number}") for number, turn in enumerate(turns_of(row), start=1)]
    return _sample(row, messages, source)


def sample_from_sharegpt(row: JsonObject, *, source: str) -> Sample:
    """The sample in a ShareGPT row: `conversations` of `from` and `value`, optional `tools` and `system`.

    A call turn holds one call or a list as JSON and becomes the `tool_calls` of an assistant message; calls that follow
    each other, or follow the assistant's text, are one message.

    Raises:
        RowRejected: If a part of the row has no place in a sample.
    """
    messages: list[Message] = []
    for number, turn in enumerate(turns_of(row), start=1):
        where = f"turn {number}"
        speaker = _field(turn, "from", where)
        if speaker in SHAREGPT_CALLS:
            calls = _sharegpt_calls(turn.get("value"), where)
            spoken = messages.pop() if messages and messages[-1].role == "assistant" else Message(role="assistant")
            messages.append(spoken.model_copy(update={"tool_calls": spoken.tool_calls + calls}))
        else:
            role = _role(speaker, SHAREGPT_ROLES, (*SHAREGPT_ROLES, *SHAREGPT_CALLS), where)
            messages.append(Message(role=role, content=_content(turn.get("value"), role, where)))
    return _sample(row, messages, source)


def ignored_fields(row: JsonObject) -> Iterator[str]:
    """Name the fields of a row that hold something and have no place in a sample, each once, such as `turn.weight`."""
    names = {name for name in row.keys() - ROW_FIELDS if _holds_something(row[name])}
    for turn in turns_of(row):
        known = SHAREGPT_TURN_FIELDS if "from" in turn else TURN_FIELDS
        names |= {f"turn.{name}" for name in turn.keys() - known if _holds_something(turn[name])}
    return iter(sorted(names))


def _holds_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def content_hash(sample: Sample) -> str:
    """SHA-256, in hex, of a sample's messages and tools: equal for exact duplicates."""
    return _hash(sample.messages, sample.tools)


def _hash(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
    content = [[part.model_dump(mode="json", exclude_none=True) for part in parts] for parts in (messages, tools)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sample(row: JsonObject, messages: list[Message], source: str) -> Sample:
    messages = _with_system(row.get("system"), messages)
    if not messages:
        raise RowRejected(Reason.EMPTY_CONVERSATION, "the conversation has no turns")
    linked = _link_results(messages)
    tools = _tools(row)
    return Sample(
        id=_id(row.get("id")) or _hash(linked, tools)[:16],
        messages=tuple(linked),
        tools=tools,
        kind=_kind(row.get("kind"), messages),
        source=source,
        tags=_tags(row.get("tags")),
    )


def _id(given: Any) -> str | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise RowRejected(Reason.MALFORMED_FIELD, "`id` is neither text nor an integer")
    return str(given)


def _tags(given: Any) -> tuple[str, ...]:
    tags = [] if given is None else given
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RowRejected(Reason.MALFORMED_FIELD, "`tags` is not a list of texts")
    return tuple(tags)


def _kind(given: Any, messages: Sequence[Message]) -> SampleKind:
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    if last is None:
        raise RowRejected(Reason.NO_ASSISTANT_TURN, "the assistant says nothing")
    if given is None:
        return "tool_call" if last.tool_calls else "answer"
    for kind in SAMPLE_KINDS:
        if kind == given:
            return kind
    raise RowRejected(Reason.UNKNOWN_KIND, f"kind {_short(given)} is not one of {', '.join(SAMPLE_KINDS)}")


def _with_system(system: Any, messages: list[Message]) -> list[Message]:
    if system is None or system == "":
        return messages
    if not isinstance(system, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`system` is not text")
    return [Message(role="system", content=system), *messages]


def _message(turn: Any, where: str) -> Message:
    role = _role(_field(turn, "role", where), ROLES, tuple(ROLES), where)
    if turn.get("function_call") is not None:
        detail = f"{where} has the retired field `function_call`; write it as `tool_calls`"
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: `tool_calls` is not a list")
    if calls and role != "assistant":
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a {role} turn has `tool_calls`")
    return Message(
        role=role,
        content=_content(turn.get("content"), role, where),
        tool_calls=tuple(_call(call, where) for call in calls),
        tool_call_id=_optional_text(turn, "tool_call_id", where),
        name=_optional_text(turn, "name", where),
    )


def _field(turn: Any, key: str, where: str) -> str:
    if not isinstance(turn, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is not an object")
    value = turn.get(key)
    if not isinstance(value, str):
        raise RowRejected(Reason.UNKNOWN_ROLE, f"{where}: `{key}` is {_short(value)}, not text")
    return value


def _role(given: str, roles: dict[str, Role], allowed: tuple[str, ...], where: str) -> Role:
    if given not in roles:
        raise RowRejected(Reason.UNKNOWN_ROLE, f"{where}: {_short(given)} is not one of {', '.join(allowed)}")
    return roles[given]


def _optional_text(turn: JsonObject, key: str, where: str) -> str | None:
    value = turn.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: `{key}` is not text")


CALL_TAG = "<tool_call>"
"""A call written as text would be learned unchecked and scored as an answer."""


def _content(content: Any, role: Role, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        if role == "assistant" and CALL_TAG in content:
            detail = f"{where} has a {CALL_TAG} in its text; give calls as `tool_calls` or as function_call turns"
            raise RowRejected(Reason.CALL_IN_TEXT, detail)
        return content
    has_parts = isinstance(content, list) and bool(content) and all(isinstance(part, dict) for part in content)
    if role == "tool" and isinstance(content, list) and not has_parts:
        return dump_loosely(content)  # a list that the tool answered with, not parts of a text
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        return "".join(part if isinstance(part, str) else part["text"] for part in content)
    if role == "tool":
        # A tool may answer with any JSON; a chat template takes text.
        return dump_loosely(content)
    if isinstance(content, list):
        part = next(part for part in content if not _is_text_part(part))
        detail = f'{where} has the part {_short(part)}; only {{"type": "text", "text": ...}} is read'
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the content is {_short(content)}, not text")


def _is_text_part(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("type") == "text" and isinstance(part.get("text"), str)
    return isinstance(part, str)


def _sharegpt_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    if isinstance(value, str):
        try:
            value = parse(value)
        except StrictJsonError as error:
            raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: the call is {error}") from None
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise RowRejected(Reason.EMPTY_TURN, f"{where} holds no call")
    return tuple(_call(call, where) for call in calls)


def _call(call: Any, where: str) -> ToolCall:
    if not isinstance(call, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call is {_short(call)}, not an object")
    if call.get("type") not in (None, "function"):
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where}: a call of type {_short(call['type'])}")
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call has no name")
    arguments = _arguments(function.get("arguments"), f"{where}: the arguments of {name}")
    return ToolCall(id=_optional_text(call, "id", where), function=FunctionCall(name=name, arguments=arguments))


def _arguments(arguments: Any, where: str) -> JsonObject:
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments)
        except StrictJsonError as error:
            raise RowRejected(Reason.ARGUMENTS_NOT_JSON, f"{where} are {error}") from None
    if not isinstance(arguments, dict):
        raise RowRejected(Reason.ARGUMENTS_NOT_OBJECT, f"{where} are {_short(arguments)}, not an object")
    return arguments


def _tools(row: JsonObject) -> tuple[ToolSpec, ...]:
    given = row.get("tools")
    if given is None and row.get("functions") is not None:
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, "the row has the retired field `functions`; write it as `tools`")
    if isinstance(given, str):
        given = _parse_tools(given, "`tools`") if given.strip() else []
    tools = [] if given is None else given
    if not isinstance(tools, list):
        raise RowRejected(Reason.INVALID_TOOL, f"`tools` is {_short(tools)}, not a list")
    return tuple(_tool(tool, f"tool {number}") for number, tool in enumerate(tools, start=1))


def _parse_tools(text: str, where: str) -> Any:
    try:
        return parse(text)
    except StrictJsonError as error:
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"{where} is {error}") from None


def _tool(tool: Any, where: str) -> ToolSpec:
    if isinstance(tool, str):
        tool = _parse_tools(tool, where)
    if not isinstance(tool, dict):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} is {_short(tool)}, not an object")
    if tool.get("type") not in (None, "function"):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} is of type {_short(tool['type'])}, not a function")
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowRejected(Reason.INVALID_TOOL, f"{where} has no name")
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} ({name}): the description is not text")
    parameters = function.get("parameters")
    if isinstance(parameters, str):
        parameters = _parse_tools(parameters, f"the schema of {name}")
    if parameters is None:
        return ToolSpec(function=FunctionSpec(name=name, description=description))
    if not isinstance(parameters, dict):
        detail = f"{where} ({name}): the parameters are {_short(parameters)}, not an object"
        raise RowRejected(Reason.INVALID_TOOL_SCHEMA, detail)
    return ToolSpec(function=FunctionSpec(name=name, description=description, parameters=parameters))


def _link_results(messages: list[Message]) -> list[Message]:
    """Name each tool result after its call: by `tool_call_id`, else by place where there are as many as calls."""
    linked: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    place = 0
    for index, message in enumerate(messages):
        if message.role != "tool":
            linked.append(message)
            calls, place = message.tool_calls, 0
            continue
        call = _call_answered(message, calls, place if _num_results(messages, index - place) == len(calls) else None)
        place += 1
        if call:
            link = {"tool_call_id": message.tool_call_id or call.id, "name": message.name or call.function.name}
            message = message.model_copy(update=link)
        linked.append(message)
    return linked


def _num_results(messages: Sequence[Message], start: int) -> int:
    others = (index for index in range(start, len(messages)) if messages[index].role != "tool")
    return next(others, len(messages)) - start


def _call_answered(result: Message, calls: tuple[ToolCall, ...], place: int | None) -> ToolCall | None:
    if result.tool_call_id and any(call.id for call in calls):
        return next((call for call in calls if call.id == result.tool_call_id), None)
    return None if place is None else calls[place]


def _short(value: Any) -> str:
    text = dump_loosely(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
