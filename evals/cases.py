"""From held-out samples to cases: one prompt for every assistant turn."""

import hashlib
from collections import Counter
from collections.abc import Iterable

from evals.records import Case
from orchestrator.errors import DataError
from orchestrator.records import (
    BENIGN,
    HARMFUL,
    MISSING_ARGUMENT,
    NO_FITTING_TOOL,
    SAMPLE_KINDS,
    Sample,
)

_LABELS_OF_THE_LAST_TURN = frozenset({HARMFUL, BENIGN, NO_FITTING_TOOL, MISSING_ARGUMENT})


def cases_from_samples(samples: Iterable[Sample]) -> list[Case]:
    """One case per assistant turn that directly follows a user or tool message.

    The last assistant turn has the sample's id, kind and tags. Turn `i` before it (counting assistant turns from 0)
    has the id `<sample id>#<i>`, the kind `tool_call` or `answer` by what the data did there, and none of the tags
    that label what the last turn should be.

    Raises:
        DataError: If two cases have one id, for then replies could not be told apart.
    """
    cases = [case for sample in samples for case in _cases_of(sample)]
    repeated = [case_id for case_id, count in Counter(case.id for case in cases).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} case ids occur more than once",
            where=repeated[0],
            allowed="one sample for each id",
            fix="Give every sample its own id",
        )
    return cases


def _cases_of(sample: Sample) -> list[Case]:
    turns = [position for position, message in enumerate(sample.messages) if message.role == "assistant"]
    return [
        _case(sample, position, turn=turn, is_last=turn == len(turns) - 1)
        for turn, position in enumerate(turns)
        if position > 0 and sample.messages[position - 1].role in ("user", "tool")
    ]


def _case(sample: Sample, position: int, *, turn: int, is_last: bool) -> Case:
    reply = sample.messages[position]
    early_kind = "tool_call" if reply.tool_calls else "answer"
    early_tags = tuple(tag for tag in sample.tags if tag not in _LABELS_OF_THE_LAST_TURN)
    return Case(
        id=sample.id if is_last else f"{sample.id}#{turn}",
        messages=sample.messages[:position],
        tools=sample.tools,
        kind=sample.kind if is_last else early_kind,
        tags=sample.tags if is_last else early_tags,
        expected_calls=reply.tool_calls,
        expected_text=reply.content,
    )


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
