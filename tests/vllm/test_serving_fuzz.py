"""The strict readers against vLLM's parsers on thousands of broken replies of each notation.

Wherever the two read other calls, `serving_differs` says so. Where the strict reader finds nothing wrong, they differ
only in ways that are known by name. `make test-slow` asks for many more replies, with other seeds.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
from mutated import golds, mutated
from notations import NOTATIONS, reader, written
from serving_differences import Reading, unnamed

from orchestrator.chat.parse import parse_reply, serving_differs

pytestmark = pytest.mark.vllm

MUTATIONS = 11
"""So many broken replies are made of each whole one."""


def readings(notation: str, seed: int, number: int) -> list[Reading]:
    """What both readers read in whole and broken replies, all made from the seed."""
    row, rng, read = NOTATIONS[notation], random.Random(f"{notation} {seed}"), reader(notation)
    found: list[Reading] = []
    while len(found) < number:
        gold = golds(rng, row.max_calls)
        whole = written(notation, gold)
        for text in (whole, *(mutated(rng, whole) for _ in range(MUTATIONS))):
            strict = parse_reply(text, format=row.format, tools=gold.tools)
            found.append(Reading(gold, text, strict, read(text, gold.tools)))
    return found


def check(notation: str, found: list[Reading]) -> None:
    for it in found:
        assert not unnamed(notation, it), (it.text, it.calls, it.sent)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_broken_replies_differ_only_in_ways_that_have_a_name(notation: str) -> None:
    found = readings(notation, seed=0, number=72)
    assert sum(bool(it.strict.calls) for it in found) > 10
    assert sum(bool(it.strict.problems) for it in found) > 10
    check(notation, found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("notation", NOTATIONS)
def test_thousands_of_broken_replies(notation: str, seed: int, record_property: Callable[[str, Any], None]) -> None:
    found = readings(notation, seed, number=1200)
    agreed = sum(not serving_differs(it.strict, it.served) for it in found)
    record_property("agreement", f"{agreed} of {len(found)}")
    check(notation, found)
