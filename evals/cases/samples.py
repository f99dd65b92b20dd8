"""From samples to cases: one prompt for every assistant turn."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import ValidationError

from evals.judge.accepted_calls import ITEM_WORDS, TYPE_WORDS
from evals.records import AcceptedCall, Case
from orchestrator.core.errors import DataError
from orchestrator.core.records import (
    LABELS_OF_THE_LAST_TURN,
    SAMPLE_KINDS,
    JsonObject,
    Message,
    Sample,
)

Turns = Literal["all", "last"]
"""Which assistant turns of a conversation are cases, see `eval.turns`."""


def cases_from_samples(samples: Iterable[Sample], *, turns: Turns = "all") -> list[Case]:
    """One case per assistant turn that directly follows a user or tool message, or only for the last turn of all.

    The last assistant turn has the sample's id, kind and tags. Turn `i` before it (counting assistant turns from 0)
    has the id `<sample id>#<i>`, the kind `tool_call` or `answer` by what the data did there, and none of the tags
    that label what the last turn should be. A turn that the data does not want learned is no case. Two cases must not
    have one id (see `refuse_repeated_ids`).
    """
    cases = [case for sample in samples for case in _cases_of(sample, turns)]
    refuse_repeated_ids(cases)
    return cases


def refuse_repeated_ids(cases: Iterable[Case]) -> None:
    """DataError for cases that share an id, with how many ids and one of them: their replies would be mixed up."""
    repeated = [case_id for case_id, count in Counter(case.id for case in cases).items() if count > 1]
    if repeated:
        counted = "1 case id occurs" if len(repeated) == 1 else f"{len(repeated)} case ids occur"
        fix = "Give every sample its own id"
        raise DataError(f"{counted} more than once", where=repeated[0], allowed="one sample for each id", fix=fix)


def case_from_row(row: JsonObject, *, where: str) -> Case:
    """A case as it was written before, read again.

    Raises:
        DataError: With `where`, if the row is no case, or its accepted calls have types that no call can be held to.
    """
    try:
        case = Case.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"this is no case: {field}: {first['msg']}", where=where) from None
    for number, accepted in enumerate(case.accepted_calls):
        for name in accepted.arguments.keys() & accepted.types.keys():
            if problem := _type_problem(accepted, name):
                raise DataError(f"this is no case: accepted_calls.{number}: {name}: {problem}", where=where)
    return case


def _type_problem(accepted: AcceptedCall, name: str) -> str | None:
    word, item_word = accepted.types[name], accepted.item_types.get(name)
    words = TYPE_WORDS[accepted.language]
    unknown = [given for given in (word, item_word) if given is not None and given not in words]
    if unknown:
        return f"{unknown[0][:80]!r} is no type of {accepted.language}, which are {', '.join(words)}"
    if item_word is not None and word not in ITEM_WORDS:
        return f"{word!r} has no items, so these have no type"
    return None


def _cases_of(sample: Sample, wanted: Turns) -> list[Case]:
    turns = [position for position, message in enumerate(sample.messages) if message.role == "assistant"]
    last = len(turns) - 1
    return [
        _case(sample, position, turn=turn, is_last=turn == last)
        for turn, position in enumerate(turns)
        if position > 0
        and sample.messages[position].learned
        and _is_asked(sample.messages[:position])
        and (wanted == "all" or turn == last)
    ]


def _is_asked(before: Sequence[Message]) -> bool:
    """Whether a reply is due: to the user or a tool, or to a system message that comes later than the user."""
    role = before[-1].role
    return role in ("user", "tool") or (role == "system" and any(message.role == "user" for message in before))


def _case(sample: Sample, position: int, *, turn: int, is_last: bool) -> Case:
    reply = sample.messages[position]
    early_kind = "tool_call" if reply.tool_calls else "answer"
    early_tags = tuple(tag for tag in sample.tags if tag not in LABELS_OF_THE_LAST_TURN)
    return Case(
        id=sample.id if is_last else f"{sample.id}#{turn}",
        messages=tuple(map(_shown, sample.messages[:position])),
        tools=sample.tools,
        kind=sample.kind if is_last else early_kind,
        tags=sample.tags if is_last else early_tags,
        expected_calls=reply.tool_calls,
        expected_text=reply.content,
        original_names=sample.original_names,
        kind_inferred=sample.kind_inferred and is_last,
    )


def _shown(message: Message) -> Message:
    return message if message.learned else message.model_copy(update={"learned": True})


def draw_cases(cases: Iterable[Case], *, max_cases: int | None, seed: int) -> list[Case]:
    """At most `max_cases` cases, as evenly over kinds as there are cases, sorted by id; None takes all.

    Which cases are drawn depends on `seed` and on their ids, not on the order they come in.
    """
    shuffled = sorted(cases, key=lambda case: _rank(case.id, seed))
    piles = [[case for case in reversed(shuffled) if case.kind == kind] for kind in SAMPLE_KINDS]
    num_wanted = len(shuffled) if max_cases is None else min(max_cases, len(shuffled))
    drawn: list[Case] = []
    while len(drawn) < num_wanted:
        filled = [pile for pile in piles if pile]
        drawn.extend(pile.pop() for pile in filled[: num_wanted - len(drawn)])
    return sorted(drawn, key=lambda case: case.id)


def _rank(case_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{case_id}".encode()).digest()
