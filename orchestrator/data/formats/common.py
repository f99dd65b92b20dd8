"""What formats share: their record, the draft of a sample, and turns, texts, thoughts and calls as commonly written.

Every reader of this package is pure, linear in the length of its text, and raises `RowRejected` for the first thing
that has no place in a sample. `where` names the place in a message, such as `turn 3`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from orchestrator.chat.parse import CALL_MARKS, THOUGHTS, leading_thoughts
from orchestrator.core.records import (
    FunctionCall,
    JsonObject,
    Message,
    Role,
    ToolCall,
    ToolSpec,
)
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely, parse

ROLES: dict[str, Role] = {
    **{role: role for role in get_args(Role)},
    "developer": "system",
    "function": "tool",
    "ipython": "tool",
}
"""Roles of the messages format. OpenAI's `developer` is its later word for `system`, `function` its early `tool`, which
Llama 3 calls `ipython`."""

TOOL_LISTS = (
    *("tools", "functions", "available_tools", "tools_json", "tool_schemas", "tool_definitions", "tool_specs"),
    *("tool_list", "tool_defs", "available_functions", "function_schemas", "function_definitions"),
)
"""Fields that hold a row's tools: OpenAI's name and its early one, Toucan's, and other common ones."""

COMMON_FIELDS = frozenset({"id", "kind", "tags", "system", "source", "original_names", "kind_inferred", *TOOL_LISTS})
"""Fields that every format may have beside its own."""

CALL_TYPES = (None, "function", "tool_call", "tool_use", "function_call")
"""What a call may say that it is: OpenAI's two words, LangChain's and Anthropic's."""
ARGUMENT_KEYS = ("arguments", "args", "input")
"""Where a call keeps what it gives its tool: OpenAI's name, LangChain's and Anthropic's."""

MEDIA_FIELDS = ("images", "image", "videos", "video", "audios", "audio")
"""Where rows keep what the place holders in their texts stand for."""


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
        reads_system: Whether `read` handles a row's `system` text; else that is the system message.
        hint: The fields to name when a row has none of them right; empty for a format recognised by its turns.
        recognise: Why a row is in this format, as a clause for the card; None if it is not.
        precedence: Formats are asked in this order, those of one number in the order of `RowFormat`: those below 0 of
            every row, the others of a row without a list of turns.
    """

    read: Callable[[JsonObject], Draft]
    fields: frozenset[str]
    turn_fields: frozenset[str] | None = None
    reads_system: bool = False
    hint: tuple[str, ...] = ()
    recognise: Callable[[JsonObject], str | None] = lambda _row: None
    precedence: int = 0


def with_system(system: Any, messages: list[Message]) -> list[Message]:
    """The messages after a system message with the text of a row's `system` field, if it has any."""
    if system is None or system in ("", []):
        return messages
    if isinstance(system, list) and all(map(_is_text_part, system)):  # blocks, as Anthropic's API takes them
        system = "\n\n".join(part if isinstance(part, str) else part["text"] for part in system)
    if not isinstance(system, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`system` is not text")
    return [Message(role="system", content=system), *messages]


def with_calls(messages: list[Message], said: Message) -> list[Message]:
    """The messages and an assistant's turn of calls: one message with the assistant's turn before it, if that is last.

    Formats that write text and calls, or several calls, as turns of their own mean one reply.
    """
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or last.learned != said.learned:
        return [*messages, said]
    if said.reasoning_content and (last.content or last.tool_calls):
        return [*messages, said]
    content = "\n".join(text for text in (last.content, said.content) if text)
    reasoning = "\n".join(text for text in (last.reasoning_content, said.reasoning_content) if text) or None
    calls = last.tool_calls + said.tool_calls
    joined = last.model_copy(update={"content": content, "reasoning_content": reasoning, "tool_calls": calls})
    return [*messages[:-1], joined]


def refuse_media(row: JsonObject) -> None:
    """Refuse images, videos and sound: the words would be learned without what they refer to."""
    media = next((key for key in MEDIA_FIELDS if row.get(key) not in (None, "", [], {}, False)), None)
    if media is not None:
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"the row has `{media}`; only text is read")


def text_field(turn: Any, key: str, where: str) -> str:
    """The text that names who speaks in a turn."""
    if not isinstance(turn, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is not an object")
    value = turn.get(key)
    if not isinstance(value, str):
        raise RowRejected(Reason.UNKNOWN_ROLE, f"{where}: `{key}` is {short(value)}, not text")
    return value


def read_role(given: str, roles: dict[str, Role], allowed: Iterable[str], where: str) -> Role:
    """The role that a format's word stands for; `allowed` are the words to name in an error."""
    if given not in roles:
        raise RowRejected(Reason.UNKNOWN_ROLE, f"{where}: {short(given)} is not one of {', '.join(allowed)}")
    return roles[given]


def optional_text(turn: JsonObject, key: str, where: str) -> str | None:
    """A field that is text, or absent or null; empty text counts as absent."""
    value = turn.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: `{key}` is not text")


def read_content(content: Any, role: Role, where: str) -> str:
    """The text of a turn's content: text, null, a list of text parts, and for a tool's result any JSON.

    An assistant's text must hold no call.
    """
    is_list = isinstance(content, list)
    # A list that holds other things than objects is what the tool answered with, not parts of a text.
    may_be_parts = is_list and (role != "tool" or (bool(content) and all(isinstance(part, dict) for part in content)))
    if content is None:
        return ""
    if isinstance(content, str):
        text = content
    elif may_be_parts and all(_is_text_part(part) for part in content):
        text = "".join(part if isinstance(part, str) else part["text"] for part in content)
    elif role == "tool":
        return dump_loosely(content)  # a chat template takes text
    elif is_list:
        part = next(part for part in content if not _is_text_part(part))
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where} has the part {short(part)}, which is not text")
    else:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the content is {short(content)}, not text")
    return _without_calls(text, where) if role == "assistant" else text


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


def call_mark(text: str) -> str | None:
    """The mark of a call that stands in a text, in whatever spelling; None for a text without one."""
    mark = next((mark for mark in CALL_MARKS if mark in text), None)
    if mark is not None:
        return mark
    action = text.find("Action:")  # ReAct: this stands before the name of a call, and the mark before its arguments
    return "Action Input:" if action >= 0 and text.find("Action Input:", action) >= 0 else None


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
    return bool(calls) and all(
        isinstance(call, dict) and ({"name", "arguments"} <= call.keys() or call.keys() == {"name", "parameters"})
        for call in calls
    )


def read_call(call: Any, where: str) -> ToolCall:
    """A call as an object with `name` and `arguments`, with or without the `function` wrapper and an `id`.

    Llama's `parameters` in place of `arguments` are read where they cannot be a tool's schema. A call that holds
    nothing under any of these names, and no other object, has no arguments.
    """
    if not isinstance(call, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call is {short(call)}, not an object")
    if call.get("type") not in CALL_TYPES:
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where}: a call of type {short(call['type'])}")
    function = call if call.get("function") is None else call["function"]
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call has no name")
    arguments = read_arguments(_given_arguments(function, where), f"{where}: the arguments of {name[:80]}")
    call_id = optional_text(call, "call_id" if call.get("call_id") is not None else "id", where)
    return ToolCall(id=call_id, function=FunctionCall(name=name, arguments=arguments))


def _given_arguments(function: JsonObject, where: str) -> Any:
    """What a call gives its tool, under whatever name; None for nothing."""
    held = {key: value for key, value in function.items() if value is not None}
    named = [key for key in ARGUMENT_KEYS if key in held]
    if len(named) > 1 and any(held[key] != held[named[0]] for key in named):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a call has both `{named[0]}` and `{named[1]}`")
    if named:
        return held[named[0]]
    parameters = held.get("parameters")
    is_tool = "description" in held or (isinstance(parameters, dict) and "properties" in parameters)
    if parameters is not None and not is_tool:
        return parameters
    odd = next((key for key, value in held.items() if isinstance(value, dict)), None)
    if odd is not None:
        raise RowRejected(Reason.ARGUMENTS_NOT_OBJECT, f"{where}: a call has `{odd}` and no `arguments`")
    return None


def read_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    """One call or a list of at least one, or the strict JSON text of either."""
    if isinstance(value, str):
        value = parse_or_reject(value, Reason.CALL_NOT_JSON, f"{where}: the call is")
    calls = value if isinstance(value, list) else [value]
    if not calls:
        raise RowRejected(Reason.EMPTY_TURN, f"{where} holds no call")
    return tuple(read_call(call, where) for call in calls)


def read_arguments(arguments: Any, where: str) -> JsonObject:
    """The arguments of a call: an object or the strict JSON text of one.

    Null, an empty text and an empty list are a call without arguments.
    """
    if isinstance(arguments, str):
        arguments = parse_or_reject(arguments, Reason.ARGUMENTS_NOT_JSON, f"{where} are") if arguments.strip() else None
    if arguments is None or arguments == []:
        return {}
    if not isinstance(arguments, dict):
        raise RowRejected(Reason.ARGUMENTS_NOT_OBJECT, f"{where} are {short(arguments)}, not an object")
    return arguments


class Reasoned(NamedTuple):
    """A reply's leading think block, None without one, and the rest of the reply."""

    reasoning: str | None
    text: str


def split_reasoning(text: str, where: str, *, needs_opening: bool = False) -> Reasoned:
    """Divide a reply into its leading think block and the rest, as replies are divided when they are scored.

    A closing tag without an opening one ends a block that the prompt opened, unless a call in any format comes before
    it or `needs_opening` is set. A reply without a think block is left as it is; a block without an end is refused.
    """
    block = leading_thoughts(text, lambda before: needs_opening or any(mark in before for mark in CALL_MARKS), THOUGHTS)
    if block is None:
        return Reasoned(None, text)
    if block.unclosed:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the {block.unclosed} block has no end")
    return Reasoned(block.thoughts or None, block.rest.lstrip())


def closing_think_tag(text: str) -> str | None:
    """The tag in a text that would end a think block; None for a text without one."""
    return next((closing for _, closing in THOUGHTS if closing in text), None)


class Spoken(NamedTuple):
    """An assistant's text without the calls that stood in it, and those calls."""

    text: str
    calls: tuple[ToolCall, ...]


CallReader = Callable[[str, int], tuple[list[ToolCall], int]]
"""Reads what follows an opening tag at a position of a text: the calls and the position after them."""


def take_calls(text: str, opening: str, read: CallReader) -> Spoken:
    """Take the calls out of an assistant's text; what stands around them is kept, one piece to a line."""
    start = text.find(opening)
    if start < 0:
        return Spoken(text, ())
    pieces, calls, position = [text[:start]], list[ToolCall](), 0
    while start >= 0:
        found, position = read(text, start + len(opening))
        calls += found
        start = text.find(opening, position)
        pieces.append(text[position:] if start < 0 else text[position:start])
    return Spoken("\n".join(piece.strip() for piece in pieces if piece.strip()), tuple(calls))


def short(value: Any) -> str:
    """A value as JSON for an error message, cut to 80 characters."""
    text = dump_loosely(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
