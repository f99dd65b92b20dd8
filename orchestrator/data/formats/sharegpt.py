"""ShareGPT rows in their dialects: turns with `from` and `value`, or `role` and `content`, calls as turns of their own.

Sources: the data documentation of LLaMA-Factory (human, gpt, function_call, observation) and of ms-swift (tool_call,
tool_response; `query`, `response`, `history`; pairs of `human` and `assistant`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestrator.core.records import JsonObject, Message, Role
from orchestrator.data.formats import messages as openai
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    Draft,
    Format,
    by_fields,
    read_calls,
    read_role,
    refuse_media,
    split_reasoning,
    text_field,
    with_calls,
)
from orchestrator.data.formats.turn_lists import PREFERRED, learned_of, turns_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_printed_or_reject

SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "observation": "tool",
    "tool": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function": "tool",
    "function_response": "tool",
}
SHAREGPT_CALLS = ("function_call", "tool_call", "tool_calls")
"""Speakers of turns that hold the assistant's calls as JSON."""


class Turn(NamedTuple):
    """A turn in whatever keys it was written: who speaks, what is said, and the turn itself for its other fields."""

    speaker: str
    value: Any
    fields: JsonObject
    where: str


def read_sharegpt(row: JsonObject) -> Draft:
    """The conversation of a ShareGPT row: its turns and optional `tools`.

    A call turn holds one call or a list as JSON, after thoughts in a `<think>` block if any, and becomes the
    `tool_calls` of an assistant message; calls that follow each other, or follow the assistant's text, are one message.
    """
    refuse_media(row)
    messages, tools = list[Message](), openai.tools_of(row)
    for turn in read_turns(turns_of(row)):
        if turn.speaker in SHAREGPT_CALLS:
            messages[-1:] = with_calls(messages[-1:], _calling(turn))
        else:
            role = read_role(turn.speaker, SHAREGPT_ROLES, (*SHAREGPT_ROLES, *SHAREGPT_CALLS), turn.where)
            messages += openai.read_turn(turn.fields, role, turn.value, turn.where, tools)
    return Draft(messages=messages, tools=tools)


def read_turns(turns: Sequence[Any]) -> list[Turn]:
    """Turns written with `from` or `role` and `value`, `content` or `text`, or as pairs of `human` and `assistant`."""
    read: list[Turn] = []
    for number, turn in enumerate(turns, start=1):
        where = f"turn {number}"
        if is_pair(turn):
            read += [Turn(speaker, turn[speaker], {}, where) for speaker in ("human", "assistant")]
            continue
        speaker = text_field(turn, "from" if isinstance(turn, dict) and turn.get("from") is not None else "role", where)
        given = [turn[key] for key in ("value", "content") if turn.get(key) is not None] or [turn.get("text")]
        if len(given) == 2 and given[0] != given[1]:
            raise RowRejected(Reason.MALFORMED_FIELD, f"{where} has both `value` and `content`")
        read.append(Turn(speaker, given[0], turn, where))
    return read


def is_pair(turn: Any) -> bool:
    """Whether a turn is ms-swift's pair of a question and its answer."""
    return isinstance(turn, dict) and {"human", "assistant"} <= turn.keys() and not {"from", "role"} & turn.keys()


def _calling(turn: Turn) -> Message:
    reasoning, calls = None, turn.value
    if isinstance(calls, str):
        is_json = calls.lstrip()[:1] in ("{", "[")  # a closing tag inside the JSON ends no thoughts
        reasoning, text = split_reasoning(calls, turn.where, needs_opening=is_json)
        value = parse_printed_or_reject(text, Reason.CALL_NOT_JSON, f"{turn.where}: the call is")
        calls = value if isinstance(value, list) else [value]
    for key in ("tool_calls", "function_call", *openai.THOUGHT_FIELDS):
        if turn.fields.get(key) not in (None, "", []):
            raise RowRejected(Reason.MALFORMED_FIELD, f"{turn.where}: a {turn.speaker} turn has `{key}`")
    learned, read = learned_of(turn.fields, turn.where), read_calls(calls, turn.where)
    return Message(role="assistant", reasoning_content=reasoning, tool_calls=read, learned=learned)


FORMAT = Format(
    read_sharegpt,
    COMMON_FIELDS | {*TURN_LISTS, "query", "response", "history", "prompt", *PREFERRED},
    openai.TURN_FIELDS | {"from", "value", "text", "human", "assistant"},
    hint=("conversations",),
    recognise=by_fields("query", "response", "history"),
    precedence=7,
)
