"""Which samples a slot sees at a step, and how the samples of all slots become the passes of that step."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

IGNORED = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True)
class PassSize:
    """How much of each slot one pass holds at most. The same for any number of slots, so that sums group alike.

    Attributes:
        rows: Rows of a slot.
        tokens: Rows of a slot times the longest row. A single row may be longer.
        overhead: What a pass costs besides its tokens, in tokens of a slot.
    """

    rows: int
    tokens: float = math.inf
    overhead: int = 0

    def holds(self, rows: int, longest: int) -> bool:
        """Whether a pass of so many rows of each slot is small enough."""
        return rows == 1 or (rows <= self.rows and rows * longest <= self.tokens)


def pass_size(device: torch.device, rows: int) -> PassSize:
    """The size that trains fastest, with at most so many rows of a slot.

    On a processor a pass that leaves its caches is slower: about 1,200 tokens of a slot for each thread train 3 to 30 %
    faster than 2,300, the more the more slots, and no slower in one. A GPU is the better the fuller it is.
    """
    if device.type == "cuda":
        return PassSize(rows, overhead=4000)
    return PassSize(rows, tokens=1536 * torch.get_num_threads(), overhead=100)


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

    def learned(self, index: int) -> np.ndarray:
        """Positions of a row whose next token is learned."""
        labels = self.labels[self.offsets[index] : self.offsets[index + 1]]
        return np.flatnonzero(labels[1:] != IGNORED)


def samples_of_step(num_rows: int, batch_size: int, *, seed: int, step: int) -> list[int]:
    """Rows of the optimizer step after `step` steps: every row once an epoch, in an order drawn anew for each.

    Batches are always full; one that an epoch ends in is filled up from the next.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(_epoch_order(num_rows, seed, place // num_rows)[place % num_rows]) for place in places]


@lru_cache(maxsize=64)
def _epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass: as many rows for each slot, those of a slot together, padded at the end.

    Attributes:
        ids: Token ids, rows x length. Padding is any token: in a causal model nothing before it sees it.
        positions: Where hidden states feed the loss, as places in the flattened rows x length.
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
    """Cut each slot's rows, longest first, into passes at the least cost.

    Rows of equal place have about equal lengths in all slots, so that little is padded. The cost of a pass is its rows
    times its longest row plus the overhead, counted for one slot: the cut depends on the lengths alone, never on how
    many slots there are.

    Args:
        lengths: Tokens, slots x rows, each slot's longest first.
        size: What a pass holds.

    Returns:
        First and last (exclusive) place of each pass.
    """
    longest = lengths.max(axis=0)
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(longest) + 1):
        starts = (s for s in range(max(0, end - size.rows), end) if size.holds(end - s, int(longest[s])))
        best.append(min((best[s][0] + (end - s) * int(longest[s]) + size.overhead, s) for s in starts))
    cuts, end = [], len(longest)
    while end:
        start = best[end][1]
        cuts.append((start, end))
        end = start
    return cuts[::-1]


def make_passes(
    rows: TokenRows, samples: Sequence[Sequence[int]], size: PassSize, device: torch.device
) -> Iterator[Pass]:
    """The passes of one step.

    Args:
        rows: All samples.
        samples: Which of them each slot learns in this step, as many for every slot.
        size: What a pass holds.
        device: Where the tensors go.
    """
    lengths = rows.lengths[np.array(samples)]
    order = np.argsort(-lengths, axis=1, kind="stable")
    by_length = np.take_along_axis(lengths, order, axis=1)
    for start, end in split_ranks(by_length, size):
        ranks = [order[slot, start:end] for slot in range(len(samples))]
        chosen = [[samples[slot][rank] for rank in ranks[slot]] for slot in range(len(samples))]
        yield _pass(rows, chosen, tuple(int(rank) for slot in ranks for rank in slot), device)


def even_passes(rows: TokenRows, num_slots: int, size: PassSize, device: torch.device) -> Iterator[Pass]:
    """All rows once for each of `num_slots` slots, longest first; for evaluation."""
    order = np.argsort(-rows.lengths, kind="stable").tolist()
    start = 0
    while start < len(order):
        end, longest = start + 1, int(rows.lengths[order[start]])
        while end < len(order) and size.holds(end + 1 - start, longest):
            end += 1
        chosen = order[start:end]
        yield _pass(rows, [chosen] * num_slots, tuple(range(len(chosen))) * num_slots, device)
        start = end


def _pass(rows: TokenRows, chosen: Sequence[Sequence[int]], ranks: tuple[int, ...], device: torch.device) -> Pass:
    flat = [index for slot in chosen for index in slot]
    length = int(max(rows.lengths[index] for index in flat))
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
