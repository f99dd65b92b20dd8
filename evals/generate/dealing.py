"""Which engine answers what next: chunks of one adapter's cases, so that adapters seldom change."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from evals.generate.engine import Adapter, Prompt

MAX_CHUNK_CASES = 256
"""As many requests as vLLM works on at a time: more of them would only wait inside the engine."""


@dataclass(frozen=True)
class Work:
    """What is to be asked of one adapter, or of the base (`adapter` None)."""

    key: str
    adapter: Adapter | None
    prompts: Sequence[Prompt]


@dataclass(frozen=True)
class Chunk:
    """A part of a work for one engine. `is_retry` where an engine died on it before."""

    key: str
    adapter: Adapter | None
    prompts: tuple[Prompt, ...]
    is_retry: bool = False


@dataclass
class _Pile:
    work: Work
    prompts: deque[Prompt]
    retries: deque[Prompt] = field(default_factory=deque)
    num_engines: int = 0
    is_dropped: bool = False

    def __len__(self) -> int:
        return len(self.prompts) + len(self.retries)


class WorkQueue:
    """Deals works out to engines, in their order, and takes back what an engine left unanswered.

    A chunk is at most `MAX_CHUNK_CASES` and an even share of a work among `num_engines`.
    """

    def __init__(self, works: Sequence[Work], num_engines: int) -> None:
        self._piles = {work.key: _Pile(work, deque(work.prompts)) for work in works}
        self._num_engines = num_engines

    def deal(self, current: str | None) -> Chunk | None:
        """The next chunk for an engine that has the work `current` in place, None when nothing is left.

        The engine stays with its work as long as there is some; then it takes the first work that no engine is at, else
        the one with the most left.
        """
        filled = [pile for pile in self._piles.values() if len(pile)]
        if not filled:
            return None
        pile = next((pile for pile in filled if pile.work.key == current), None)
        pile = pile or next((pile for pile in filled if not pile.num_engines), None) or max(filled, key=len)
        pile.num_engines += 1
        is_retry = not pile.prompts
        # One by one, so that a case that kills engines takes no other case with it.
        share = math.ceil(len(pile.work.prompts) / self._num_engines)
        size, source = (1, pile.retries) if is_retry else (min(MAX_CHUNK_CASES, share), pile.prompts)
        taken = tuple(source.popleft() for _ in range(min(size, len(source))))
        return Chunk(pile.work.key, pile.work.adapter, taken, is_retry)

    def is_empty(self) -> bool:
        """Whether nothing is left to deal."""
        return not any(len(pile) for pile in self._piles.values())

    def finish(self, chunk: Chunk) -> None:
        """Say that an engine is done with a chunk."""
        self._piles[chunk.key].num_engines -= 1

    def take_back(self, chunk: Chunk, unanswered: Sequence[Prompt]) -> list[Prompt]:
        """Queue what a dead engine left of a chunk for one more try; the prompts that had it already are given up."""
        self.finish(chunk)
        if self._piles[chunk.key].is_dropped:
            return []
        if chunk.is_retry:
            return list(unanswered)
        self._piles[chunk.key].retries.extend(unanswered)
        return []

    def drop(self, key: str) -> None:
        """Ask no more of a work."""
        self._piles[key].is_dropped = True
        self._piles[key].prompts.clear()
        self._piles[key].retries.clear()
