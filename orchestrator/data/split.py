"""Deals samples to train, val and test by the hash of what they start with."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.config import SplitConfig
from orchestrator.errors import DataError
from orchestrator.records import Sample
from orchestrator.runs import SplitName

MIN_SAMPLES = 3


class Split(NamedTuple):
    """The three parts, each in the order given, and how many groups were dealt."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    num_groups: int


def split_samples(samples: Sequence[Sample], config: SplitConfig) -> Split:
    """Deal samples to the three parts.

    Samples with the same system message and first user message are one group and stay together, so that no part holds
    a conversation that starts like one of another. A group's place is its hash against the thresholds `test` and
    `test + val`, and depends on nothing else: neither order nor more data moves it. Shares and the balance of kinds are
    therefore met on average, not exactly.

    One exception: where a part whose share is above 0 (train always is) would be empty, the group with the smallest
    hash of the part with most groups goes there. Only in such small data can more data move a sample.

    Raises:
        DataError: If there are fewer than 3 samples, or fewer groups than parts to fill.
    """
    if len(samples) < MIN_SAMPLES:
        raise DataError(
            f"{len(samples)} usable samples cannot be split into train, val and test",
            where="data.sources",
            allowed=f"at least {MIN_SAMPLES} samples",
            fix="Add conversations, or look at data/quarantine.jsonl for rows that were refused",
        )
    positions = {key: _position(key, config.seed) for key in map(group_key, samples)}
    places = {key: _part(position, config) for key, position in positions.items()}
    _fill_empty_parts(places, positions, config)
    parts: dict[SplitName, list[Sample]] = {"train": [], "val": [], "test": []}
    for sample in samples:
        parts[places[group_key(sample)]].append(sample)
    return Split(tuple(parts["train"]), tuple(parts["val"]), tuple(parts["test"]), len(places))


def group_key(sample: Sample) -> str:
    """What samples of one group share: the system message and the first user message, as JSON."""
    system = next((message.content for message in sample.messages if message.role == "system"), None)
    user = next((message.content for message in sample.messages if message.role == "user"), None)
    return json.dumps([system, user])


def _position(key: str, seed: int) -> float:
    """A number in [0, 1), spread evenly over keys."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    # 53 bits: the most that a float holds exactly, so that rounding never reaches 1.0.
    return int.from_bytes(digest[:8]) // 2**11 / 2**53


def _part(position: float, config: SplitConfig) -> SplitName:
    if position < config.test:
        return "test"
    return "val" if position < config.test + config.val else "train"


def _fill_empty_parts(places: dict[str, SplitName], positions: dict[str, float], config: SplitConfig) -> None:
    shares: dict[SplitName, float] = {"test": config.test, "val": config.val, "train": 1.0}
    wanted: list[SplitName] = [part for part, share in shares.items() if share > 0]
    if len(places) < len(wanted):
        raise DataError(
            f"the samples start in only {len(places)} different ways, too few for {len(wanted)} parts",
            where="data.split",
            fix="Add conversations with other first user messages",
        )
    for empty in wanted:
        if empty in places.values():
            continue
        members = {part: [key for key, place in places.items() if place == part] for part in wanted}
        fullest = max(members.values(), key=len)
        places[min(fullest, key=lambda key: (positions[key], key))] = empty
