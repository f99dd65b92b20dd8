"""Hermes function calling rows: calls and results in tags inside the text of turns, tools in the system text.

Source: the hermes-function-calling-v1 set and the prompt format of the Hermes models, which Qwen's chat template
follows: `<tools>`, `<tool_call>` and `<tool_response>`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.chat.formats.hermes import HERMES
from orchestrator.chat.formats.reply import schemas_of
from orchestrator.core.records import JsonObject, Message, ToolCall, ToolSpec
from orchestrator.data.formats import messages as openai
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    Draft,
    Format,
    optional_text,
    read_calls,
    read_content,
    read_role,
    refuse_media,
    short,
    take_calls,
    with_system,
)
from orchestrator.data.formats.sharegpt import SHAREGPT_CALLS, SHAREGPT_ROLES, Turn, read_turns
from orchestrator.data.formats.turn_lists import PREFERRED, learned_of, turns_of
from orchestrator.data.formats.written_calls import opens_xml, xml_calls
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.pythonic import PythonicError, parse_json_or_literal, parse_literal
from orchestrator.notation.strict_json import StrictJsonError, json_end, json_values, parse, skip_space

OPEN_CALL, CLOSE_CALL = HERMES.tags
OPEN_RESULT, CLOSE_RESULT = "<tool_response>", "</tool_response>"
OPEN_TOOLS, CLOSE_TOOLS = "<tools>", "</tools>"

_SCHEMA = r"\{(?:[^{}\n]++|\{(?:[^{}\n]++|\{[^{}\n]*+\})*+\})*+\}"
_PREAMBLE_SENTENCES = (
    r"\# Tools",
    r"You are a function calling AI model\.",
    r"You are provided with function signatures within <tools>\s*+</tools>(?: XML tags)?[.:]",
    r"You are also provided with the json schema to output extracted information in the function signatures within XML"
    r" tags <tools>\s*+</tools>\.",
    r"Don't make assumptions about what values to plug into json schema\.",
    r"You may call one or more functions to assist with the user query\.",
    r"If available tools are not relevant in assisting with user query, just respond in natural conversational"
    r" language\.",
    r"Don't make assumptions about what values to plug into functions\.",
    r"After calling & executing the functions, you will be provided with function results within <tool_response>\s*+"
    r"</tool_response>(?: XML tags)?\.",
    r"Here are the available tools:",
    rf"Use the following pydantic model json schema for each tool call you will make:\s*+{_SCHEMA}",
    r"For each function call return a JSON object, with the following pydantic model json schema for each:"
    rf"\s*+{_SCHEMA}",
    r"(?:For each|Each) function call,? (?:return a json object|should be enclosed)"
    r"(?: with function name and arguments)? within"
    r" <tool_call>\s*+</tool_call>(?:(?: XML)? tags)?(?: as follows| with the following schema)?[.:]?",
    r"For each extraction function call return a json object with function name and arguments followed by a <tool_call>"
    r" tag with the following schema:",
    r"(?:Example:\s*+)?+<tool_call>\s*+\{[^{}\n]*+\}\s*+</tool_call>",
)
_PREAMBLE = re.compile(
    "|".join(rf"(?:{sentence})\s*+" for sentence in _PREAMBLE_SENTENCES).replace(" ", r"\s++"), re.IGNORECASE
)
"""The sentences of the usual tools preamble and its example of a call."""

_TAG_MENTION = re.compile(r"</?(?:tools|tool_call|tool_response)>")


def read_hermes(row: JsonObject) -> Draft:
    """The conversation of a Hermes row, with `from` and `value` or `role` and `content` in its turns.

    Tools are those of the row's `tools` and of the `<tools>` block in the system text, each name once; a tool in both
    is taken from the row. The block is removed, because a model's chat template writes its own, and with it the
    sentences on how to call; but if one of them is unknown and mentions the tags, all stay, so that no half of an
    instruction is left and nothing else is lost. The row's `system` field is read like a system turn.

    Calls are `<tool_call>` tags in the assistant's text with a JSON object, or a Python dict of the same meaning, or a
    list of these. The text around them, a scratch pad included, stays as content before the calls; a leading `<think>`
    block becomes reasoning. Results are `<tool_response>` tags in tool or user turns, or a tool turn's whole text.
    """
    refuse_media(row)
    messages: list[Message] = []
    offered = openai.tools_of(row)
    for turn in _turns(row):
        if turn.speaker in SHAREGPT_CALLS or any(turn.fields.get(key) for key in ("tool_calls", "function_call")):
            raise RowRejected(Reason.CALL_IN_TEXT, f"{turn.where} is a call beside calls that are written as text")
        role = read_role(turn.speaker, SHAREGPT_ROLES, SHAREGPT_ROLES, turn.where)
        if role == "system":
            text, tools = _read_system(read_content(turn.value, role, turn.where), turn.where)
            messages += [Message(role=role, content=text)] if text else []
            offered = openai.with_tools(offered, tools)
        elif role == "assistant":
            messages.append(_read_reply(turn, offered))
        elif role == "tool":
            messages += _read_results(turn)
        else:
            messages += _read_user(turn)
    return Draft(messages=messages, tools=offered)


def _turns(row: JsonObject) -> Iterator[Turn]:
    for message in with_system(row.get("system"), []):
        yield Turn("system", message.content, {}, "`system`")
    yield from read_turns(turns_of(row))


def offers_tools(text: str) -> bool:
    """Whether a system text has a `<tools>` tag with something in it."""
    return _tools_opening(text) is not None


def _tools_opening(text: str) -> int | None:
    """Where the `<tools>` tag that holds something begins; a preamble also mentions the tags with nothing in them."""
    opening = text.find(OPEN_TOOLS)
    while opening >= 0:
        begin = skip_space(text, opening + len(OPEN_TOOLS))
        if text[begin : begin + 1] in ("{", "["):
            return opening
        opening = text.find(OPEN_TOOLS, begin)
    return None


def _read_system(text: str, where: str) -> tuple[str, list[ToolSpec]]:
    opening = _tools_opening(text)
    if opening is None:
        return text, []
    closing = text.find(CLOSE_TOOLS, opening)
    if closing < 0:
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"{where}: {OPEN_TOOLS} has no {CLOSE_TOOLS}")
    values = _tool_values(text[opening + len(OPEN_TOOLS) : closing], where)
    around = text[:opening] + text[closing + len(CLOSE_TOOLS) :].lstrip()
    rest = _PREAMBLE.sub("", around)
    kept = around if _TAG_MENTION.search(rest) else rest
    return kept.strip(), openai.written_tools(values, where)


def _tool_values(text: str, where: str) -> list[Any]:
    """What a `<tools>` block holds: a list, or tools one by one, as JSON or (whole or by line) as Python dicts."""
    try:
        values, end = json_values(text, 0)
        if text[end:].strip():
            return _parse_literals(text)
    except StrictJsonError as error:
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"{where}: the tools in {OPEN_TOOLS}: {error}") from None
    return values


def _parse_literals(text: str) -> list[Any]:
    try:
        return [parse_literal(text)]
    except PythonicError:
        return [parse_json_or_literal(line) for line in text.split("\n") if line.strip()]


def _read_reply(turn: Turn, offered: Sequence[ToolSpec]) -> Message:
    # Read like a user's text, because the calls are still in it.
    given = turn.value if isinstance(turn.value, str) else read_content(turn.value, "user", turn.where)
    reasoning, text = openai.read_reasoning(turn.fields, given, None, turn.where)
    schemas = schemas_of(offered)
    spoken = take_calls(text, OPEN_CALL, lambda text, start: _read_calls(text, start, schemas, turn.where))
    if CLOSE_CALL in spoken.text:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{turn.where} has a {CLOSE_CALL} without {OPEN_CALL}")
    if OPEN_RESULT in spoken.text:
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{turn.where}: the assistant writes a {OPEN_RESULT} itself")
    content = openai.words_only(spoken.text, turn.where)
    learned = learned_of(turn.fields, turn.where)
    return Message(
        role="assistant", content=content, reasoning_content=reasoning, tool_calls=spoken.calls, learned=learned
    )


def _read_calls(text: str, start: int, schemas: Mapping[str, JsonObject], where: str) -> tuple[list[ToolCall], int]:
    """The calls of a tag and the position after it. A closing tag inside a JSON string does not end the call."""
    begin = skip_space(text, start)
    if opens_xml(text, begin, schemas):
        return xml_calls(text, begin, schemas, CLOSE_CALL, where)
    end = json_end(text, begin)
    closing = -1 if end is None else skip_space(text, end)
    if closing < 0 or not text.startswith(CLOSE_CALL, closing):
        closing = text.find(CLOSE_CALL, start)
    if closing < 0:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: {OPEN_CALL} has no {CLOSE_CALL}")
    try:
        value = parse_json_or_literal(text[begin:closing])
    except StrictJsonError as error:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: the call is {error}") from None
    if not isinstance(value, (dict, list)):
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: the call is {short(value)}, not an object")
    return list(read_calls(value, where)), closing + len(CLOSE_CALL)


def _read_results(turn: Turn) -> list[Message]:
    if not isinstance(turn.value, str) or OPEN_RESULT not in turn.value:
        return openai.read_turn(turn.fields, "tool", turn.value, turn.where)
    segments = list(_segments(turn.value, turn.where))
    if any(segment.strip() for segment, is_result in segments if not is_result):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{turn.where} has text beside its {OPEN_RESULT}")
    results = [_result(segment) for segment, is_result in segments if is_result]
    given = {key: text for key in ("name", "tool_call_id") if (text := optional_text(turn.fields, key, turn.where))}
    return [results[0].model_copy(update=given)] if len(results) == 1 else results


def _read_user(turn: Turn) -> list[Message]:
    """What the user says and, as templates render them, the results in it, in their order."""
    if not isinstance(turn.value, str) or OPEN_RESULT not in turn.value:
        return openai.read_turn(turn.fields, "user", turn.value, turn.where)
    return [
        _result(segment) if is_result else Message(role="user", content=segment.strip())
        for segment, is_result in _segments(turn.value, turn.where)
        if is_result or segment.strip()
    ]


def _segments(text: str, where: str) -> Iterator[tuple[str, bool]]:
    """The pieces of a text, and whether each stood in a `<tool_response>` tag."""
    position = 0
    while (opening := text.find(OPEN_RESULT, position)) >= 0:
        closing = text.find(CLOSE_RESULT, opening)
        if closing < 0:
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: {OPEN_RESULT} has no {CLOSE_RESULT}")
        yield text[position:opening], False
        yield text[opening + len(OPEN_RESULT) : closing], True
        position = closing + len(CLOSE_RESULT)
    yield text[position:], False


def _result(text: str) -> Message:
    content = text.strip()
    try:
        wrapped = openai.as_result(parse(content)) if content.startswith("{") else None
    except StrictJsonError:
        wrapped = None  # a tool may answer with any text
    return wrapped or Message(role="tool", content=content)


FORMAT = Format(read_hermes, COMMON_FIELDS | {*TURN_LISTS, "prompt", *PREFERRED}, reads_system=True)
