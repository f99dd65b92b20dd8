"""Glaive function calling v2: `chat` as one text, tools as JSON objects in `system`, arguments in single quotes.

Source: the glaive-function-calling-v2 set.
"""

import re
from typing import Any, NamedTuple

from orchestrator.data.formats import messages as openai
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    Draft,
    read_call,
    read_tool,
    with_calls,
)
from orchestrator.data.formats.written import json_end, json_values, skip_spaces, split_reasoning, take_calls
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.data.strict_json import Fault, StrictJsonError, parse
from orchestrator.records import JsonObject, Message, Role, ToolCall, ToolSpec

FIELDS = COMMON_FIELDS | {"chat", "functions"}

SPEAKERS: dict[str, Role] = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
OPEN_CALL = "<functioncall>"
END_OF_TEXT = "<|endoftext|>"

TURN_START = re.compile(rf"^(?:{'|'.join(SPEAKERS)}):", re.MULTILINE)
_SYSTEM_START = re.compile(r"\s*+SYSTEM:")
_TOOLS_FOLLOW = re.compile(
    r"following functions(?:\. Use them if (?:required|needed)| to help the user)?"
    r"(?:, you can use the functions if needed)? ?[-:.]?\s*+(?=[{\[])"
)
_SENTENCE_ENDS = ".!?\n"
_NO_TOOLS_SENTENCE = re.compile(r"You are an? (?:helpful )?assistant,? with no access to external functions\.?")
_CALL_HEAD = re.compile(r'\{\s*+"name"\s*+:\s*+("(?:[^"\\]++|\\.)*+")\s*+,\s*+"arguments"\s*+:\s*+\'')
_CALL_END = re.compile(r"\s*+'\s*+\}")


def read_glaive(row: JsonObject) -> Draft:
    """The conversation of a Glaive row. The row's `system` is in the draft's messages as far as it is kept.

    Turns begin at a line with `USER:`, `ASSISTANT:` or `FUNCTION RESPONSE:`. The tools in `system` become tools, and
    the sentence that introduces them, or says that there are none, is removed: a model's chat template has its own.
    Calls of the assistant, alone or after a text, are one message with the assistant's turn before them.

    Raises:
        RowRejected: If a part of the row has no place in a sample.
    """
    chat, system = row.get("chat"), row.get("system")
    if not isinstance(chat, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`chat` is not text")
    if system is not None and not isinstance(system, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`system` is not text")
    text, written = _read_system(system or "")
    messages = [Message(role="system", content=text)] if text else []
    for number, (role, said) in enumerate(_turns(chat), start=1):
        message = _message(role, said, f"turn {number}")
        messages = with_calls(messages, message) if message.tool_calls else [*messages, message]
    given = openai.tools_of(row)
    names = {tool.function.name for tool in given}
    return Draft(messages=messages, tools=(*given, *(tool for tool in written if tool.function.name not in names)))


def _read_system(text: str) -> tuple[str, list[ToolSpec]]:
    start = _SYSTEM_START.match(text)
    body = text[start.end() :].strip() if start else text.strip()
    introduced = _TOOLS_FOLLOW.search(body)
    if introduced is None and '"parameters"' in body:
        raise RowRejected(Reason.TOOLS_NOT_JSON, "`system` holds tools that no sentence introduces")
    if introduced is None:
        return _NO_TOOLS_SENTENCE.sub("", body).strip(), []
    try:
        tools, end = json_values(body, introduced.end())
    except StrictJsonError as error:
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"the tools in `system` are {error}") from None
    rest = body[end:].strip()
    if not tools or rest.startswith(("{", "[")):
        raise RowRejected(Reason.TOOLS_NOT_JSON, f"tool {len(tools) + 1} in `system` is not JSON")
    begin = 1 + max(body.rfind(mark, 0, introduced.start()) for mark in _SENTENCE_ENDS)
    listed = [tool for value in tools for tool in (value if isinstance(value, list) else [value])]
    specs = [read_tool(tool, f"tool {number} in `system`") for number, tool in enumerate(listed, start=1)]
    kept = "\n\n".join(part for part in (body[:begin].strip(), rest) if part)
    return kept, [openai.with_json_schema(spec, "`system`") for spec in specs]


def _turns(chat: str) -> list[tuple[Role, str]]:
    starts = list(TURN_START.finditer(chat))
    before = chat[: starts[0].start()] if starts else chat
    if before.strip():
        raise RowRejected(Reason.MALFORMED_FIELD, "`chat` has text before the first USER: or ASSISTANT:")
    ends = [*(start.start() for start in starts), len(chat)][1:]
    return [
        (SPEAKERS[start[0][:-1]], chat[start.end() : end].replace(END_OF_TEXT, "").strip())
        for start, end in zip(starts, ends, strict=True)
    ]


def _message(role: Role, text: str, where: str) -> Message:
    if role != "assistant":
        return Message(role=role, content=text)
    reasoning, reply = split_reasoning(text, where)
    spoken = take_calls(reply, OPEN_CALL, lambda text, start: _read_function_call(text, start, where))
    content = openai.words_only(spoken.text, where)
    return Message(role=role, content=content, reasoning_content=reasoning, tool_calls=spoken.calls)


def _read_function_call(text: str, start: int, where: str) -> tuple[list[ToolCall], int]:
    begin = skip_spaces(text, start)
    end = json_end(text, begin)
    try:
        call, end = _quoted_call(text, begin) if end is None else (parse(text[begin:end]), end)
    except StrictJsonError as error:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: the call is {error}") from None
    return [read_call(call, where)], end


class _QuotedCall(NamedTuple):
    call: Any
    end: int


def _quoted_call(text: str, begin: int) -> _QuotedCall:
    r"""A call whose arguments are JSON text in single quotes, and the position after it.

    The quotes need no escaping: apostrophes inside are part of JSON strings. Where the writer escaped them all the
    same, `\'` is an apostrophe, if no other backslash is doubled, which would leave open what was meant.

    Raises:
        StrictJsonError: If there is no such call.
    """
    head = _CALL_HEAD.match(text, begin)
    if head is None:
        return _QuotedCall(parse(text[begin:]), len(text))
    arguments = head.end()
    end = json_end(text, arguments)
    closing = None if end is None else _CALL_END.match(text, end)
    if closing is not None:
        written, after = text[arguments : closing.start()], closing.end()
    else:
        written, after = _escaped_arguments(text, arguments)
    return _QuotedCall({"name": parse(head[1]), "arguments": parse(written)}, after)


def _escaped_arguments(text: str, start: int) -> tuple[str, int]:
    opening = text.find(OPEN_CALL, start)
    end = len(text) if opening < 0 else opening
    inner = text[start:end].rstrip()
    quoted = inner.removesuffix("}").rstrip()
    if not inner.endswith("}") or not quoted.endswith("'") or "\\\\" in quoted:
        raise StrictJsonError(Fault("malformed", "not JSON: the arguments are not JSON in single quotes"))
    return quoted[:-1].replace("\\'", "'"), end
