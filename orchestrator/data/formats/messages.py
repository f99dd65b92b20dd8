"""OpenAI and TRL rows: `messages` with `role` and `content`, tool calls as objects, content also as a list of parts.

Sources: the chat completions and responses API references of OpenAI, the messages API reference of Anthropic, the
dataset format of TRL, the rows of NVIDIA's When2Call, the message lists of Qwen-Agent, and Toucan's tool declarations.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from orchestrator.core.records import JsonObject, Message, Role, ToolCall, ToolSpec
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    ROLES,
    Draft,
    Format,
    Reasoned,
    Spoken,
    closing_think_tag,
    optional_text,
    read_call,
    read_calls,
    read_content,
    read_role,
    refuse_media,
    short,
    split_reasoning,
    text_field,
    with_calls,
)
from orchestrator.data.formats.loose_schema import read_tool, read_tools, with_json_schema, with_json_schemas
from orchestrator.data.formats.turn_lists import (
    CHOICE_FIELDS,
    LEARNING_FLAGS,
    PREFERRED,
    choice_labels,
    is_choice,
    learned_of,
    turns_of,
)
from orchestrator.data.formats.written_calls import RESULT_IN_WORDS, take_written_calls
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.pythonic import PythonicError, opens_like_calls, parse_calls
from orchestrator.notation.strict_json import (
    StrictJsonError,
    dump_loosely,
    json_values,
    parse,
)

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
TURN_FIELDS = frozenset(
    {"role", "content", "tool_calls", "function_call", "tool_call_id", "tool_call_ids", "name", "refusal"}
    | {*THOUGHT_FIELDS, *LEARNING_FLAGS}
)

TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
THOUGHT_PARTS = ("reasoning", "thinking")
CALL_PARTS = ("tool_call", "function_call", "tool_use", "function")
RESULT_PARTS = ("tool_result", "tool_response", "function_call_output")
PASSED_PARTS = ("redacted_thinking",)
"""Parts that say nothing to whoever has no key for them."""
PART_TEXT_KEYS = ("text", "value", "refusal", "reasoning", "thinking")
"""Where a part of a text or of thoughts keeps them; a table fills those that a part lacks with null."""

OPEN_DECLARATION, CLOSE_DECLARATION = "<|im_system|>tool_declare<|im_middle|>", "<|im_end|>"
"""Around the tools in a system text of Toucan, which is a prompt as Kimi's template renders it."""


class _Content(NamedTuple):
    """What the parts of a turn hold, each kind in its order."""

    text: str = ""
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()
    results: tuple[Message, ...] = ()


def read_messages(row: JsonObject) -> Draft:
    """The conversation of an OpenAI or TRL row: its `messages` and optional `tools`, or a question of When2Call.

    Arguments are an object or its JSON text; tools a list or its JSON text, with or without the `function` wrapper.
    Content is text, null or a list of parts (text, reasoning, calls, results), and for a tool's result any JSON. Calls
    are `tool_calls`, the early `function_call`, parts, or in the text (see `written_calls`). Thoughts are
    a field of the turn, parts, or a leading `<think>` block. See `read_turn` for what becomes of their order.
    Turns of one `function_call` each, and the words before them, are one reply where they follow each other. A system
    text that only declares tools, in the tags of a template, becomes tools; those of the row come first.
    """
    refuse_media(row)
    messages: list[Message] = []
    asked: Collection[str | None] = ()
    tools = tools_of(row)
    for number, turn in enumerate(turns_of(row), start=1):
        where = f"turn {number}"
        role = read_role(text_field(turn, "role", where), ROLES, ROLES, where)
        declared = _declared_tools(turn.get("content"), where) if role == "system" else None
        if declared is not None:
            tools = with_tools(tools, declared)
        elif role == "assistant" and _early_call(turn) is not None:
            messages[-1:] = with_calls(messages[-1:], _reply(turn, turn.get("content"), where, tools))
        else:
            said = read_turn(turn, role, turn.get("content"), where, tools)
            if role == "tool" and len(said) == 1:
                said = [_with_own_id(turn, said[0], asked)]
            messages += [_as_result(said[0])] if _answers_written_call(messages, said) else said
        if role == "assistant":
            asked = {call.id for call in messages[-1].tool_calls}
    kind, tags = choice_labels(row)
    return Draft(messages=messages, tools=tools, kind=kind, tags=tags)


def _answers_written_call(before: Sequence[Message], said: Sequence[Message]) -> bool:
    """Whether a user's turn is what a call gave, as where calls are written into the text."""
    asks = bool(before) and bool(before[-1].tool_calls)
    return asks and len(said) == 1 and said[0].role == "user" and RESULT_IN_WORDS.match(said[0].content) is not None


def _as_result(said: Message) -> Message:
    return Message(role="tool", content=RESULT_IN_WORDS.sub("", said.content, count=1))


def with_tools(given: tuple[ToolSpec, ...], written: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
    """The tools of a row and those that are written in its texts, without those whose names the row has itself."""
    names = {tool.function.name for tool in given}
    return (*given, *(tool for tool in written if tool.function.name not in names))


def _declared_tools(content: Any, where: str) -> list[ToolSpec] | None:
    """The tools that a system text declares and nothing else; None for any other text."""
    text = content.strip() if isinstance(content, str) else ""
    if not text.startswith(OPEN_DECLARATION) or text.find(CLOSE_DECLARATION) != len(text) - len(CLOSE_DECLARATION):
        return None
    inner = text[len(OPEN_DECLARATION) : -len(CLOSE_DECLARATION)]
    try:
        values, end = json_values(inner, 0)
    except StrictJsonError as error:
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"{where}: the tools are {error}") from None
    if inner[end:].strip():
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"{where}: the declared tools are not JSON")
    return written_tools(values, where)


def written_tools(values: Sequence[Any], where: str) -> list[ToolSpec]:
    """The tools that a text declares as JSON values, one after the other or in lists."""
    tools = [tool for value in values for tool in (value if isinstance(value, list) else [value])]
    specs = [read_tool(tool, f"{where}: tool {number}") for number, tool in enumerate(tools, start=1)]
    return [with_json_schema(spec, f"{where} ({spec.function.name[:80]})") for spec in specs]


def tools_of(row: JsonObject) -> tuple[ToolSpec, ...]:
    """The tools of a row as `loose_schema.read_tools` reads them, with schemas that are JSON Schema."""
    return with_json_schemas(read_tools(row))


def read_turn(turn: JsonObject, role: Role, content: Any, where: str, tools: Sequence[ToolSpec] = ()) -> list[Message]:
    """The messages that a turn stands for: one, or several for a turn that holds several tool results.

    `content` is what `role` says, wherever the turn keeps it; `turn` is for its other fields (`TURN_FIELDS`), `tools`
    for calls that are written into the text. An assistant message holds thoughts, then text, then calls. Text after a
    call moves before it; thoughts after text or calls have no place. Results come before the words beside them.
    """
    if role == "assistant":
        return [_reply(turn, content, where, tools)]
    for key in ("tool_calls", "function_call", *THOUGHT_FIELDS):
        if turn.get(key) not in (None, "", []):
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a {role} turn has `{key}`")
    name, call_id = optional_text(turn, "name", where), _answered_id(turn, where)
    has_parts = _has_typed_parts(content) if role != "tool" else _is_all_parts_of_result(content)
    said = _read_parts(content, where) if has_parts else _Content(read_content(content, role, where))
    if said.calls or said.reasoning or (said.results and (role == "system" or call_id)):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: a {role} turn has parts of another role's turn")
    wrapped = _wrapped_results(said.text) if role == "tool" and not call_id and not name else []
    results = [*said.results, *wrapped]
    if results and (wrapped or not said.text):
        return results
    return [*results, Message(role=role, content=said.text, tool_call_id=call_id, name=name)]


def _answered_id(turn: JsonObject, where: str) -> str | None:
    """The id of the call that a tool's turn answers; SWE agents have a list of one."""
    listed = turn.get("tool_call_ids")
    if turn.get("tool_call_id") is None and isinstance(listed, list) and len(listed) == 1:
        return optional_text({"tool_call_ids": listed[0]}, "tool_call_ids", where)
    return optional_text(turn, "tool_call_id", where)


def _with_own_id(turn: JsonObject, result: Message, asked: Collection[str | None]) -> Message:
    """A result whose turn says by its own `id` which of the calls before it is answered, as tau2 writes it."""
    own = turn.get("id")
    is_answer = result.tool_call_id is None and isinstance(own, str) and own in asked
    return result.model_copy(update={"tool_call_id": own}) if is_answer else result


def _reply(turn: JsonObject, content: Any, where: str, tools: Sequence[ToolSpec]) -> Message:
    parts = _read_parts(content, where) if _has_typed_parts(content) else None
    if parts is not None and parts.results:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: an assistant turn has parts of a tool's turn")
    said = parts or _Content(_plain_text(content, where))
    reasoning, text = read_reasoning(turn, said.text, said.reasoning, where)
    spoken = take_written_calls(text, tools, where) or Spoken(text, ())
    ways = [calls for calls in (_field_calls(turn, where), said.calls, spoken.calls) if calls]
    if len(ways) > 1:
        raise RowRejected(Reason.CALL_IN_TEXT, f"{where} has calls in its content beside those in its fields")
    return Message(
        role="assistant",
        content=_or_refusal(words_only(spoken.text, where), turn, where),
        reasoning_content=reasoning,
        tool_calls=ways[0] if ways else (),
        tool_call_id=optional_text(turn, "tool_call_id", where),
        name=optional_text(turn, "name", where),
        learned=learned_of(turn, where),
    )


def read_reasoning(turn: JsonObject, text: str, known: str | None, where: str) -> Reasoned:
    """The thoughts of a reply and its text without them.

    Thoughts stand in fields of the turn, in a `<think>` block that begins the text, or are `known` from elsewhere;
    different ones in two places are refused, as is a block without an end or with another end in the rest.
    """
    fields = [optional_text(turn, key, where) for key in THOUGHT_FIELDS]
    given = list(dict.fromkeys(thoughts for thoughts in (*fields, known) if thoughts))
    inline, rest = split_reasoning(text, where, needs_opening=bool(given))
    found = list(dict.fromkeys([*given, inline] if inline else given))
    if len(found) > 1:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} has its thoughts in two places, and they differ")
    if (tag := closing_think_tag(rest)) and (found or rest != text):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} has a {tag} in its text, after its thoughts")
    return Reasoned(found[0] if found else None, rest)


def words_only(text: str, where: str) -> str:
    """An assistant's text; CALL_IN_TEXT if it holds a call in any common spelling, Python's included."""
    if opens_like_calls(text):
        try:
            parse_calls(text)
        except PythonicError:
            return read_content(text, "assistant", where)
        raise RowRejected(Reason.CALL_IN_TEXT, f"{where} is a list of calls written like Python")
    return read_content(text, "assistant", where)


def _plain_text(content: Any, where: str) -> str:
    return content if isinstance(content, str) else read_content(content, "assistant", where)


def _or_refusal(content: str, turn: JsonObject, where: str) -> str:
    """The content, or what stands in the field that OpenAI has for refusals."""
    refusal = optional_text(turn, "refusal", where)
    if content and refusal:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} has both `content` and `refusal`")
    return content or refusal or ""


def _field_calls(turn: JsonObject, where: str) -> tuple[ToolCall, ...]:
    given = turn.get("tool_calls")
    calls = () if given in (None, "", []) else _list_of_calls(given, where)
    early = _early_call(turn)
    if early is None:
        return calls
    if calls:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} has both `tool_calls` and `function_call`")
    return (read_call(early, where),)


def _early_call(turn: JsonObject) -> Any:
    """What stands in `function_call`; None for nothing, such as an object whose fields a table filled with nulls."""
    given = turn.get("function_call")
    is_empty = isinstance(given, dict) and all(value in (None, "") for value in given.values())
    return None if is_empty else given


def _list_of_calls(given: Any, where: str) -> tuple[ToolCall, ...]:
    if isinstance(given, str):
        given = parse_or_reject(given, Reason.CALL_NOT_JSON, f"{where}: the calls are")
    if not isinstance(given, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: `tool_calls` is not a list")
    return tuple(read_call(call, where) for call in given)


def _has_typed_parts(content: Any) -> bool:
    known = (*TEXT_PARTS, *THOUGHT_PARTS, *CALL_PARTS, *RESULT_PARTS)
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and part.get("type") in known for part in parts)


def _is_all_parts_of_result(content: Any) -> bool:
    """Whether a tool's content is parts rather than a list of objects that the tool answered with."""
    if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
        return False
    return all(
        part.get("type") in RESULT_PARTS or (part.get("type") in TEXT_PARTS and _one_text(part) is not None)
        for part in content
    )


def _read_parts(parts: Sequence[Any], where: str) -> _Content:
    texts, thoughts = list[str](), list[str]()
    calls, results = list[ToolCall](), list[Message]()
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else "text" if isinstance(part, str) else None
        if kind in TEXT_PARTS:
            texts.append(part if isinstance(part, str) else _part_text(part, where))
        elif kind in THOUGHT_PARTS:
            if texts or calls:
                raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where} has thoughts after its text or calls")
            thoughts += _part_thoughts(part, where)
        elif kind in PASSED_PARTS:
            continue
        elif kind in CALL_PARTS:
            calls += _part_calls(part, where)
        elif kind in RESULT_PARTS:
            results.append(_part_result(part, where))
        else:
            detail = f"{where} has the part {short(part)}, which is no text, thought, call or result of a tool"
            raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    return _Content("".join(texts), "\n".join(thoughts) or None, tuple(calls), tuple(results))


def _part_text(part: JsonObject, where: str) -> str:
    text = _one_text(part)
    if text is None:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} has the part {short(part)} without one text")
    return text


def _part_thoughts(part: JsonObject, where: str) -> list[str]:
    """The thoughts in a part; those of OpenAI may be a summary, or hidden from everybody."""
    summary = part.get("summary")
    if not isinstance(summary, list) or _one_text(part) is not None:
        return [_part_text(part, where)]
    return [_part_text(line, where) for line in summary if isinstance(line, dict)]


def _one_text(part: JsonObject) -> str | None:
    held = [part[key] for key in PART_TEXT_KEYS if part.get(key) is not None]
    texts = [text.get("value") if isinstance(text, dict) else text for text in held]  # the Assistants API wraps them
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else None


def _part_calls(part: JsonObject, where: str) -> tuple[ToolCall, ...]:
    inner = next((part[key] for key in ("value", *CALL_PARTS) if part.get(key) is not None), None)
    call_id = next((part[key] for key in ("id", "call_id") if part.get(key) is not None), None)
    if inner is None:
        arguments = part["input"] if part.get("arguments") is None and "input" in part else part.get("arguments")
        return (read_call({"id": call_id, "name": part.get("name"), "arguments": arguments}, where),)
    if isinstance(inner, dict) and call_id is not None:
        return (read_call({"id": call_id, **inner}, where),)
    return read_calls(inner, where)


def _part_result(part: JsonObject, where: str) -> Message:
    content = next((part[key] for key in ("content", "value", "output", "text") if part.get(key) is not None), None)
    given = next((key for key in ("tool_use_id", "tool_call_id", "call_id") if part.get(key) is not None), "id")
    call_id, name = optional_text(part, given, where), optional_text(part, "name", where)
    return Message(role="tool", content=read_content(content, "tool", where), tool_call_id=call_id, name=name)


def _wrapped_results(text: str) -> list[Message]:
    """Results that one tool turn holds as a JSON list of objects with the id of their call; none for other text."""
    if not text.lstrip().startswith("[") or '"tool_call_id"' not in text:
        return []
    try:
        items = parse(text)
    except StrictJsonError:
        return []
    results = [as_result(item) for item in items] if isinstance(items, list) else []
    found = [result for result in results if result is not None and result.tool_call_id]
    return found if len(found) == len(results) else []


def as_result(value: Any) -> Message | None:
    """The tool message in an object of `content` and `name` or `tool_call_id` alone; None for any other value."""
    if not isinstance(value, dict) or "content" not in value or len(value) == 1:
        return None
    name, call_id = value.get("name"), value.get("tool_call_id")
    is_text = all(isinstance(text, str | None) for text in (name, call_id))
    if not is_text or not value.keys() <= {"role", "name", "tool_call_id", "content"} or not (name or call_id):
        return None
    content = value["content"]
    text = content if isinstance(content, str) else dump_loosely(content)
    return Message(role="tool", content=text, tool_call_id=call_id or None, name=name or None)


def _recognised(row: JsonObject) -> str | None:
    return "the row has `question`, `answers` and `correct_answer`" if is_choice(row) else None


FORMAT = Format(
    read_messages,
    COMMON_FIELDS | CHOICE_FIELDS | {*TURN_LISTS, *PREFERRED, "prompt"},
    TURN_FIELDS,
    hint=("messages",),
    recognise=_recognised,
    precedence=2,
)
