"""Pairing of calls, against trying every pairing."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from evals.judge.expected_calls import ArgumentCounts, best_pairs, count_arguments

Pairs = list[list[ArgumentCounts | None]]


def test_the_pairs_that_are_worth_most_together() -> None:
    # 3 + 3 beats the 4 that taking the best single pair first leaves with 0.
    assert sorted(best_pairs([[4, 3], [3, 0]])) == [(0, 1), (1, 0)]
    assert best_pairs([[0]]) == []
    assert best_pairs([[2]]) == [(0, 0)]
    assert best_pairs([[0, 5, 0]]) == [(0, 1)]


def test_counts_without_a_pair() -> None:
    assert count_arguments([], [2, 3], []) == ArgumentCounts(expected=5, given=0, right=0)
    assert count_arguments([2], [], [[]]) == ArgumentCounts(expected=0, given=2, right=0)
    assert count_arguments([2], [3], [[None]]) == ArgumentCounts(expected=3, given=2, right=0)


def test_a_pair_replaces_the_counts_of_its_calls() -> None:
    pairs: Pairs = [[ArgumentCounts(3, 2, 0), ArgumentCounts(2, 2, 1)], [None, ArgumentCounts(2, 4, 2)]]
    assert count_arguments([2, 4], [3, 2], pairs) == ArgumentCounts(expected=5, given=6, right=2)


def every_pairing(given: list[int], expected: list[int], pairs: Pairs) -> tuple[int, int]:
    """The most right arguments of any pairing, and the most pairs among those."""
    size = max(len(given), len(expected))
    best = (0, 0)
    for order in permutations(range(size)):
        chosen = [
            pair
            for row, column in enumerate(order)
            if row < len(given) and column < len(expected) and (pair := pairs[row][column]) is not None
        ]
        best = max(best, (sum(pair.right for pair in chosen), len(chosen)))
    return best


@st.composite
def calls_of_two_tools(draw: st.DrawFn) -> tuple[list[int], list[int], Pairs]:
    given = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    expected = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    pairs: Pairs = []
    for alone in given:
        row: list[ArgumentCounts | None] = []
        for wanted in expected:
            right = draw(st.none() | st.integers(0, min(alone, wanted)))
            row.append(None if right is None else ArgumentCounts(wanted, alone, right))
        pairs.append(row)
    return given, expected, pairs


@given(calls_of_two_tools())
def test_as_many_arguments_are_right_as_in_any_pairing(made: tuple[list[int], list[int], Pairs]) -> None:
    given, expected, pairs = made
    right, _ = every_pairing(given, expected, pairs)
    # Here a pair counts what its calls count apart, so that only the right arguments depend on the pairing.
    assert count_arguments(given, expected, pairs) == ArgumentCounts(sum(expected), sum(given), right)
