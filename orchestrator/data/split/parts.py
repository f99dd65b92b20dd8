"""Assigns samples to train, val and test: by the hash of how they start, or by the tools that they call."""

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestrator.config.schema import SplitConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import SAMPLE_KINDS, Sample, SampleKind
from orchestrator.core.text import counted
from orchestrator.run.paths import SplitName

PARTS: tuple[SplitName, ...] = ("test", "val", "train")
MIN_MEMBERS = len(PARTS)
"""Samples, groups, or tools that are needed to put one into each part."""

KIND_BITS: dict[SampleKind, int] = {kind: 1 << place for place, kind in enumerate(SAMPLE_KINDS)}
ANY_BIT = 1 << len(SAMPLE_KINDS)
"""Bits of what a group holds: a sample of a kind, and a sample at all."""


class SplitItem(NamedTuple):
    """What the split needs to know about a sample. `content` is its content hash, `group` its `group_key`."""

    content: bytes
    group: bytes
    kind: SampleKind
    offered: tuple[str, ...]
    called: tuple[str, ...]


class Assignment(NamedTuple):
    """Where samples go.

    `parts` has one part for each item. `num_groups` sets of items that start alike were assigned as one; `moved_groups`
    of them went elsewhere than their hash says, so that no part lacks a kind. `held_out_tools` names the part of each
    tool that train must not see; empty by conversation.
    """

    parts: list[SplitName]
    num_groups: int
    moved_groups: int
    held_out_tools: dict[str, SplitName]


def group_key(sample: Sample) -> bytes:
    """Eight bytes that samples of one group share: the hash of the system message and the first user message."""
    first = sample.messages[0]
    system = first.content if first.role == "system" else None
    user = next((message.content for message in sample.messages if message.role == "user"), None)
    return hashlib.sha256(json.dumps([system, user]).encode()).digest()[:8]


def visible_tools(part: SplitName, offered: Sequence[str], held_out_tools: Mapping[str, SplitName]) -> tuple[str, ...]:
    """The offered tools that a sample of this part may show: train no held-out tool, val none of test, test all.

    Where `assign_parts` put the sample, no tool that it calls is left out, and never all that it offers.
    """
    hidden = {"train": ("val", "test"), "val": ("test",), "test": ()}[part]
    return tuple(name for name in offered if held_out_tools.get(name) not in hidden)


def assign_parts(items: Sequence[SplitItem], config: SplitConfig) -> Assignment:
    """Assign samples to the three parts.

    Samples with the same system message and first user message are one group and stay together, so that no part holds
    a conversation that starts like one of another.

    By conversation, a group's place is its hash against the thresholds `test` and `test + val`, and depends on nothing
    else: neither order nor more data moves it. Shares and the balance of kinds are therefore met on average, not
    exactly. One exception: a kind that three or more groups hold is in every part, and so is any sample at all. Where
    the hashes leave it out of one, the group with the smallest hash goes there, from the part where most groups hold
    it, unless groups of several kinds are so few that this would take another kind away there. More data can thus move
    a sample only while a kind is so rare, or the data so small, that hashes alone leave a part without it.

    By tool, each tool's hash decides in the same way whether it is held out for test or val. A group with a call of a
    test tool goes to test, another with a call of a val tool to val, another with any call to train; so do samples that
    call nothing and would be left without tools once the held-out ones are hidden (see `visible_tools`). Other groups
    go by their own hash, with the exception above. No tool of test is called in val, and no held-out tool in train. Of
    the tools that are called, at least one belongs to each part. More data moves a sample, beyond the exception, where
    another sample of its group calls a held-out tool, or where a part had got such a tool only by being short of one.

    Raises:
        DataError: If there are fewer than 3 samples or groups; by tool, also if fewer than 3 tools are called, or no
            conversation with a call is left for a part.
    """
    positions = {group: _position(group, config.seed) for group in {item.group for item in items}}
    _refuse_too_few(len(items), len(positions))
    held_out = _held_out_tools(items, config) if config.by == "tool" else {}
    bound = _bound_by_tools(items, held_out) if config.by == "tool" else {}
    dealt = {group: bound.get(group) or _part(position, config) for group, position in positions.items()}
    places = dict(dealt)
    _Filler(places, positions, _holdings(items), fixed=bound).fill()
    parts = [places[item.group] for item in items]
    if config.by == "tool":
        _refuse_missing_parts(items, parts)
    num_moved = sum(places[group] != part for group, part in dealt.items())
    return Assignment(parts, len(places), num_moved, held_out)


def _refuse_too_few(num_samples: int, num_groups: int) -> None:
    if num_samples < MIN_MEMBERS:
        raise DataError(
            f"{counted(num_samples, 'usable sample')} cannot be split into train, val and test",
            where="data.sources",
            allowed=f"at least {MIN_MEMBERS} samples",
            fix="Add conversations, or look at data/quarantine.jsonl for rows that were refused",
        )
    if num_groups < MIN_MEMBERS:
        raise DataError(
            f"the samples start in only {num_groups} different ways, too few for {MIN_MEMBERS} parts",
            where="data.split",
            fix="Add conversations with other first user messages",
        )


def _position(key: bytes, seed: int) -> float:
    """A number in [0, 1), spread evenly over keys."""
    digest = hashlib.sha256(b"%d\0%b" % (seed, key)).digest()
    # 53 bits: the most that a float holds exactly, so that rounding never reaches 1.0.
    return int.from_bytes(digest[:8]) // 2**11 / 2**53


def _part(position: float, config: SplitConfig) -> SplitName:
    if position < config.test:
        return "test"
    return "val" if position < config.test + config.val else "train"


def _holdings(items: Iterable[SplitItem]) -> dict[bytes, int]:
    """What each group holds, as bits: a set for each of a million groups would take hundreds of megabytes."""
    held: dict[bytes, int] = {}
    for item in items:
        held[item.group] = held.get(item.group, ANY_BIT) | KIND_BITS[item.kind]
    return held


class _Filler:
    """Moves keys, such as groups, until each bit that three or more of them hold is in every part.

    `places`, the part of each key, is changed in place; `positions` are hashes as numbers, `held` the bits that each
    key holds, `fixed` keys that must stay.
    """

    def __init__(
        self,
        places: dict[bytes, SplitName],
        positions: Mapping[bytes, float],
        held: Mapping[bytes, int],
        fixed: Container[bytes] = (),
    ) -> None:
        self._places, self._positions, self._held, self._fixed = places, positions, held, fixed
        self._counts: Counter[tuple[int, SplitName]] = Counter()
        for (bits, part), number in Counter((held[key], part) for key, part in places.items()).items():
            for bit in _bits(bits):
                self._counts[bit, part] += number
        held_bits = sorted({bit for bit, _ in self._counts})
        self._wanted = [bit for bit in held_bits if sum(self._counts[bit, part] for part in PARTS) >= MIN_MEMBERS]

    def fill(self) -> None:
        for bit in self._wanted:
            for part in PARTS:
                if self._counts[bit, part] == 0:
                    self._move_one(bit, part)

    def _move_one(self, bit: int, part: SplitName) -> None:
        # The part with most misses a key least; train comes first among equals.
        for donor in sorted(PARTS, key=lambda other: (self._counts[bit, other], other == "train"), reverse=True):
            spare = [key for key, place in self._places.items() if place == donor and self._can_spare(key, bit)]
            if spare:
                key = min(spare, key=lambda key: (self._positions[key], key))
                for held_bit in _bits(self._held[key]):
                    self._counts[held_bit, donor] -= 1
                    self._counts[held_bit, part] += 1
                self._places[key] = part
                return

    def _can_spare(self, key: bytes, bit: int) -> bool:
        bits = self._held[key]
        if not bits & bit or key in self._fixed:
            return False
        place = self._places[key]
        return all(self._counts[other, place] > 1 for other in self._wanted if bits & other)


def _bits(mask: int) -> Iterator[int]:
    return (1 << place for place in range(mask.bit_length()) if mask >> place & 1)


def _held_out_tools(items: Sequence[SplitItem], config: SplitConfig) -> dict[str, SplitName]:
    """The part of each offered or called tool that train must not see."""
    called = {name.encode() for item in items for name in item.called}
    if len(called) < MIN_MEMBERS:
        raise DataError(
            f"the samples call only {len(called)} different tools, too few to hold some out",
            where="data.split.by",
            allowed=f"at least {MIN_MEMBERS} tools that are called",
            fix="Add conversations that call other tools, or set data.split.by to conversation",
        )
    names = called.union(name.encode() for item in items for name in item.offered)
    positions = {name: _position(b"tool\0" + name, config.seed) for name in names}
    places = {name: _part(position, config) for name, position in positions.items()}
    held = {name: ANY_BIT if name in called else 0 for name in names}
    _Filler(places, positions, held, fixed=names - called).fill()
    return {name.decode(): part for name, part in sorted(places.items()) if part != "train"}


def _bound_by_tools(items: Iterable[SplitItem], held_out: Mapping[str, SplitName]) -> dict[bytes, SplitName]:
    """The part of each group that its tools decide: test before val before train."""
    bound: dict[bytes, SplitName] = {}
    for item in items:
        part = _part_by_tools(item, held_out)
        if part is not None:
            bound[item.group] = min(part, bound.get(item.group, part), key=PARTS.index)
    return bound


def _part_by_tools(item: SplitItem, held_out: Mapping[str, SplitName]) -> SplitName | None:
    parts = {held_out.get(name, "train") for name in item.called or item.offered}
    if not item.called and "train" in parts:
        return None
    return min(parts, key=PARTS.index, default=None)


def _refuse_missing_parts(items: Iterable[SplitItem], parts: Iterable[SplitName]) -> None:
    with_calls = {part for item, part in zip(items, parts, strict=True) if item.called}
    missing = [part for part in PARTS if part not in with_calls]
    if missing:
        raise DataError(
            f"no conversation with a call is left for {' and '.join(missing)}: those that call several tools, or start "
            "like others, follow the tool that is held out",
            where="data.split.by",
            fix="Set another data.split.seed or smaller shares, or set data.split.by to conversation",
        )
