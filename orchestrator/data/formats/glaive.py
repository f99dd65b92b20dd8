"""Glaive function calling v2: `chat` as one text, tools as JSON objects in `system`, arguments in single quotes.

Sets that were made of it as lists of turns are read too: their calls still stand in the assistant's text after
`<functioncall>`, or in turns of a `function-call`, and their tools in the system text.

Source: the glaive-function-calling-v2 set and its conversions to ShareGPT and ChatML.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from orchestrator.core.records import JsonObject, Message, Role, ToolCall, ToolSpec
from orchestrator.data.formats import messages as openai
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    Draft,
    Format,
    read_call,
    read_content,
    read_role,
    refuse_media,
    split_reasoning,
    take_calls,
    with_calls,
)
from orchestrator.data.formats.loose_schema import read_tool, with_json_schema
from orchestrator.data.formats.sharegpt import SHAREGPT_CALLS, SHAREGPT_ROLES, Turn, read_turns
from orchestrator.data.formats.turn_lists import learned_of, turns_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import Fault, StrictJsonError, json_end, json_values, parse, skip_space

SPEAKERS: dict[str, Role] = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
OPEN_CALL, CLOSE_CALL = "<functioncall>", "</functioncall>"
END_OF_TEXT = "<|endoftext|>"

CALL_SPEAKER = "function-call"
TURN_ROLES: dict[str, Role] = {**SHAREGPT_ROLES, CALL_SPEAKER: "assistant", "function-response": "tool"}
"""Speakers in lists of turns."""

TURN_START = re.compile(rf"^({'|'.join(SPEAKERS)}):", re.MULTILINE)
_SYSTEM_START = re.compile(r"\s*+SYSTEM:")
_TOOLS_FOLLOW = re.compile(
    r"following functions(?:\. Use them if (?:required|needed)| to help the user)?"
    r"(?:, you can use the functions if needed)? ?[-:.]?\s*+(?=[{\[])"
)
_SENTENCE_ENDS = ".!?\n"
_NO_TOOLS_SENTENCE = re.compile(r"You are an? (?:helpful )?assistant,? with no access to external functions\.?")
_NAME = r'"name"\s*+:\s*+("(?:[^"\\]++|\\.)*+")'
_NAME_FIRST = re.compile(rf'\{{\s*+{_NAME}\s*+,\s*+"arguments"\s*+:\s*+\'')
_ARGUMENTS_FIRST = re.compile(r'\{\s*+"arguments"\s*+:\s*+\'')
_CALL_END = re.compile(r"\s*+'\s*+\}")
_CALL_END_WITH_NAME = re.compile(rf"\s*+'\s*+,\s*+{_NAME}\s*+\}}")
_LEFT_OVER = "}]'\","
"""What cannot begin words after a call, but ends one that has a bracket or quote too many."""


class _Said(NamedTuple):
    """A turn of the row's `chat` or list; `is_call` where the text is a call without its mark."""

    role: Role
    text: str
    where: str
    is_call: bool = False
    learned: bool = True


def read_glaive(row: JsonObject) -> Draft:
    """The conversation of a Glaive row. The row's `system` is in the draft's messages as far as it is kept.

    Turns begin at a line with `USER:`, `ASSISTANT:` or `FUNCTION RESPONSE:`, or are a list. The tools in `system`
    become tools, and the sentence that introduces them, or says that there are none, is removed: a model's chat
    template has its own. Calls of the assistant, alone or after a text, are one message with the assistant's turn
    before them.
    """
    refuse_media(row)
    messages: list[Message] = []
    written: list[ToolSpec] = []
    for said in _said(row):
        if isinstance(said, Message):
            messages.append(said)
        elif said.role == "system":
            text, tools = _read_system(said.text)
            messages += [Message(role="system", content=text)] if text else []
            written += tools
        else:
            message = _message(said)
            messages[-1:] = with_calls(messages[-1:], message) if message.tool_calls else [*messages[-1:], message]
    return Draft(messages=messages, tools=openai.with_tools(openai.tools_of(row), written))


def _said(row: JsonObject) -> Iterator[_Said | Message]:
    chat, system = row.get("chat"), row.get("system")
    if system is not None and not isinstance(system, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`system` is not text")
    yield _Said("system", system or "", "`system`")
    if chat is None and any(row.get(key) is not None for key in TURN_LISTS):
        for turn in read_turns(turns_of(row)):
            yield from _listed(turn)
        return
    if not isinstance(chat, str):
        raise RowRejected(Reason.MALFORMED_FIELD, "`chat` is not text")
    yield from _turns(chat)


def _listed(turn: Turn) -> Iterator[_Said | Message]:
    if turn.speaker in SHAREGPT_CALLS or any(turn.fields.get(key) for key in ("tool_calls", "function_call")):
        raise RowRejected(Reason.CALL_IN_TEXT, f"{turn.where} is a call beside calls that are written as text")
    role = read_role(turn.speaker, TURN_ROLES, TURN_ROLES, turn.where)
    if role in ("user", "tool"):
        yield from openai.read_turn(turn.fields, role, turn.value, turn.where)
        return
    # Read like a user's text, because the calls are still in it.
    text = turn.value if isinstance(turn.value, str) else read_content(turn.value, "user", turn.where)
    learned = role != "assistant" or learned_of(turn.fields, turn.where)
    yield _Said(role, text, turn.where, turn.speaker == CALL_SPEAKER, learned)


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
    return kept, [with_json_schema(spec, f"`system` ({spec.function.name[:80]})") for spec in specs]


def _turns(chat: str) -> Iterator[_Said]:
    """The turns of a chat.

    In the set, every `AI:` within a text was replaced by a mark of a new turn, and long rows are cut off. A turn is
    therefore refused that begins without the empty line that divides the others, that has an end of text inside, or
    that is words without the end of text that the row has elsewhere.
    """
    before, *pieces = TURN_START.split(chat)
    if before.strip():
        raise RowRejected(Reason.MALFORMED_FIELD, "`chat` has text before the first USER: or ASSISTANT:")
    turns = [(SPEAKERS[speaker], raw) for speaker, raw in zip(pieces[::2], pieces[1::2], strict=True)]
    has_ends = any(role == "assistant" and raw.rstrip().endswith(END_OF_TEXT) for role, raw in turns)
    is_divided: bool | None = None
    for number, (role, raw) in enumerate(turns, start=1):
        where, text = f"turn {number}", raw.strip()
        if has_ends and role == "assistant" and not text.endswith(END_OF_TEXT) and OPEN_CALL not in text:
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is cut off: it has no {END_OF_TEXT}, as others have")
        yield _Said(role, text, where)
        divides = raw[len(raw.rstrip()) :].count("\n") > 1
        if number < len(turns) and is_divided not in (None, divides):
            detail = f"turn {number + 1} begins in the middle of a text, without the empty line that divides others"
            raise RowRejected(Reason.MALFORMED_FIELD, detail)
        is_divided = divides


def _whole(text: str, said: _Said) -> str:
    """The words of a turn, in which no other turn ends."""
    if END_OF_TEXT in text:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{said.where} ({said.role}) has a {END_OF_TEXT} in the middle")
    return text


def _message(said: _Said) -> Message:
    body = said.text.strip().removesuffix(END_OF_TEXT).strip()
    if said.role != "assistant":
        return Message(role=said.role, content=_whole(body, said))
    reasoning, reply = split_reasoning(body, said.where)
    if said.is_call:
        reply = OPEN_CALL + reply
    spoken = take_calls(reply, OPEN_CALL, lambda text, start: _read_function_call(text, start, said.where))
    if said.is_call and spoken.text:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{said.where}: there is text after the call")
    content = openai.words_only(_whole(spoken.text, said), said.where)
    return Message(
        role=said.role,
        content=content,
        reasoning_content=reasoning,
        tool_calls=spoken.calls,
        learned=said.learned,
    )


def _read_function_call(text: str, start: int, where: str) -> tuple[list[ToolCall], int]:
    begin = skip_space(text, start)
    end = json_end(text, begin)
    try:
        call, end = _quoted_call(text, begin) if end is None else (parse(text[begin:end]), end)
    except StrictJsonError as error:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: the call is {error}") from None
    after = skip_space(text, end)
    if text[after : after + 1] and text[after] in _LEFT_OVER:
        raise RowRejected(Reason.CALL_NOT_JSON, f"{where}: a {text[after]} is left over after the call")
    return [read_call(call, where)], after + len(CLOSE_CALL) if text.startswith(CLOSE_CALL, after) else end


def _quoted_call(text: str, begin: int) -> tuple[Any, int]:
    r"""A call whose arguments are JSON text in single quotes, and the position after it.

    The quotes need no escaping: apostrophes inside are part of JSON strings. Where the writer escaped them all the
    same, `\'` is an apostrophe, if no other backslash is doubled, which would leave open what was meant. Any other text
    is a StrictJsonError.
    """
    head = _NAME_FIRST.match(text, begin)
    if head is None:
        return _call_with_name_last(text, begin)
    arguments = head.end()
    end = json_end(text, arguments)
    closing = None if end is None else _CALL_END.match(text, end)
    if closing is not None:
        written, after = text[arguments : closing.start()], closing.end()
    else:
        written, after = _escaped_arguments(text, arguments)
    return {"name": parse(head[1]), "arguments": parse(written)}, after


def _call_with_name_last(text: str, begin: int) -> tuple[Any, int]:
    head = _ARGUMENTS_FIRST.match(text, begin)
    end = None if head is None else json_end(text, head.end())
    closing = None if end is None else _CALL_END_WITH_NAME.match(text, end)
    if head is None or closing is None:
        return parse(text[begin:]), len(text)
    arguments = parse(text[head.end() : closing.start()])
    return {"name": parse(closing[1]), "arguments": arguments}, closing.end()


def _escaped_arguments(text: str, start: int) -> tuple[str, int]:
    opening = text.find(OPEN_CALL, start)
    end = len(text) if opening < 0 else opening
    inner = text[start:end].rstrip()
    quoted = inner.removesuffix("}").rstrip()
    if not inner.endswith("}") or not quoted.endswith("'") or "\\\\" in quoted:
        raise StrictJsonError(Fault("malformed", "not JSON: the arguments are not JSON in single quotes"))
    return quoted[:-1].replace("\\'", "'"), end


def _recognised(row: JsonObject) -> str | None:
    chat = row.get("chat")
    return "`chat` is a text with USER: and ASSISTANT:" if isinstance(chat, str) and TURN_START.search(chat) else None


FORMAT = Format(
    read_glaive,
    COMMON_FIELDS | {"chat", *TURN_LISTS},
    reads_system=True,
    hint=("chat", "system"),
    recognise=_recognised,
    precedence=1,
)
