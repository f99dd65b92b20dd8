"""Which given call stands for which wanted call, where one reply has several, and how many arguments are then right."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment


class ArgumentCounts(NamedTuple):
    """How many arguments are expected, how many are given, and how many of these are right."""

    expected: int = 0
    given: int = 0
    right: int = 0

    def plus(self, other: "ArgumentCounts") -> "ArgumentCounts":
        """The counts of both together."""
        return ArgumentCounts(self.expected + other.expected, self.given + other.given, self.right + other.right)


def best_pairs(worth: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The pairs (row, column), each row and column in one at most, that are worth most together.

    Args:
        worth: One row for each given call, one column for each wanted call; 0 for two that are no pair.
    """
    if len(worth) == 1 and len(worth[0]) == 1:
        return [(0, 0)] if worth[0][0] else []
    rows, columns = linear_sum_assignment(np.array(worth, dtype=float), maximize=True)
    return [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if worth[row][column]]


def count_arguments(
    given: Sequence[int], expected: Sequence[int], pairs: Sequence[Sequence[ArgumentCounts | None]]
) -> ArgumentCounts:
    """The counts over all calls, paired so that as many arguments as possible are right.

    Among pairings with equally many right arguments the one with more pairs counts, then the one that expects and gives
    fewer, so that the counts do not depend on the order of the calls.

    Args:
        given: For each given call its number of arguments, as they count where the call stands for no wanted one.
        expected: For each wanted call the number of arguments that it must have.
        pairs: `pairs[i][j]` counts given call `i` as wanted call `j`; None where they are calls of different tools.
    """
    if not given or not expected:
        return ArgumentCounts(sum(expected), sum(given), 0)
    base = 1 + sum(given) + sum(expected)
    worth = [
        [_worth(pair, ArgumentCounts(wanted, alone), base) for wanted, pair in zip(expected, row, strict=True)]
        for alone, row in zip(given, pairs, strict=True)
    ]
    total, unpaired_given, unpaired_expected = ArgumentCounts(), dict(enumerate(given)), dict(enumerate(expected))
    for row, column in best_pairs(worth):
        pair = pairs[row][column]
        assert pair is not None, "only calls of one tool are worth a pair"
        total = total.plus(pair)
        del unpaired_given[row], unpaired_expected[column]
    return total.plus(ArgumentCounts(sum(unpaired_expected.values()), sum(unpaired_given.values())))


def _worth(pair: ArgumentCounts | None, apart: ArgumentCounts, base: int) -> int:
    """What a pair is worth: first the right arguments, then that it is one, then how little it expects and gives."""
    if pair is None:
        return 0
    return pair.right * base**3 + base**2 - (pair.expected - apart.expected) * base - (pair.given - apart.given)
