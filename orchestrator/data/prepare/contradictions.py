"""Samples that ask the same and teach different replies: either may be wrong, or both right, and a person must look."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.data.prepare.collect import Samples

SPOKEN = ("role", "content", "reasoning_content", "name")


def contradictions(samples: Samples, kept: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Pairs of a kept sample and an earlier one with the same tools and turns but for the last, by index.

    A sample is in one pair at most, with the first that asks the same. Ids of calls are not looked at.
    """
    indices = list(kept)
    sizes = Counter(samples.items[index].group for index in indices)
    firsts: dict[bytes, tuple[int, bytes]] = {}
    for index in indices:
        if sizes[samples.items[index].group] == 1:
            continue  # nothing else starts like it
        value = samples.value(index)
        *asked, reply = map(_spoken, value["messages"])
        said = _digest(reply)
        first, said_first = firsts.setdefault(_digest([asked, value["tools"]]), (index, said))
        if said != said_first:
            yield index, first


def _spoken(message: JsonObject) -> list[Any]:
    return [*(message.get(key) for key in SPOKEN), [call["function"] for call in message.get("tool_calls", ())]]


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16]
