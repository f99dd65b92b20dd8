"""What formats share: their record, the draft of a sample, and turns, texts, calls and tools as commonly written.

Everything here is pure and raises `RowRejected` with the first thing that has no place in a sample. `where` names the
place for a person, such as `turn 3`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from orchestrator.core.records import FunctionCall, FunctionSpec, JsonObject, Message, Role, ToolCall, ToolSpec
from orchestrator.data.formats.when2call import choice_turns, is_choice
from orchestrator.data.formats.written import call_mark
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely, parse

ROLES: dict[str, Role] = {**{role: role for role in get_args(Role)}, "developer": "system", "function": "tool"}
"""Roles of the messages format; OpenAI's `developer` is its later name of `system`, `function` its early one of
`tool`."""

TOOL_LISTS = ("tools", "functions", "available_tools", "tools_json")
"""Fields that hold a row's tools: OpenAI's name and its early one, Toucan's, and that of sets made into JSON text."""

COMMON_FIELDS = frozenset({"id", "kind", "tags", "system", "source", "original_names", "kind_inferred", *TOOL_LISTS})
"""Fields that every format may have beside its own."""

SCHEMA_KEYS = ("parameters", "inputSchema", "input_schema")
"""Where a tool keeps the JSON Schema of its arguments: OpenAI's name, MCP's and Anthropic's."""
MISNAMED_SCHEMAS = ("args", "arguments", "params", "properties", "schema", "input")
"""Keys of tools that look like a schema; a tool with one of them in place of a schema is not one without arguments."""

MAX_TEXT_LEVELS = 3
"""How often a list of tools may be wrapped as JSON text; tools that went through two tables are text in text."""

MEDIA_FIELDS = ("images", "image", "videos", "video", "audios", "audio")
"""Where rows keep what the place holders in their texts stand for."""

LEARNING_FLAGS = ("weight", "train", "training", "loss", "loss_scale")
"""Fields that mark whether a turn is learned: OpenAI's name, and those of axolotl and ms-swift."""


@dataclass(frozen=True)
class Draft:
    """What a format's reader makes of a row: a sample without its id, its kind and the labels that the row gives.

    `original_names` is that of `Sample`. `kind` and `tags` are set where the format itself implies them.
    """

    messages: list[Message]
    tools: tuple[ToolSpec, ...] = ()
    original_names: dict[str, str] = field(default_factory=dict)
    kind: str | None = None
    tags: tuple[str, ...] = ()


def by_fields(*names: str) -> Callable[[JsonObject], str | None]:
    """Recognises the rows in which none of these fields is absent or null."""
    *others, last = (f"`{name}`" for name in names)
    why = f"the row has {', '.join(others)} and {last}"
    return lambda row: why if all(row.get(name) is not None for name in names) else None


@dataclass(frozen=True)
class Format:
    """One way in which rows are written. The module `formats/<name>.py` exports it as `FORMAT`.

    Args:
        read: What a row of this format holds.
        fields: The fields of a row that have a place in the sample; `turn_fields` are those of its turns, where the
            turns are a list of objects.
        reads_system: Whether `read` makes something of a row's `system` text; else that is the system message.
        hint: The fields to name when a row has none of them right; empty for a format that its turns tell.
        recognise: Why a row without a list of turns is in this format, as a clause for a person; None if it is not.
        precedence: Formats are asked in this order, those of one number in the order of `RowFormat`.
    """

    read: Callable[[JsonObject], Draft]
    fields: frozenset[str]
    turn_fields: frozenset[str] | None = None
    reads_system: bool = False
    hint: tuple[str, ...] = ()
    recognise: Callable[[JsonObject], str | None] = lambda _row: None
    precedence: int = 0


def with_system(system: Any, messages: list[Message]) -> list[Message]:
    """The messages after a system message with the text of a row's `system` field, if it has any.

    Raises:
        RowRejected: If `system` is not text.
    """
    if system is None or system == "":
        return messages
    if not isinstance(system, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`system` is not text")
    return [Message(role="system", content=system), *messages]


def with_calls(messages: list[Message], said: Message) -> list[Message]:
    """The messages and an assistant's turn of calls: one message with the assistant's turn before it, if that is last.

    Formats that write text and calls, or several calls, as turns of their own mean one reply.
    """
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or (said.reasoning_content and (last.content or last.tool_calls)):
        return [*messages, said]
    content = "\n".join(text for text in (last.content, said.content) if text)
    reasoning = "\n".join(text for text in (last.reasoning_content, said.reasoning_content) if text) or None
    calls = last.tool_calls + said.tool_calls
    joined = last.model_copy(update={"content": content, "reasoning_content": reasoning, "tool_calls": calls})
    return [*messages[:-1], joined]


def refuse_media(row: JsonObject) -> None:
    """Refuse a row that is not text alone: its words would be learned without the pictures or sounds they refer to.

    Raises:
        RowRejected: If the row has images, videos or sound.
    """
    media = next((key for key in MEDIA_FIELDS if row.get(key) not in (None, "", [], {}, False)), None)
    if media is not None:
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"the row has `{media}`; only text is read")


def refuse_unlearned(turn: JsonObject, where: str) -> None:
    """Refuse an assistant turn that is marked as not to be learned, or as less important: every turn is learned.

    Raises:
        RowRejected: If one of `LEARNING_FLAGS` holds something other than true or 1.
    """
    for key in LEARNING_FLAGS:
        if turn.get(key) not in (None, "", 1, [1]):
            detail = f"{where}: `{key}` is {short(turn[key])}, but no turn can be left out; end the row before it"
            raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)


def text_field(turn: Any, key: str, where: str) -> str:
    """The text that names who speaks in a turn.

    Raises:
        RowRejected: If the turn is not an object, or has no text there.
    """
    if not isinstance(turn, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is not an object")
    value = turn.get(key)
    if not isinstance(value, str):
        raise RowRejected(Reason.UNKNOWN_ROLE, f"{where}: `{key}` is {short(value)}, not text")
    return value


def read_role(given: str, roles: dict[str, Role], allowed: Iterable[str], where: str) -> Role:
    """The role that a format's word stands for; `allowed` are the words to name in an error.

    Raises:
        RowRejected: If the format has no such word.
    """
    if given not in roles:
        raise RowRejected(Reason.UNKNOWN_ROLE, f"{where}: {short(given)} is not one of {', '.join(allowed)}")
    return roles[given]


def optional_text(turn: JsonObject, key: str, where: str) -> str | None:
    """A field that is text, or absent or null; empty text counts as absent.

    Raises:
        RowRejected: If it is something else.
    """
    value = turn.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: `{key}` is not text")


def read_content(content: Any, role: Role, where: str) -> str:
    """The text of a turn's content: text, null, a list of text parts, and for a tool's result any JSON.

    Raises:
        RowRejected: If it is something else, or an assistant's text that holds a call.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return _without_calls(content, where) if role == "assistant" else content
    has_parts = isinstance(content, list) and bool(content) and all(isinstance(part, dict) for part in content)
    if role == "tool" and isinstance(content, list) and not has_parts:
        return dump_loosely(content)  # a list that the tool answered with, not parts of a text
    if isinstance(content, list) and all(_is_text_part(part) for part in content):
        text = "".join(part if isinstance(part, str) else part["text"] for part in content)
        return _without_calls(text, where) if role == "assistant" else text
    if role == "tool":
        # A tool may answer with any JSON; a chat template takes text.
        return dump_loosely(content)
    if isinstance(content, list):
        part = next(part for part in content if not _is_text_part(part))
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where} has the part {short(part)}, which is not text")
    raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the content is {short(content)}, not text")


def _is_text_part(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("type") == "text" and isinstance(part.get("text"), str)
    return isinstance(part, str)


def _without_calls(text: str, where: str) -> str:
    mark = call_mark(text)
    if mark is not None or _is_bare_call(text):
        what = "is a call as JSON" if mark is None else f"has `{mark}` in its text"
        raise RowRejected(Reason.CALL_IN_TEXT, f"{where} {what}; give calls as `tool_calls` or as function_call turns")
    return text


def _is_bare_call(text: str) -> bool:
    """Whether a whole reply is one call, or a list of calls, as JSON that was never put where calls belong."""
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    is_likely = '"name"' in bare and ('"arguments"' in bare or '"parameters"' in bare)
    if not bare.startswith(("{", "[")) or not is_likely:
        return False
    try:
        value = parse(bare)
    except StrictJsonError:
        return False
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(isinstance(call, dict) and _is_call(call) for call in calls)


def _is_call(value: JsonObject) -> bool:
    return {"name", "arguments"} <= value.keys() or value.keys() == {"name", "parameters"}


def read_call(call: Any, where: str) -> ToolCall:
    """A call as an object with `name` and `arguments`, with or without the `function` wrapper and an `id`.

    Llama's `parameters` in place of `arguments` are read where they cannot be a tool's schema.

    Raises:
        RowRejected: If it is no such object, or its arguments are not an object or the JSON text of one.
    """
    if not isinstance(call, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call is {short(call)}, not an object")
    if call.get("type") not in (None, "function"):
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where}: a call of type {short(call['type'])}")
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call has no name")
    given = function.get("parameters") if _has_parameters(function) else function.get("arguments")
    arguments = read_arguments(given, f"{where}: the arguments of {name[:80]}")
    return ToolCall(id=optional_text(call, "id", where), function=FunctionCall(name=name, arguments=arguments))


def _has_parameters(function: JsonObject) -> bool:
    parameters = function.get("parameters")
    is_tool = "description" in function or (isinstance(parameters, dict) and "properties" in parameters)
    return "arguments" not in function and parameters is not None and not is_tool


def read_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    """One call or a list of calls, or the strict JSON text of either.

    Raises:
        RowRejected: If it is something else, or no call at all.
    """
    if isinstance(value, str):
        value = parse_or_reject(value, Reason.CALL_NOT_JSON, f"{where}: the call is")
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise RowRejected(Reason.EMPTY_TURN, f"{where} holds no call")
    return tuple(read_call(call, where) for call in calls)


def read_arguments(arguments: Any, where: str) -> JsonObject:
    """The arguments of a call: an object or the strict JSON text of one; an empty text is a call without arguments.

    Raises:
        RowRejected: If they are something else.
    """
    if isinstance(arguments, str):
        if not arguments.strip():
            return {}
        arguments = parse_or_reject(arguments, Reason.ARGUMENTS_NOT_JSON, f"{where} are")
    if not isinstance(arguments, dict):
        raise RowRejected(Reason.ARGUMENTS_NOT_OBJECT, f"{where} are {short(arguments)}, not an object")
    return arguments


def read_tools(row: JsonObject) -> tuple[ToolSpec, ...]:
    """The tools in one of a row's `TOOL_LISTS`: a list of tools, or its JSON text.

    Raises:
        RowRejected: If they are something else, or two fields hold tools.
    """
    named = [key for key in TOOL_LISTS if row.get(key) not in (None, "", [])]
    if len(named) > 1:
        raise RowRejected(Reason.INVALID_TOOL, f"the row has both `{named[0]}` and `{named[1]}`")
    given = row[named[0]] if named else []
    for _ in range(MAX_TEXT_LEVELS):
        if isinstance(given, str):
            given = parse_or_reject(given, Reason.TOOLS_NOT_JSON, f"`{named[0]}` is") if given.strip() else []
    tools = [] if given is None else given
    if not isinstance(tools, list):
        raise RowRejected(Reason.INVALID_TOOL, f"`{named[0]}` is {short(tools)}, not a list")
    return tuple(read_tool(tool, f"tool {number}") for number, tool in enumerate(tools, start=1))


def read_tool(tool: Any, where: str) -> ToolSpec:
    """A tool as an object with a name, or its JSON text, with or without the `function` wrapper.

    The schema stands under one of `SCHEMA_KEYS`, as an object or its JSON text, or is absent for a tool without
    arguments. A list of `required` names beside a schema that has none belongs to it.

    Raises:
        RowRejected: If the tool has no name, is no function, or its description or schema has the wrong type.
    """
    if isinstance(tool, str):
        tool = parse_or_reject(tool, Reason.TOOLS_NOT_JSON, f"{where} is")
    if not isinstance(tool, dict):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} is {short(tool)}, not an object")
    if tool.get("type") not in (None, "function"):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} is of type {short(tool['type'])}, not a function")
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowRejected(Reason.INVALID_TOOL, f"{where} has no name")
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise RowRejected(Reason.INVALID_TOOL, f"{where} ({name[:80]}): the description is not text")
    parameters = _parameters(function, f"{where} ({name[:80]})")
    if parameters is None:
        return ToolSpec(function=FunctionSpec(name=name, description=description))
    return ToolSpec(function=FunctionSpec(name=name, description=description, parameters=parameters))


def _parameters(function: JsonObject, where: str) -> JsonObject | None:
    named = [key for key in SCHEMA_KEYS if function.get(key) is not None]
    if len(named) > 1:
        raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"{where} has both `{named[0]}` and `{named[1]}`")
    if not named:
        misnamed = next((key for key in MISNAMED_SCHEMAS if function.get(key)), None)
        if misnamed:
            raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"{where} has `{misnamed}` and no `parameters`")
        return None
    parameters = function[named[0]]
    if isinstance(parameters, str):
        parameters = parse_or_reject(parameters, Reason.TOOLS_NOT_JSON, f"{where}: the schema is")
    if not isinstance(parameters, dict):
        raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"{where}: the parameters are {short(parameters)}, not an object")
    required = function.get("required")
    if isinstance(required, list) and isinstance(parameters.get("properties"), dict) and not parameters.get("required"):
        return {**parameters, "required": required}
    return parameters


def short(value: Any) -> str:
    """A value as JSON for an error message, cut to 80 characters."""
    text = dump_loosely(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def turns_of(row: JsonObject) -> list[Any]:
    """The turns of a row: its list of turns, the JSON text of one, or what stands in other fields.

    Those are ms-swift's `query`, `response` and `history`, and the question and right reply of When2Call. Where a row
    prefers one reply to another, its `chosen_response` is the last turn.

    Raises:
        RowRejected: If there is none, or two.
    """
    named = [key for key in TURN_LISTS if row.get(key) is not None]
    if not named and is_choice(row):
        return choice_turns(row)
    if not named and row.get("query") is not None and row.get("response") is not None:
        return _turns_of_query(row)
    if len(named) != 1:
        keys = ", ".join(sorted(row)[:10])[:200]
        none = f"has neither `messages` nor `conversations` (keys: {keys})"
        detail = f"has both `{named[0]}` and `{named[1]}`" if named else none
        raise RowRejected(Reason.UNKNOWN_FORMAT, f"the row {detail}")
    turns = row[named[0]]
    if isinstance(turns, str):
        turns = parse_or_reject(turns, Reason.MALFORMED_FIELD, f"`{named[0]}` is")
    if not isinstance(turns, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{named[0]}` is not a list")
    return turns if row.get("chosen_response") is None else [*turns, row["chosen_response"]]


def _turns_of_query(row: JsonObject) -> list[Any]:
    history = [] if row.get("history") is None else row["history"]
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise RowRejected(Reason.MALFORMED_FIELD, "`history` is not a list of pairs")
    pairs = [*history, [row["query"], row["response"]]]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
