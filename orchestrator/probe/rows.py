"""The rows of a probe's steps, chosen by their lengths: the largest pass that they can make, then typical ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from orchestrator.multi_lora.batch import PassSize, padded_lengths, samples_of_step, split_ranks

SIMULATED = 16
"""Steps of the engine whose passes are looked at to learn how much of them is padding."""
MOST_ROWS = 20_000
"""Rows that an epoch of the trainer is looked at with; more say no more."""

Rows = tuple[int, ...]
"""Places in the data."""


class Step(NamedTuple):
    """One optimizer step: its passes as (rows of all slots, longest), its tokens of all slots without padding.

    `rows` are those of the first slot in the order in which they share passes.
    """

    passes: tuple[tuple[int, int], ...]
    tokens: int
    rows: Rows

    def cost(self, of_pass: Callable[[int, int], float]) -> float:
        """That of all passes, given what one with so many rows, padded to so many tokens, costs."""
        return sum(of_pass(rows, longest) for rows, longest in self.passes)


class EngineSteps:
    """The steps that the multi-LoRA engine makes of rows of these lengths."""

    def __init__(self, lengths: np.ndarray, *, slots: int, size: PassSize) -> None:
        self._lengths, self._slots, self._size = lengths, slots, size

    def typical(self, batch_size: int) -> list[Step]:
        """Some steps of full batches."""
        return [self._step(batch_size, number) for number in range(SIMULATED)]

    def _step(self, batch_size: int, number: int) -> Step:
        slots = range(self._slots)
        return self._made(
            np.array([samples_of_step(len(self._lengths), batch_size, seed=s, step=number) for s in slots])
        )

    def of(self, rows: Rows) -> Step:
        """The step in which every slot learns these rows."""
        return self._made(np.array([rows] * self._slots))

    def _made(self, samples: np.ndarray) -> Step:
        lengths = self._lengths[samples]
        order = np.argsort(-lengths, axis=1, kind="stable")
        by_rank = np.take_along_axis(padded_lengths(self._lengths)[samples], order, axis=1)
        cuts = split_ranks(by_rank, self._size)
        passes = tuple((self._slots * (end - start), int(by_rank[:, start].max())) for start, end in cuts)
        return Step(passes, int(lengths.sum()), tuple(samples[0, order[0]].tolist()))


class TrainerSteps:
    """The steps that TRL's trainer makes of rows of these lengths: those of like lengths share a batch."""

    def __init__(self, lengths: np.ndarray, *, micro_batch_size: int) -> None:
        self._lengths, self._micro = lengths, micro_batch_size

    def typical(self, batch_size: int) -> list[Step]:
        """The steps of an epoch."""
        generator = torch.Generator().manual_seed(0)
        some = torch.randperm(len(self._lengths), generator=generator)[:MOST_ROWS].numpy()
        grouped = get_length_grouped_indices(self._lengths[some].tolist(), batch_size, generator=generator)
        order = some[grouped].tolist()
        return [self.of(tuple(order[start : start + batch_size])) for start in range(0, len(order), batch_size)]

    def of(self, rows: Rows) -> Step:
        """The step on these rows."""
        lengths = self._lengths[list(rows)]
        pieces = [lengths[start : start + self._micro] for start in range(0, len(rows), self._micro)]
        return Step(tuple((len(piece), int(piece.max())) for piece in pieces), int(lengths.sum()), rows)


def largest_rows(lengths: np.ndarray, *, rows: int, tokens: float) -> Rows:
    """The rows of the pass with most tokens: at most so many rows, and tokens with padding; one row may be longer."""
    order = np.argsort(lengths, kind="stable")
    by_length = lengths[order]
    best, most = order[-1:], int(by_length[-1])
    for count in range(2, min(rows, len(order)) + 1):
        end = int(np.searchsorted(by_length, tokens / count, side="right"))
        if end >= count and count * int(by_length[end - 1]) > most:
            best, most = order[end - count : end], count * int(by_length[end - 1])
    return tuple(best.tolist())


def filled(rows: Rows, lengths: np.ndarray, number: int) -> Rows:
    """So many rows: these, and the shortest."""
    return (*rows, *np.resize(np.argsort(lengths, kind="stable"), number - len(rows)).tolist())


def batches_of(steps: Sequence[Step], *, rows: int, number: int) -> Iterator[Rows]:
    """So many batches of `rows` neighbours in length, as they share passes, from everywhere in the data."""
    for place in range(number):
        ranks = steps[place * len(steps) // number].rows
        starts = max(1, len(ranks) // rows)
        start = rows * ((place + starts // 2) % starts)
        yield tuple(np.resize(ranks[start : start + rows], rows).tolist())


def cost_of_a_token(steps: Iterable[Step], of_pass: Callable[[int, int], float]) -> float:
    """What a token costs on average, padding included."""
    known = list(steps)
    return sum(step.cost(of_pass) for step in known) / sum(step.tokens for step in known)
