"""Which samples a slot sees at a step, and how the samples of all slots become that step's passes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from orchestrator.plan.passes import CPU_PASS_TOKENS

IGNORED = -100
"""Label of a token that carries no loss."""
LENGTH_STEP = 32
"""Rows are padded to a multiple of it. Shapes that recur find their kernels compiled and their blocks in the heap:
SmolLM2-135M trains 7 % faster on a CPU and holds a fifth less, though it computes 4 % more tokens."""


@dataclass(frozen=True)
class PassSize:
    """The most of each slot that one pass holds. The same for any number of slots, so that sums group alike.

    Attributes:
        rows: Rows of a slot.
        tokens: Rows of a slot times the longest row. A single row may be longer.
        overhead: A pass's cost besides its tokens, in tokens of a slot.
    """

    rows: int
    tokens: float = math.inf
    overhead: int = 0

    def holds(self, rows: int, longest: int) -> bool:
        """Whether so many rows of each slot fit a pass."""
        return rows == 1 or (rows <= self.rows and rows * longest <= self.tokens)


def pass_size(device: torch.device, rows: int) -> PassSize:
    """The size that trains fastest, with at most so many rows of a slot.

    On a CPU a pass that exceeds the caches is slower: about 1,200 tokens of a slot for each thread train 3 to 30 %
    faster than 2,300, most with many slots, and no slower with one. A GPU is faster the fuller it is.
    """
    if device.type == "cuda":
        return PassSize(rows, overhead=4000)
    return PassSize(rows, tokens=CPU_PASS_TOKENS * torch.get_num_threads(), overhead=100)


@dataclass(frozen=True)
class TokenRows:
    """Tokenised samples end to end: row i is `ids[offsets[i]:offsets[i + 1]]`, with as many labels."""

    ids: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def of(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> "TokenRows":
        """Rows given as (token ids, labels)."""
        offsets = np.cumsum([0, *(len(ids) for ids, _ in rows)])
        ids, labels = (np.concatenate([np.asarray(row[i], dtype=np.int64) for row in rows]) for i in (0, 1))
        return TokenRows(ids, labels, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.offsets)

    @cached_property
    def padded(self) -> np.ndarray:
        """What each row is padded to at least."""
        return padded_lengths(self.lengths)

    def first(self, number: int) -> list[tuple[list[int], list[int]]]:
        """Token ids and labels of the first rows."""
        bounds = list(zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True))[:number]
        return [(self.ids[start:end].tolist(), self.labels[start:end].tolist()) for start, end in bounds]

    def learned(self, index: int) -> np.ndarray:
        """Positions of a row whose next token carries loss."""
        labels = self.labels[self.offsets[index] : self.offsets[index + 1]]
        return np.flatnonzero(labels[1:] != IGNORED)


def padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """What each row is padded to at least; never more than the longest has."""
    padded: np.ndarray = np.minimum(-(-lengths // LENGTH_STEP) * LENGTH_STEP, lengths.max(initial=0))
    return padded


def samples_of_step(num_rows: int, batch_size: int, *, seed: int, step: int) -> list[int]:
    """Rows of the optimizer step after `step` steps: every row once per epoch, in a new order each time.

    Batches are always full; one that an epoch ends in is filled up from the next.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(_epoch_order(num_rows, seed, place // num_rows)[place % num_rows]) for place in places]


@lru_cache(maxsize=64)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass: equally many rows of each slot, a slot's together, padded at the end.

    Attributes:
        ids: Token ids, rows x length. Padding is any token: in a causal model nothing before it sees it.
        positions: Hidden states that feed the loss, as indices into the flattened rows x length.
        targets: The tokens that they must predict.
        learned: How many of those belong to each slot.
        ranks: The place of each row in its slot's batch, which dropout is drawn by.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    learned: tuple[int, ...]
    ranks: tuple[int, ...]


def split_ranks(lengths: np.ndarray, size: PassSize) -> list[tuple[int, int]]:
    """Cut each slot's rows into passes at the least cost. Returns first and last (exclusive) place of each pass.

    `lengths` are tokens, slots x rows, each slot's longest first: rows of equal place have about equal lengths in all
    slots, so little is padded. The cost of a pass is its rows times its longest row plus the overhead, for one slot:
    the cut depends on the lengths alone, never on the number of slots.
    """
    longest = lengths.max(axis=0)
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(longest) + 1):
        starts = (s for s in range(max(0, end - size.rows), end) if size.holds(end - s, int(longest[s])))
        best.append(min((best[s][0] + (end - s) * int(longest[s]) + size.overhead, s) for s in starts))
    cuts, end = [], len(longest)
    while end:
        cuts.append((best[end][1], end))
        end = cuts[-1][0]
    return cuts[::-1]


def make_passes(
    rows: TokenRows, samples: Sequence[Sequence[int]], size: PassSize, device: torch.device
) -> Iterator[Pass]:
    """The passes of one step in which each slot learns its own `samples` of the rows, equally many."""
    indices = np.array(samples)
    lengths = rows.padded[indices]
    order = np.argsort(-lengths, axis=1, kind="stable")
    for start, end in split_ranks(np.take_along_axis(lengths, order, axis=1), size):
        ranks = order[:, start:end]
        chosen = np.take_along_axis(indices, ranks, axis=1).tolist()
        yield _pass(rows, chosen, tuple(ranks.flatten().tolist()), device)


def even_passes(rows: TokenRows, num_slots: int, size: PassSize, device: torch.device) -> Iterator[Pass]:
    """All rows once for each of `num_slots` slots, longest first; for evaluation."""
    order = np.argsort(-rows.lengths, kind="stable").tolist()
    start = 0
    while start < len(order):
        end, longest = start + 1, int(rows.padded[order[start]])
        while end < len(order) and size.holds(end + 1 - start, longest):
            end += 1
        chosen = order[start:end]
        yield _pass(rows, [chosen] * num_slots, tuple(range(len(chosen))) * num_slots, device)
        start = end


def _pass(rows: TokenRows, chosen: Sequence[Sequence[int]], ranks: tuple[int, ...], device: torch.device) -> Pass:
    flat = [index for slot in chosen for index in slot]
    length = int(max(rows.padded[index] for index in flat))
    ids = np.zeros((len(flat), length), dtype=np.int64)
    positions, targets = [], []
    for place, index in enumerate(flat):
        start, end = rows.offsets[index], rows.offsets[index + 1]
        ids[place, : end - start] = rows.ids[start:end]
        learned = rows.learned(index)
        positions.append(learned + place * length)
        targets.append(rows.ids[start + learned + 1])
    counts = [len(found) for found in positions]
    per_slot = len(flat) // len(chosen)
    return Pass(
        ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(np.concatenate(positions)).to(device),
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)).to(device),
        learned=tuple(sum(counts[i : i + per_slot]) for i in range(0, len(flat), per_slot)),
        ranks=ranks,
    )
