"""Rows of every format as canonical samples. Pure: reads no file and checks no schema (`quality` does)."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from orchestrator.config.evaluation import ROW_FORMATS, RowFormat
from orchestrator.core.records import (
    BENIGN,
    HARMFUL,
    SAMPLE_KINDS,
    JsonObject,
    Message,
    Sample,
    SampleKind,
    ToolSpec,
)
from orchestrator.core.remember import remembered
from orchestrator.data.formats.common import Format, short, with_system
from orchestrator.data.formats.turn_lists import turns_of
from orchestrator.data.formats.turn_order import TurnFinding, in_order
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.refusals import ReplyKind, classify_words

FORMATS: dict[RowFormat, Format] = {
    name: import_module(f"orchestrator.data.formats.{name}").FORMAT for name in ROW_FORMATS
}
"""Each format, as the module of its name exports it."""


class CanonicalRow(NamedTuple):
    """A row's sample, and what was found on the way.

    Its kind is inferred from its last turn, calls included, where the row gives none. `turns` say how its turns were
    put in order.
    """

    sample: Sample
    is_kind_inferred: bool
    turns: tuple[TurnFinding, ...]


def sample_from_row(row: JsonObject, row_format: RowFormat, *, source: str, keep_reasoning: bool) -> CanonicalRow:
    """The sample in a row of the given format.

    A row may give its `id`, `kind` and `tags` in any format. A missing id is made from the content, a missing kind
    inferred from the last turn, as is one that an earlier `prepare` inferred.
    """
    reader = FORMATS[row_format]
    draft = reader.read(row)
    turns = draft.messages if reader.reads_system else with_system(row.get("system"), draft.messages)
    if not turns:
        raise RowRejected(Reason.EMPTY_CONVERSATION, "the conversation has no turns")
    shown = [message if keep_reasoning else _without_reasoning(message) for message in _taught(turns)]
    messages, findings = in_order(shown)
    labelled = None if row.get("kind_inferred") is True else row.get("kind")
    given = _given_kind(draft.kind if labelled is None else labelled)
    tags = (*_tags(row.get("tags")), *draft.tags)
    _refuse_contradiction(given, tags)
    sample = Sample(
        id=_id(row.get("id")) or _made_id(messages, draft.tools),
        messages=tuple(messages),
        tools=draft.tools,
        kind=given or infer_kind(_last_reply(messages), has_tools=bool(draft.tools)),
        source=source,
        tags=tags,
        original_names=draft.original_names or _original_names(row.get("original_names")),
        # A call is a fact; only a kind inferred from words may agree with the scorer because both read them alike.
        kind_inferred=given is None and not _last_reply(messages).tool_calls,
    )
    return CanonicalRow(sample, is_kind_inferred=given is None, turns=findings)


def _taught(turns: list[Message]) -> list[Message]:
    """The turns up to the last that is learned: no token of it depends on what follows."""
    last = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    if last is None or last.learned:
        return turns
    ends = [place for place, turn in enumerate(turns, start=1) if turn.role == "assistant" and turn.learned]
    if not ends:
        raise RowRejected(Reason.NO_ASSISTANT_TURN, "every turn of the assistant is marked as not to be learned")
    return turns[: ends[-1]]


def _without_reasoning(message: Message) -> Message:
    if message.reasoning_content is None:
        return message
    return message.model_copy(update={"reasoning_content": None})


def _last_reply(turns: Sequence[Message]) -> Message:
    last = next((message for message in reversed(turns) if message.role == "assistant"), None)
    if last is None:
        raise RowRejected(Reason.NO_ASSISTANT_TURN, "the assistant says nothing")
    return last


def infer_kind(reply: Message, *, has_tools: bool) -> SampleKind:
    """The kind of a sample from its last turn: `tool_call` for a turn with calls, else what its words do.

    A question back is a clarification only where tools are offered: without them nothing is missing for a call. A reply
    that declines one part and delivers another is an answer. `refusals.classify_words` says what it misses.
    """
    if reply.tool_calls:
        return "tool_call"
    kind = classify_words(reply.content)
    if kind is ReplyKind.REFUSAL:
        return "refusal"
    return "clarification" if kind is ReplyKind.CLARIFICATION and has_tools else "answer"


def _original_names(given: Any) -> dict[str, str]:
    """Those of a sample that was written by `prepare` and is read again."""
    names = {} if given is None else given
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise RowRejected(Reason.MALFORMED_FIELD, "`original_names` does not map names to names")
    return names


def _given_kind(given: Any) -> SampleKind | None:
    if given is None:
        return None
    for kind in SAMPLE_KINDS:
        if kind == given:
            return kind
    raise RowRejected(Reason.UNKNOWN_KIND, f"kind {short(given)} is not one of {', '.join(SAMPLE_KINDS)}")


def _refuse_contradiction(given: SampleKind | None, tags: Sequence[str]) -> None:
    """A kind that was only inferred is not held against the tags: see `flags`."""
    if HARMFUL in tags and BENIGN in tags:
        raise RowRejected(Reason.LABELS_CONTRADICT, f"it is tagged both {HARMFUL} and {BENIGN}")
    if given is None:
        return
    if HARMFUL in tags and given != "refusal":
        raise RowRejected(Reason.LABELS_CONTRADICT, f"it is tagged {HARMFUL}, but its kind is {given}, not refusal")
    if BENIGN in tags and given == "refusal":
        raise RowRejected(Reason.LABELS_CONTRADICT, f"it is tagged {BENIGN}, but its kind is refusal")


def ignored_fields(row: JsonObject, row_format: RowFormat) -> Iterator[str]:
    """Name the fields of a row that hold something and have no place in a sample, each once, such as `turn.weight`."""
    reader = FORMATS[row_format]
    names = {name for name in row.keys() - reader.fields if _holds_something(row[name])}
    if reader.turn_fields is not None:
        for turn in turns_of(row):
            names |= {f"turn.{name}" for name in turn.keys() - reader.turn_fields if _holds_something(turn[name])}
    return iter(sorted(names))


def _holds_something(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


class Hashes(NamedTuple):
    """What tells a sample from others, whatever its calls' ids.

    `content` is the SHA-256 of its messages and tools, equal for exact duplicates. `taught` has 64 bits for each turn
    that it teaches, in order: those of the tools and all messages up to the turn, equal where samples begin alike.
    """

    content: bytes
    taught: tuple[int, ...]


def hashes_of(sample: Sample) -> Hashes:
    """The hashes of a sample.

    In `taught`, a turn is like none of another sample if it comes before the user's first, for samples that share it
    may start differently, and if it has thoughts: many templates show those only until the conversation goes on.
    """
    tools = _tools_text(sample.tools)
    texts, taught, is_asked = list[str](), list[bytes | None](), False
    beginning = hashlib.sha256(tools.encode())
    for message in map(_without_ids, sample.messages):
        content = _dumped(message)
        texts.append(json.dumps(content, sort_keys=True))
        content.pop("learned", None)
        beginning.update(json.dumps(content, sort_keys=True).encode())
        is_asked = is_asked or message.role == "user"
        if message.role == "assistant" and message.learned:
            taught.append(beginning.digest() if is_asked and message.reasoning_content is None else None)
    whole = _hash(texts, tools)
    alone = (hashlib.sha256(b"%b%d" % (whole, place)).digest() for place in range(len(taught)))
    numbers = (int.from_bytes((shared or own)[:8]) for shared, own in zip(taught, alone, strict=True))
    return Hashes(whole, tuple(numbers))


def _without_ids(message: Message) -> Message:
    if not message.tool_calls and message.tool_call_id is None:
        return message
    calls = tuple(call.model_copy(update={"id": None}) for call in message.tool_calls)
    return message.model_copy(update={"tool_calls": calls, "tool_call_id": None})


def _dumped(part: Message | ToolSpec) -> JsonObject:
    return part.model_dump(mode="json", exclude_none=True)


def _made_id(messages: Sequence[Message], tools: tuple[ToolSpec, ...]) -> str:
    texts = (json.dumps(_dumped(message), sort_keys=True) for message in messages)
    return _hash(texts, _tools_text(tools)).hex()[:16]


@remembered
def _tools_text(tools: tuple[ToolSpec, ...]) -> str:
    return json.dumps([_dumped(tool) for tool in tools], sort_keys=True)


def _hash(messages: Iterable[str], tools: str) -> bytes:
    """Of messages and tools as JSON texts."""
    return hashlib.sha256(f"[[{', '.join(messages)}], {tools}]".encode()).digest()


def _id(given: Any) -> str | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise RowRejected(Reason.MALFORMED_FIELD, "`id` is neither text nor an integer")
    return str(given)


def _tags(given: Any) -> tuple[str, ...]:
    tags = [] if given is None else given
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RowRejected(Reason.MALFORMED_FIELD, "`tags` is not a list of texts")
    return tuple(tags)
