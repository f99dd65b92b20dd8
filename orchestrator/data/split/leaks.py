"""What the held-out parts share with train: an audit of the part files that `prepare` wrote."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.data.card import HeldOutName, LeakCard, Overlap
from orchestrator.run.paths import SplitName

MIN_ARGUMENT_CHARS = 4
"""Shorter values ("EUR", "3pm") recur in any two conversations."""
MAX_EXAMPLE_CHARS = 160


def audit_leaks(
    parts: Mapping[SplitName, Path], near_duplicates: Mapping[HeldOutName, Overlap]
) -> dict[HeldOutName, LeakCard]:
    """Count what val and test share with train, from the files of the parts as `prepare` wrote them.

    A prompt is shared when the last user message of a sample is any user message of train, letter case and white space
    aside. Argument values are texts of at least 4 characters at any depth in the arguments of any call, compared as
    they are. `near_duplicates` counts each held-out part's samples that resemble one of train (see `similar_to`). Reads
    each file once; takes about 100 bytes of memory for each different text of train.
    """
    train = _Train()
    for sample in _samples(parts["train"]):
        train.prompts.update(hash(_folded(text)) for text in _user_texts(sample))
        train.arguments.update(map(hash, _argument_texts(sample)))
        train.tools.update(_tool_names(sample))
    return {part: _card(parts[part], train, near) for part, near in near_duplicates.items()}


@dataclass(frozen=True)
class Prompts:
    """What users say in conversations, and what they say last, as hashes of texts without letter case and spaces."""

    said: set[int] = field(default_factory=set)
    last: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, samples: Iterable[JsonObject]) -> "Prompts":
        """Those of samples as JSON objects."""
        found = cls()
        for sample in samples:
            texts = [hash(_folded(text)) for text in _user_texts(sample)]
            found.said.update(texts)
            found.last.update(texts[-1:])
        return found

    def share(self, sample: JsonObject) -> bool:
        """Whether these conversations or a sample hold the last user message of the other."""
        its = Prompts.of([sample])
        return not (self.said.isdisjoint(its.last) and self.last.isdisjoint(its.said))


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
            prompts.add(f"{sample['source']}: {prompt}", is_shared=hash(_folded(prompt)) in train.prompts)
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


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_EXAMPLE_CHARS else f"{line[: MAX_EXAMPLE_CHARS - 3]}..."
