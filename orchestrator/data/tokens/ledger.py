"""What the tokens of a part come to, row by row and in sum."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.records import Record, SampleKind
from orchestrator.data.card import KindTokens, LeftOut, TokenCard

NUM_BINS, FIRST_BIN = 12, 32
"""At most so many bins of a histogram; the first never ends below this length."""


class LedgerRow(Record):
    """One tokenised sample, in the order of the stored rows. `turns` are the places of the learned messages."""

    id: str
    kind: SampleKind
    tokens: int
    learned_tokens: int
    turns: tuple[int, ...]


@dataclass
class Tally:
    """What a part's rows come to while they are written."""

    left_out: list[LeftOut] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    learned: int = 0
    shortened: int = 0
    unlearned_turns: int = 0
    by_kind: dict[SampleKind, KindTokens] = field(default_factory=dict)

    def add(self, entry: LedgerRow, *, unlearned_turns: int, is_shortened: bool) -> None:
        """Count one row that is trained on."""
        self.lengths[entry.tokens] += 1
        self.learned += entry.learned_tokens
        self.shortened += is_shortened
        self.unlearned_turns += unlearned_turns
        before = self.by_kind.get(entry.kind, KindTokens(samples=0, tokens=0, learned_tokens=0))
        self.by_kind[entry.kind] = KindTokens(
            samples=before.samples + 1,
            tokens=before.tokens + entry.tokens,
            learned_tokens=before.learned_tokens + entry.learned_tokens,
        )

    def card(self, mask: Literal["marked template", "derived"]) -> TokenCard:
        """The card of a part with at least one row."""
        return TokenCard(
            samples=self.lengths.total(),
            tokens=sum(length * count for length, count in self.lengths.items()),
            learned_tokens=self.learned,
            longest=max(self.lengths),
            shortened=self.shortened,
            unlearned_turns=self.unlearned_turns,
            by_kind=dict(sorted(self.by_kind.items())),
            histogram=histogram(self.lengths),
            left_out=tuple(self.left_out),
            mask=mask,
        )


def histogram(lengths: Counter[int]) -> tuple[tuple[int, int], ...]:
    """Counts of lengths as (up_to, samples), from the shortest to the longest that occurs, in at most `NUM_BINS` bins.

    Two bins for each doubling of the length (32, 48, 64, 96, ...), so that few long samples do not flatten the rest;
    what is shorter than the first bin's start is counted in it.
    """
    edges = [edge << step for step in range(max(lengths).bit_length()) for edge in (FIRST_BIN, FIRST_BIN * 3 // 2)]
    last = bisect_left(edges, max(lengths))
    first = max(bisect_left(edges, min(lengths)), last - NUM_BINS + 1)
    bins = Counter(dict.fromkeys(edges[first : last + 1], 0))
    for length, count in lengths.items():
        bins[edges[max(first, bisect_left(edges, length))]] += count
    return tuple(sorted(bins.items()))
