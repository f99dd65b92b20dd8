"""Turns in the order in which people have them, as a conversation that chat templates can show.

A row ends with the assistant's last turn; turns of one speaker that follow each other are one; results stand in the
order of their calls, for templates print no ids. What one template shows and another refuses stays as it is: rendering
with the base's own template decides. Every change, and everything left to the template, is a `TurnFinding`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Literal, NamedTuple

from orchestrator.core.records import Message, ToolCall
from orchestrator.data.formats.common import with_calls

TurnCode = Literal[
    "trimmed_tool_results",
    "trimmed_user_turns",
    "trimmed_system_messages",
    "trimmed_empty_replies",
    "joined_system_messages",
    "joined_user_turns",
    "joined_assistant_turns",
    "reordered_results",
    "assistant_first",
    "no_user_turn",
    "late_system_message",
    "user_after_result",
    "unanswered_call",
    "assistant_twice",
]
"""What was done to a row's turns, and from `assistant_first` on what is left to the chat template."""

PARAGRAPH = "\n\n"
"""Between the texts of turns that become one."""

_TRIMMED: dict[str, TurnCode] = {
    "tool": "trimmed_tool_results",
    "user": "trimmed_user_turns",
    "system": "trimmed_system_messages",
    "assistant": "trimmed_empty_replies",
}
_JOINED: dict[str, TurnCode] = {
    "system": "joined_system_messages",
    "user": "joined_user_turns",
    "assistant": "joined_assistant_turns",
}


class TurnFinding(NamedTuple):
    """Something about the order of a row's turns; `detail` is one clause."""

    code: TurnCode
    detail: str


class Ordered(NamedTuple):
    """A row's turns, and what was done to them or left to the template, each code once."""

    messages: list[Message]
    findings: tuple[TurnFinding, ...]


def in_order(turns: Sequence[Message]) -> Ordered:
    """The turns of a row up to the assistant's last, with joined turns and with results in the order of their calls.

    Each result gets the name of its call: by `tool_call_id`, else by its name, else by place if none is missing. Turns
    in which the assistant says nothing at all are left alone, but for those at the end.
    """
    ended, trimmed = _to_last_reply(turns)
    joined, joins = _joined(ended)
    linked, moves = _with_results(joined)
    found = dict[TurnCode, TurnFinding]()
    for finding in (*trimmed, *joins, *moves, *_left_to_template(linked)):
        found.setdefault(finding.code, finding)
    return Ordered(linked, tuple(found.values()))


def _to_last_reply(turns: Sequence[Message]) -> tuple[Sequence[Message], Iterator[TurnFinding]]:
    places = [place for place, turn in enumerate(turns, start=1) if turn.role == "assistant" and not _is_empty(turn)]
    end = places[-1] if places else len(turns)
    detail = f"the row has {len(turns)} turns and ends with the assistant's last, turn {end}"
    return turns[:end], (TurnFinding(_TRIMMED[turn.role], detail) for turn in turns[end:])


def _is_empty(turn: Message) -> bool:
    return not turn.content.strip() and not turn.tool_calls


def _joined(turns: Sequence[Message]) -> tuple[list[Message], list[TurnFinding]]:
    messages: list[Message] = []
    findings: list[TurnFinding] = []
    for number, turn in enumerate(turns, start=1):
        last = messages[-1:]
        both = _one_turn(last[0], turn) if last else None
        if both is None:
            messages.append(turn)
        else:
            messages[-1] = both
            findings.append(TurnFinding(_JOINED[turn.role], f"turns {number - 1} and {number} are one"))
    return messages, findings


def _one_turn(first: Message, second: Message) -> Message | None:
    """Two turns as one, None where they are of two speakers or have to stay apart."""
    if first.role != second.role or first.role == "tool":
        return None
    if first.role != "assistant":
        content = PARAGRAPH.join(text for text in (first.content, second.content) if text)
        return first.model_copy(update={"content": content})
    if first.tool_calls and not second.tool_calls:
        return None  # what is said after a call rests on its result
    joined = with_calls([first], second)
    return joined[0] if len(joined) == 1 else None


def _with_results(messages: Sequence[Message]) -> tuple[list[Message], list[TurnFinding]]:
    linked: list[Message] = []
    findings: list[TurnFinding] = []
    calls: tuple[ToolCall, ...] = ()
    for is_result, group in groupby(messages, key=lambda message: message.role == "tool"):
        turns = list(group)
        if not is_result:
            linked += turns
            calls = turns[-1].tool_calls
            continue
        answered = _answered(turns, calls)
        results = [_named(result, calls, place) for result, place in zip(turns, answered, strict=True)]
        places = [place for place in answered if place is not None]
        if places != sorted(places) and len(set(places)) == len(results):
            order = sorted(range(len(results)), key=places.__getitem__)
            results = [results[number] for number in order]
            detail = f"the {len(results)} results from turn {len(linked) + 1} on stand in the order of their calls"
            findings.append(TurnFinding("reordered_results", detail))
        linked += results
    return linked, findings


def _answered(results: Sequence[Message], calls: Sequence[ToolCall]) -> list[int | None]:
    """The place of the call that each result answers."""
    by_id = {call.id: place for place, call in enumerate(calls) if call.id}
    by_name: dict[str, deque[int]] = {}
    for place, call in enumerate(calls):
        by_name.setdefault(call.function.name, deque()).append(place)
    answered: list[int | None] = []
    for place, result in enumerate(results):
        if result.tool_call_id and by_id:
            answered.append(by_id.get(result.tool_call_id))
        elif result.name:
            named = by_name.get(result.name)
            answered.append(named.popleft() if named else None)
        else:
            answered.append(place if len(results) == len(calls) else None)
    return answered


def _named(result: Message, calls: Sequence[ToolCall], place: int | None) -> Message:
    if place is None:
        return result
    call = calls[place]
    link = {"tool_call_id": result.tool_call_id or call.id, "name": result.name or call.function.name}
    return result.model_copy(update=link)


def _left_to_template(messages: Sequence[Message]) -> Iterator[TurnFinding]:
    if all(message.role != "user" for message in messages):
        yield TurnFinding("no_user_turn", "the user says nothing")
    elif next(message.role for message in messages if message.role != "system") == "assistant":
        yield TurnFinding("assistant_first", "the assistant speaks before the user")
    for number, (turn, following) in enumerate(pairwise(messages), start=2):
        where = f"turn {number}"
        if following.role == "system":
            yield TurnFinding("late_system_message", f"{where} is a system message, after {turn.role}")
        if turn.tool_calls and following.role != "tool":
            yield TurnFinding("unanswered_call", f"{where} is {following.role}, and the calls before it have no result")
        if turn.role == "tool" and following.role == "user":
            yield TurnFinding("user_after_result", f"{where} is user, after a tool's result")
        if turn.role == following.role == "assistant":
            yield TurnFinding("assistant_twice", f"{where} is assistant, after assistant")
