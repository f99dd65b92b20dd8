"""Where a row keeps its turns: a list, a question with replies to choose from, a request with the reply preferred.

`learned_of` says which of the assistant's turns a row wants learned.
"""

import re
from typing import Any

from orchestrator.core.records import MISSING_ARGUMENT, NO_FITTING_TOOL, JsonObject, SampleKind
from orchestrator.data.formats.common import short
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject, parse_printed_or_reject
from orchestrator.notation.pythonic import parse_json_or_literal
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely

PROMPTS = ("prompt", "question", "instruction", "query")
"""Fields with what was asked, as text or turns, in rows that keep their replies apart."""
PREFERRED = ("chosen", "chosen_response")
"""Fields with the reply that a row prefers: TRL's, and When2Call's, which stands beside `messages`."""
REJECTED = ("rejected", "rejected_response")
RIVALS = (*zip(PREFERRED, REJECTED, strict=True), ("preferred_output", "non_preferred_output"))
"""Fields with a better and a worse reply to one request; the last are OpenAI's."""
LABELS = frozenset({"id", "kind", "kind_inferred", "tags"})
"""Fields that speak of the better reply alone."""
VERDICTS = ("label", "kto_tag")
"""Fields of KTO's rows that say whether the reply is a good one: TRL's and LLaMA-Factory's."""
ASKERS = frozenset({"user", "human", "system", "developer"})
"""Who speaks first in a conversation, in whatever words."""

LEARNING_FLAGS = ("learned", "weight", "train", "training", "loss", "loss_scale")
"""Fields that mark whether a turn is learned: `Message`'s, OpenAI's name, and those of axolotl and ms-swift."""

CHOICE_FIELDS = frozenset({"question", "answers", "correct_answer", "target_tool"})
"""Fields of a When2Call question, whose `answers` hold a reply of each kind (source: the README of the data set)."""

CHOICE_KINDS: dict[str, SampleKind] = {
    "direct": "answer",
    "tool_call": "tool_call",
    "request_for_info": "clarification",
    "cannot_answer": "answer",
}
"""The kind of sample that each right reply makes. Saying that no tool fits is an answer: nothing in it is harmful."""

_WRAPPED_CALLS = re.compile(r"\s*<TOOLCALL>(.*)</TOOLCALL>\s*", re.DOTALL)
"""Calls as the training rows of When2Call mark them."""


def learned_of(turn: JsonObject, where: str) -> bool:
    """Whether an assistant turn is learned, as one of `LEARNING_FLAGS` says; a turn that says nothing is.

    A weight between is refused: a token is learned or it is not.
    """
    said = {key: turn[key] for key in LEARNING_FLAGS if turn.get(key) not in (None, "")}
    weights = {key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in said.items()}
    odd = next((key for key, value in weights.items() if value not in (0, 1)), None)
    if odd is not None:
        detail = f"{where}: `{odd}` is {short(said[odd])}; a turn is learned (1, true) or not (0, false)"
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    if len({bool(weight) for weight in weights.values()}) > 1:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: {' and '.join(f'`{key}`' for key in said)} disagree")
    return all(weights.values())


def turns_of(row: JsonObject) -> list[Any]:
    """The turns of a row: its list of turns, the JSON text of one, or what stands in other fields.

    Those are ms-swift's `query`, `response` and `history`, and the question and right reply of When2Call. Where a row
    prefers one reply to another, that reply follows the turns, or is the conversation if it begins with the request.
    A row with two lists of turns is refused.
    """
    refuse_to_be_avoided(row)
    preferred = _preferred(row)
    named = _held(row)
    if not named and preferred is not None:
        return joined(_asked(row), preferred)
    if not named and is_choice(row):
        return _turns_of_choice(row)
    if not named and row.get("query") is not None and row.get("response") is not None:
        return _turns_of_query(row)
    if len(named) != 1:
        keys = ", ".join(sorted(row)[:10])[:200]
        none = f"has neither `messages` nor `conversations` (keys: {keys})"
        detail = f"has both `{named[0]}` and `{named[1]}`" if named else none
        raise RowRejected(Reason.UNKNOWN_FORMAT, f"the row {detail}")
    return joined(_listed(row, named[0]), preferred or [])


def refuse_to_be_avoided(row: JsonObject) -> None:
    """Refuse a row that one of `VERDICTS` marks as an example of what not to say."""
    verdict, is_good = _verdict(row)
    if is_good is False:
        raise RowRejected(Reason.TO_AVOID, f"`{verdict}` is false: the reply is one to avoid (KTO)")


def _verdict(row: JsonObject) -> tuple[str, bool | None]:
    """Which of `VERDICTS` a row has, and whether that calls the reply good; None where none says so.

    A table of text writes it as a word.
    """
    words = {"true": True, "false": False}
    for key in VERDICTS:
        said = row.get(key)
        value = words.get(said.strip().lower()) if isinstance(said, str) else said
        if isinstance(value, bool):
            return key, value
    return "", None


def with_rejected(row: JsonObject) -> JsonObject:
    """The row as if it preferred the reply that it rejects: that of two, or the one that its label calls bad.

    RowRejected for a row without such a reply, because of `UNPAIRED` where its label calls the only one good, else of
    `NO_RIVAL`.
    """
    named = [pair for pair in RIVALS if all(row.get(key) not in (None, "", []) for key in pair)]
    verdict, is_good = _verdict(row)
    if named:
        better, worse = named[0]
        return {key: value for key, value in row.items() if key not in LABELS} | {better: row[worse]}
    if is_good is None:
        raise RowRejected(Reason.NO_RIVAL, f"the row has no two replies ({' or '.join(map(' and '.join, RIVALS))})")
    if is_good:
        raise RowRejected(Reason.UNPAIRED, f"`{verdict}` is true: the row has one reply, a good one")
    return {key: value for key, value in row.items() if key not in (*LABELS, verdict)}


def has_turns(row: JsonObject) -> bool:
    """Whether a row has a list of turns, or prefers a reply that is one or more turns."""
    chosen = row.get(PREFERRED[0])
    is_words = isinstance(chosen, str) and not _is_turns_as_text(chosen)
    return bool(_held(row)) or (_preferred(row) is not None and not is_words)


def joined(asked: list[Any], reply: list[Any]) -> list[Any]:
    """What was asked and the turns that answer it; one of the two, where it holds the other."""
    if not reply or asked[-len(reply) :] == reply:
        return asked
    return reply if speaker_of(reply[0]) in ASKERS else [*asked, *reply]


def speaker_of(turn: Any) -> str:
    """Who speaks in a turn, in the words of its format; "" if that is not said."""
    if not isinstance(turn, dict):
        return ""
    fields = turn["kwargs"] if isinstance(turn.get("kwargs"), dict) else turn
    named = next((fields[key] for key in ("role", "from", "type") if isinstance(fields.get(key), str)), None)
    if named is None and isinstance(turn.get("id"), list) and turn["id"]:
        named = turn["id"][-1]  # a dump of LangChain's names the class
    return str(named or "").removesuffix("Message").lower()


def peeked(value: Any) -> list[Any]:
    """The elements of a list, or of the JSON text of one; none of any other value."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json_or_literal(value)
        except StrictJsonError:
            return []
    return value if isinstance(value, list) else []


def _held(row: JsonObject) -> list[str]:
    """The names of a row's lists of turns: those that hold any, else those that are there."""
    named = [key for key in TURN_LISTS if row.get(key) is not None]
    return [key for key in named if row[key] not in ("", [])] or named


def _listed(row: JsonObject, key: str) -> list[Any]:
    turns = row[key]
    if isinstance(turns, str):
        turns = parse_printed_or_reject(turns, Reason.MALFORMED_FIELD, f"`{key}` is")
    if not isinstance(turns, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{key}` is not a list")
    return turns


def _preferred(row: JsonObject) -> list[Any] | None:
    """The turns of the reply that a row prefers to another; None for a row that has no such reply."""
    rivals = any(row.get(key) is not None for key in REJECTED)
    named = [key for key in PREFERRED if row.get(key) is not None and (rivals or isinstance(row[key], (dict, list)))]
    if not named:
        return None
    reply = row[named[0]]
    if isinstance(reply, str) and _is_turns_as_text(reply):
        reply = parse_or_reject(reply, Reason.MALFORMED_FIELD, f"`{named[0]}` is")
    if isinstance(reply, str):
        reply = {"role": "assistant", "content": reply}
    turns = reply if isinstance(reply, list) else [reply]
    if not turns or not all(isinstance(turn, dict) for turn in turns):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{named[0]}` is {short(reply)}, neither text nor turns")
    return turns


def _is_turns_as_text(text: str) -> bool:
    """Whether a text looks like the JSON of turns."""
    return text.lstrip().startswith(("{", "[")) and ('"role"' in text or '"from"' in text)


def _asked(row: JsonObject) -> list[Any]:
    named = [key for key in PROMPTS if row.get(key) not in (None, "", [])]
    asked = row[named[0]] if named else []
    if isinstance(asked, str) and _is_turns_as_text(asked):
        asked = parse_or_reject(asked, Reason.MALFORMED_FIELD, f"`{named[0]}` is")
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    if not isinstance(asked, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{named[0]}` is {short(asked)}, neither text nor turns")
    return asked


def _turns_of_query(row: JsonObject) -> list[Any]:
    history = [] if row.get("history") is None else row["history"]
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise RowRejected(Reason.MALFORMED_FIELD, "`history` is not a list of pairs")
    turns = [text for pair in (*history, [row["query"], row["response"]]) for text in pair]
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(turns)]


def is_choice(row: JsonObject) -> bool:
    """Whether a row is a question of When2Call, with replies to choose from."""
    return all(row.get(key) is not None for key in ("question", "answers", "correct_answer"))


def _turns_of_choice(row: JsonObject) -> list[Any]:
    right = _right_reply(row)
    reply = row["answers"].get(right) if isinstance(row["answers"], dict) else None
    if not isinstance(reply, str) or not reply.strip():
        raise RowRejected(Reason.NO_ANSWER, f"`answers` holds no text for {right!r}, the right reply")
    said: JsonObject = {"content": reply}
    if right == "tool_call":
        wrapped = _WRAPPED_CALLS.fullmatch(reply)
        calls = parse_or_reject(wrapped[1] if wrapped else reply, Reason.CALL_NOT_JSON, "`answers`: the call is")
        said = {"tool_calls": calls if isinstance(calls, list) else [calls]}
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", **said}]


def choice_labels(row: JsonObject) -> tuple[SampleKind | None, tuple[str, ...]]:
    """Kind and tags of a When2Call question, from the sort of its right reply; none for a row of another sort."""
    if not is_choice(row):
        return None, ()
    right = _right_reply(row)
    has_tools = row.get("tools") not in (None, "", "[]", [])
    tags = {"request_for_info": (MISSING_ARGUMENT,), "cannot_answer": (NO_FITTING_TOOL,) if has_tools else ()}
    return CHOICE_KINDS[right], tags.get(right, ())


def _right_reply(row: JsonObject) -> str:
    right = row["correct_answer"]
    if not isinstance(right, str) or right not in CHOICE_KINDS:
        detail = f"`correct_answer` is {dump_loosely(right)[:80]}, not one of {', '.join(CHOICE_KINDS)}"
        raise RowRejected(Reason.UNKNOWN_KIND, detail)
    return right
