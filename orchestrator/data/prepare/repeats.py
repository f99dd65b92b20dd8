"""Rows that teach what another row teaches: which of them stay, whatever the order of the rows."""

import json
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from orchestrator.config.schema import DataConfig
from orchestrator.core.records import LABELS_OF_THE_LAST_TURN, JsonObject, QuarantinedRow
from orchestrator.data.card import RepeatCount
from orchestrator.data.clean.duplicates import near_duplicates
from orchestrator.data.prepare.collect import Samples, SourceTally
from orchestrator.data.read.sources import clip_raw
from orchestrator.data.rejection import Quarantine, Reason

LIKENESS = {
    Reason.BEGINNING: "all that it teaches stands in a row that begins alike,",
    Reason.DUPLICATE: "the same messages and tools as",
    Reason.NEAR_DUPLICATE: "almost the same words as",
}
MAX_TEXT_CHARS = 100
"""How much of what is asked, and of the reply, an example shows."""

Repeats = dict[int, tuple[int, Reason]]
"""For each sample that is set aside the sample that is kept, and why; by index."""


class Unlike(NamedTuple):
    """Which samples stay, by index in reading order.

    `repeats` counts those that do not, by reason. `untaught` has the places, among the turns that a sample would teach,
    of those that another teaches: each turn is learned once.
    """

    kept: "array[int]"
    repeats: dict[str, RepeatCount]
    untaught: dict[int, list[int]]


def without_repeats(samples: Samples, config: DataConfig, tallies: list[SourceTally], quarantine: Quarantine) -> Unlike:
    """Choose among samples that teach the same; the others go to the quarantine."""
    repeats: Repeats = {}
    firsts = _first_of_each(samples, repeats)
    shared = samples.shared_turns()
    _untaught(samples, firsts, shared, repeats)
    if config.near_duplicate_threshold is not None:
        longest = array("Q", (index for index in firsts if index not in repeats))
        _set_near_duplicates_aside(samples, longest, config.near_duplicate_threshold, repeats)
    untaught = _untaught(samples, (index for index in firsts if index not in repeats), shared, repeats)
    for index, (first, reason) in sorted(repeats.items()):
        quarantine.add(_repeated(samples, index, first, reason))
        tallies[samples.sources[index]].quarantined[reason] += 1
    kept = array("Q", (index for index in firsts if index not in repeats))
    return Unlike(kept, _counts(samples, repeats), untaught)


def _untaught(samples: Samples, indices: Iterable[int], shared: set[int], repeats: Repeats) -> dict[int, list[int]]:
    """Give every shared turn to one sample; those to which no turn of their own is left go to `repeats`.

    A turn goes to the sample whose label says what it should be, if there is one, else to the longest, so that what is
    left does not depend on the order of the rows.
    """
    teachers: dict[int, int] = {}
    untaught: dict[int, list[int]] = {}
    sharing = [index for index in indices if not shared.isdisjoint(samples.taught(index))]
    for index in sorted(sharing, key=lambda index: _precedence(samples, index)):
        turns = samples.taught(index)
        taken = [place for place, turn in enumerate(turns) if turn in teachers]
        if len(taken) == len(turns) and not _is_labelled(samples, index):
            repeats[index] = (teachers[turns[-1]], Reason.BEGINNING)
            continue
        for turn in turns:
            teachers.setdefault(turn, index)
        if others := [place for place in taken if place < len(turns) - 1]:
            untaught[index] = others  # the last turn gives a sample its kind: it is always learned
    return untaught


def _precedence(samples: Samples, index: int) -> tuple[bool, int, bytes]:
    length, is_labelled = len(samples.taught(index)), _is_labelled(samples, index)
    return not is_labelled, length if is_labelled else -length, samples.items[index].content


def _is_labelled(samples: Samples, index: int) -> bool:
    """Whether the row itself says of its last turn what it would not be taken for inside a longer conversation."""
    is_given = not samples.kinds_inferred[index] and samples.items[index].kind in ("refusal", "clarification")
    return is_given or not LABELS_OF_THE_LAST_TURN.isdisjoint(samples.tags[index])


def _first_of_each(samples: Samples, repeats: Repeats) -> "array[int]":
    """Of equal samples, the one whose labels come first, so that the order of the rows decides nothing."""
    firsts: dict[bytes, int] = {}
    for index, item in enumerate(samples.items):
        first = firsts.setdefault(item.content, index)
        if first == index:
            continue
        if _labels(samples, index) < _labels(samples, first):
            firsts[item.content], first, index = index, index, first
        repeats[index] = (first, Reason.DUPLICATE)
    return array("Q", sorted(firsts.values()))


def _labels(samples: Samples, index: int) -> tuple[str, str, tuple[str, ...]]:
    return samples.ids[index], samples.items[index].kind, samples.tags[index]


def _set_near_duplicates_aside(samples: Samples, kept: "array[int]", threshold: float, repeats: Repeats) -> None:
    contents = np.array([samples.items[index].content for index in kept])
    lengths = np.array([len(samples.taught(index)) for index in kept])
    rank = np.empty(len(kept), dtype=np.int64)
    rank[np.lexsort((contents, -lengths))] = np.arange(len(kept))  # the longer one stays: it teaches more
    indices = np.asarray(kept, dtype=np.int64)
    found = near_duplicates(samples.signatures[indices], rank, threshold, lambda place: samples.words(kept[place]))
    repeats.update((kept[place], (kept[first], Reason.NEAR_DUPLICATE)) for place, first in found.items())


def _repeated(samples: Samples, index: int, first: int, reason: Reason) -> QuarantinedRow:
    source, line = samples.place(index)
    detail, raw = f"{LIKENESS[reason]} {samples.name(first)}", clip_raw(samples.line(index))
    return QuarantinedRow(source=source, line=line, reason=reason, detail=detail, raw=raw)


def _counts(samples: Samples, repeats: Repeats) -> dict[str, RepeatCount]:
    counts = Counter(reason for _, reason in repeats.values())
    firsts = {reason: min(index for index, found in repeats.items() if found[1] == reason) for reason in counts}
    return {
        reason: RepeatCount(
            count=counts[reason],
            row=_in_words(samples, firsts[reason]),
            kept=_in_words(samples, repeats[firsts[reason]][0]),
        )
        for reason in sorted(counts)
    }


def _in_words(samples: Samples, index: int) -> str:
    """A sample by its place, what is asked last and the reply."""
    messages: list[JsonObject] = samples.value(index)["messages"]
    asked = next((turn.get("content", "") for turn in reversed(messages) if turn["role"] == "user"), "")
    reply = messages[-1]
    calls = [
        f"{call['function']['name']}({json.dumps(call['function']['arguments'], ensure_ascii=False)})"
        for call in reply.get("tool_calls", ())
    ]
    said = " ".join(filter(None, [reply.get("content", ""), *calls]))
    return f"{samples.name(index)} ({_clipped(asked)} -> {_clipped(said)})"


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT_CHARS else f"{line[: MAX_TEXT_CHARS - 3]}..."
