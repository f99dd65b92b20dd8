"""What the held-out parts share with train: an audit of the part files that `prepare` wrote."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.data.card import HeldOutName, LeakCard, Overlap
from orchestrator.run.paths import SplitName

MIN_ARGUMENT_CHARS = 4
"""Shorter values ("EUR", "3pm") recur in any two conversations."""
MAX_EXAMPLE_CHARS = 160
MOST_CUT = 8
"""Words by which a request may be longer than one that it repeats."""


def audit_leaks(
    parts: Mapping[SplitName, Path], near_duplicates: Mapping[HeldOutName, Overlap]
) -> dict[HeldOutName, LeakCard]:
    """Count what val and test share with train, from the files of the parts as `prepare` wrote them.

    A prompt is shared when the last user message of a sample is any user message of train, letter case, punctuation and
    white space aside. Argument values are texts of at least 4 characters at any depth in the arguments of any call,
    compared as they are. `near_duplicates` counts each held-out part's samples that resemble one of train (see
    `similar_to`). Reads each file once; takes about 100 bytes of memory for each different text of train.
    """
    train = _Train()
    for sample in _samples(parts["train"]):
        train.prompts.update(_folded_hash(text) for text in _user_texts(sample))
        train.arguments.update(map(hash, _argument_texts(sample)))
        train.tools.update(_tool_names(sample))
    return {part: _card(parts[part], train, near) for part, near in near_duplicates.items()}


@dataclass(frozen=True)
class Prompts:
    """What users say in conversations, and what they say last, as hashes of their words; whole, and with ends cut."""

    said: set[int] = field(default_factory=set)
    last: set[int] = field(default_factory=set)
    said_cut: set[int] = field(default_factory=set)
    last_cut: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, samples: Iterable[JsonObject]) -> "Prompts":
        """Those of samples as JSON objects."""
        found = cls()
        for sample in samples:
            texts = _user_texts(sample)
            found.said.update(map(_folded_hash, texts))
            found.last.update(map(_folded_hash, texts[-1:]))
            found.said_cut.update(cut for text in texts for cut in _cut(text))
            found.last_cut.update(cut for text in texts[-1:] for cut in _cut(text))
        return found

    def share(self, sample: JsonObject) -> bool:
        """Whether these conversations or a sample hold the last user message of the other.

        A message is the same if its words are, or if it has all of the other's and only a few more at its ends.
        """
        its = Prompts.of([sample])
        pairs = (
            (its.said, self.last_cut),
            (its.said_cut, self.last),
            (its.last, self.said_cut),
            (its.last_cut, self.said),
        )
        return any(not one.isdisjoint(other) for one, other in pairs)


@dataclass(frozen=True)
class _Train:
    """What train holds; texts as hashes, because the texts of a million samples would not fit in memory."""

    prompts: set[int] = field(default_factory=set)
    arguments: set[int] = field(default_factory=set)
    tools: set[str] = field(default_factory=set)


@dataclass
class _Shared:
    """Counts things of a held-out part, and those of them that train holds too."""

    count: int = 0
    n: int = 0
    example: str | None = None

    def add(self, text: str, *, is_shared: bool) -> None:
        self.n += 1
        if is_shared:
            self.count += 1
            self.example = self.example or _shortened(text)

    def overlap(self) -> Overlap:
        return Overlap(count=self.count, n=self.n, example=self.example)


def _card(path: Path, train: _Train, near_duplicates: Overlap) -> LeakCard:
    prompts, arguments, tools = _Shared(), _Shared(), _Shared()
    seen_arguments, seen_tools = set[int](), set[str]()
    for sample in _samples(path):
        for prompt in _user_texts(sample)[-1:]:
            prompts.add(f"{sample['source']}: {prompt}", is_shared=_folded_hash(prompt) in train.prompts)
        for text in _argument_texts(sample):
            if hash(text) not in seen_arguments:
                seen_arguments.add(hash(text))
                arguments.add(text, is_shared=hash(text) in train.arguments)
        for name in _tool_names(sample):
            if name not in seen_tools:
                seen_tools.add(name)
                tools.add(name, is_shared=name in train.tools)
    found = {"prompts": prompts.overlap(), "arguments": arguments.overlap(), "tools": tools.overlap()}
    return LeakCard(**found, near_duplicates=near_duplicates)


def _samples(path: Path) -> Iterator[JsonObject]:
    # The files were just written from checked samples: validating them again would take most of the time.
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _user_texts(sample: JsonObject) -> list[str]:
    return [message.get("content", "") for message in sample["messages"] if message["role"] == "user"]


def _tool_names(sample: JsonObject) -> list[str]:
    return [tool["function"]["name"] for tool in sample.get("tools", ())]


def _argument_texts(sample: JsonObject) -> Iterator[str]:
    pending: list[Any] = [
        call["function"]["arguments"] for message in sample["messages"] for call in message.get("tool_calls", ())
    ]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if len(value) >= MIN_ARGUMENT_CHARS:
                yield value
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _folded(text: str) -> list[str]:
    """The words without letter case and punctuation; all that is not white space where there are none."""
    return re.findall(r"\w+", text.casefold()) or text.split()


def _hash(words: Sequence[str]) -> int:
    return hash(" ".join(words))


def _folded_hash(text: str) -> int:
    return _hash(_folded(text))


def _cut(text: str) -> Iterator[int]:
    """Hashes of the text, and of it without up to a fifth of its words, at most `MOST_CUT`, at its ends."""
    words = _folded(text)
    most = min(MOST_CUT, len(words) // 5)
    for start in range(most + 1):
        for end in range(most - start + 1):
            yield _hash(words[start : len(words) - end])


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_EXAMPLE_CHARS else f"{line[: MAX_EXAMPLE_CHARS - 3]}..."
