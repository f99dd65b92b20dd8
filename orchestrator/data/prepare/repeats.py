"""Rows that teach what another row teaches: which of them stay, whatever the order of the rows."""

import json
from array import array
from collections import Counter

import numpy as np

from orchestrator.config.schema import DataConfig
from orchestrator.core.records import JsonObject, QuarantinedRow
from orchestrator.data.card import RepeatCount
from orchestrator.data.clean.duplicates import near_duplicates
from orchestrator.data.prepare.collect import Samples, SourceTally
from orchestrator.data.read.sources import clip_raw
from orchestrator.data.rejection import Quarantine, Reason

LIKENESS = {
    Reason.DUPLICATE: "the same messages and tools as",
    Reason.NEAR_DUPLICATE: "almost the same words as",
}
MAX_TEXT_CHARS = 100
"""How much of what is asked, and of the reply, an example shows."""

Repeats = dict[int, tuple[int, Reason]]
"""For each sample that is set aside the sample that is kept, and why; by index."""


def without_repeats(
    samples: Samples, config: DataConfig, tallies: list[SourceTally], quarantine: Quarantine
) -> tuple["array[int]", dict[str, RepeatCount]]:
    """Indices of the samples that stay, in reading order, and how many go to the quarantine, by reason."""
    repeats: Repeats = {}
    kept = _first_of_each(samples, repeats)
    if config.near_duplicate_threshold is not None:
        _set_near_duplicates_aside(samples, kept, config.near_duplicate_threshold, repeats)
    for index, (first, reason) in sorted(repeats.items()):
        quarantine.add(_repeated(samples, index, first, reason))
        tallies[samples.sources[index]].quarantined[reason] += 1
    return array("Q", (index for index in range(len(samples)) if index not in repeats)), _counts(samples, repeats)


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
    rank = np.empty(len(kept), dtype=np.int64)
    rank[np.argsort(contents)] = np.arange(len(kept))
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
