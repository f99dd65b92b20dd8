"""When2Call's questions: one request with a reply of each kind, of which one is right.

Source: the data format in the README of NVIDIA's When2Call. Its training rows are `messages`, see that module.
"""

import re
from typing import Any, NamedTuple

from orchestrator.core.records import MISSING_ARGUMENT, NO_FITTING_TOOL, JsonObject, SampleKind
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.strict_json import dump_loosely

FIELDS = frozenset({"question", "answers", "correct_answer", "target_tool"})

KINDS: dict[str, SampleKind] = {
    "direct": "answer",
    "tool_call": "tool_call",
    "request_for_info": "clarification",
    "cannot_answer": "answer",
}
"""The kind of sample that each right reply makes. Saying that no tool fits is an answer: nothing in it is harmful."""


_WRAPPED = re.compile(r"\s*<TOOLCALL>(.*)</TOOLCALL>\s*", re.DOTALL)
"""Calls as the training rows of When2Call mark them."""


class Labels(NamedTuple):
    """What a row says of its right reply."""

    kind: SampleKind | None = None
    tags: tuple[str, ...] = ()


def is_choice(row: JsonObject) -> bool:
    """Whether a row is a question with replies to choose from."""
    return all(row.get(key) is not None for key in ("question", "answers", "correct_answer"))


def choice_turns(row: JsonObject) -> list[JsonObject]:
    """The question and its right reply as turns of the messages format.

    Raises:
        RowRejected: If the right reply is of no known kind, missing, or a call that is not JSON.
    """
    kind = _right(row)
    answers = row["answers"]
    reply = answers.get(kind) if isinstance(answers, dict) else None
    if not isinstance(reply, str) or not reply.strip():
        raise RowRejected(Reason.NO_ANSWER, f"`answers` holds no text for {kind!r}, the right reply")
    asked = {"role": "user", "content": row["question"]}
    return [
        asked,
        {"role": "assistant", **({"tool_calls": _calls(reply)} if kind == "tool_call" else {"content": reply})},
    ]


def choice_labels(row: JsonObject) -> Labels:
    """Kind and tags of a row; none for a row of another sort.

    Raises:
        RowRejected: If the right reply is of no known kind.
    """
    if not is_choice(row):
        return Labels()
    right = _right(row)
    has_tools = row.get("tools") not in (None, "", "[]", [])
    tags = {
        "request_for_info": (MISSING_ARGUMENT,),
        "cannot_answer": (NO_FITTING_TOOL,) if has_tools else (),
    }
    return Labels(KINDS[right], tags.get(right, ()))


def _right(row: JsonObject) -> str:
    right = row["correct_answer"]
    if not isinstance(right, str) or right not in KINDS:
        detail = f"`correct_answer` is {dump_loosely(right)[:80]}, not one of {', '.join(KINDS)}"
        raise RowRejected(Reason.UNKNOWN_KIND, detail)
    return right


def _calls(reply: str) -> list[Any]:
    wrapped = _WRAPPED.fullmatch(reply)
    calls = parse_or_reject(wrapped[1] if wrapped else reply, Reason.CALL_NOT_JSON, "`answers`: the call is")
    return calls if isinstance(calls, list) else [calls]
