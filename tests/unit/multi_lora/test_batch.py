import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_lora_runs import random_rows

from orchestrator.multi_lora.batch import (
    IGNORED,
    Pass,
    PassSize,
    TokenRows,
    even_passes,
    make_passes,
    padded_lengths,
    pass_size,
    samples_of_step,
    split_ranks,
)

CPU = torch.device("cpu")
ROWS = random_rows(20, seed=3)

lengths_by_slot = st.integers(1, 3).flatmap(
    lambda slots: st.integers(1, 7).flatmap(
        lambda rows: st.lists(
            st.lists(st.integers(1, 500), min_size=rows, max_size=rows).map(lambda row: sorted(row, reverse=True)),
            min_size=slots,
            max_size=slots,
        )
    )
)


def cost(cuts: list[tuple[int, int]], lengths: np.ndarray, overhead: int) -> int:
    return sum((end - start) * int(lengths[:, start:end].max()) + overhead for start, end in cuts)


def all_cuts(longest: np.ndarray, size: PassSize) -> list[list[tuple[int, int]]]:
    rows, found = len(longest), []
    for number in range(rows):
        for inner in combinations(range(1, rows), number):
            cuts = list(pairwise([0, *inner, rows]))
            if all(size.holds(end - start, int(longest[start])) for start, end in cuts):
                found.append(cuts)
    return found


sizes = st.builds(
    PassSize,
    rows=st.integers(1, 8),
    tokens=st.integers(1, 3000) | st.just(math.inf),
    overhead=st.integers(0, 1000),
)


@given(lengths_by_slot, sizes)
def test_no_cut_into_passes_costs_less(lengths: list[list[int]], size: PassSize) -> None:
    by_length = np.array(lengths)
    cuts = split_ranks(by_length, size)
    assert [place for start, end in cuts for place in range(start, end)] == list(range(by_length.shape[1]))
    possible = all_cuts(by_length.max(axis=0), size)
    assert cuts in possible
    assert cost(cuts, by_length, size.overhead) == min(cost(other, by_length, size.overhead) for other in possible)


@given(sizes, st.integers(1, 10), st.integers(1, 4000))
def test_a_pass_holds_its_rows_and_tokens_and_at_least_one_row(size: PassSize, rows: int, longest: int) -> None:
    fits = rows <= size.rows and rows * longest <= size.tokens
    assert size.holds(rows, longest) == (fits or rows == 1)


def test_processors_have_smaller_passes_than_gpus() -> None:
    assert not pass_size(CPU, 64).holds(64, 100)
    assert pass_size(torch.device("cuda"), 64).holds(64, 10_000)
    assert not pass_size(torch.device("cuda"), 64).holds(65, 1)


@given(lengths_by_slot, sizes)
def test_the_cut_is_the_same_for_slots_with_the_same_lengths(lengths: list[list[int]], size: PassSize) -> None:
    assert split_ranks(np.array(lengths[:1]), size) == split_ranks(np.array(lengths[:1] * 5), size)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_epoch_has_each_row_once_and_every_batch_is_full(num_rows: int, batch_size: int, seed: int) -> None:
    steps = 3 * num_rows // batch_size + 2
    batches = [samples_of_step(num_rows, batch_size, seed=seed, step=step) for step in range(steps)]
    assert all(len(batch) == batch_size for batch in batches)
    seen = [row for batch in batches for row in batch]
    for start in range(0, len(seen) - num_rows + 1, num_rows):
        assert sorted(seen[start : start + num_rows]) == list(range(num_rows))


@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_samples_depend_on_seed_and_step_alone(num_rows: int, batch_size: int, seed: int, step: int) -> None:
    now = samples_of_step(num_rows, batch_size, seed=seed, step=step)
    samples_of_step(num_rows, batch_size, seed=seed + 1, step=step)
    assert samples_of_step(num_rows, batch_size, seed=seed, step=step) == now


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [tuple(samples_of_step(40, 40, seed=seed, step=epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len(set(orders)) == len(orders)


def learned_tokens(piece: Pass, slot: int) -> list[tuple[tuple[int, ...], int]]:
    """What precedes each learned token of a slot in its row, and the token."""
    length, first = piece.ids.shape[1], sum(piece.learned[:slot])
    found = []
    for place in range(first, first + piece.learned[slot]):
        row, column = divmod(int(piece.positions[place]), length)
        assert row // (len(piece.ids) // len(piece.learned)) == slot
        found.append((tuple(piece.ids[row, : column + 1].tolist()), int(piece.targets[place])))
    return found


def wanted_tokens(rows: TokenRows, chosen: list[int]) -> list[tuple[tuple[int, ...], int]]:
    found = []
    for index in chosen:
        ids = rows.ids[rows.offsets[index] : rows.offsets[index + 1]].tolist()
        labels = rows.labels[rows.offsets[index] : rows.offsets[index + 1]].tolist()
        found += [(tuple(ids[:place]), ids[place]) for place in range(1, len(ids)) if labels[place] != IGNORED]
    return found


@given(
    st.lists(st.lists(st.integers(0, 19), min_size=5, max_size=5), min_size=1, max_size=4),
    st.builds(PassSize, rows=st.integers(1, 6), tokens=st.integers(1, 100), overhead=st.integers(0, 200)),
)
def test_passes_hold_every_learned_token_once_behind_its_own_row(samples: list[list[int]], size: PassSize) -> None:
    passes = list(make_passes(ROWS, samples, size, CPU))
    for slot, chosen in enumerate(samples):
        got = [token for piece in passes for token in learned_tokens(piece, slot)]
        assert sorted(got) == sorted(wanted_tokens(ROWS, chosen))
    for slot in range(len(samples)):
        rows_of = [len(piece.ids) // len(samples) for piece in passes]
        ranks = [
            rank
            for piece, rows in zip(passes, rows_of, strict=True)
            for rank in piece.ranks[slot * rows : (slot + 1) * rows]
        ]
        assert sorted(ranks) == list(range(5))


def test_the_place_of_a_row_is_that_in_its_batch() -> None:
    samples = [[3, 1, 4], [1, 5, 9]]
    for piece in make_passes(ROWS, samples, PassSize(2), CPU):
        rows = len(piece.ids) // 2
        for place, rank in enumerate(piece.ranks):
            index = samples[place // rows][rank]
            ids = ROWS.ids[ROWS.offsets[index] : ROWS.offsets[index + 1]].tolist()
            assert piece.ids[place, : len(ids)].tolist() == ids


@pytest.mark.parametrize(
    "size", [PassSize(1), PassSize(3), PassSize(100), PassSize(100, tokens=50), PassSize(9, tokens=1)]
)
def test_evaluation_sees_every_row_once_for_each_slot(size: PassSize) -> None:
    passes = list(even_passes(ROWS, 2, size, CPU))
    assert all(size.holds(len(piece.ids) // 2, piece.ids.shape[1]) for piece in passes)
    for slot in range(2):
        got = [token for piece in passes for token in learned_tokens(piece, slot)]
        assert sorted(got) == sorted(wanted_tokens(ROWS, list(range(len(ROWS)))))


def test_rows_are_padded_to_lengths_that_recur_and_never_beyond_the_longest() -> None:
    lengths = np.array([1, 31, 32, 33, 64, 70])
    assert padded_lengths(lengths).tolist() == [32, 32, 32, 64, 64, 70]
    rows = TokenRows.of([([5] * length, [5] * length) for length in lengths.tolist()])
    shapes = {piece.ids.shape[1] for piece in even_passes(rows, 1, PassSize(1), CPU)}
    assert shapes == {32, 64, 70}


def test_a_rows_first_token_is_never_learned() -> None:
    rows = TokenRows.of([([5, 6, 7], [5, 6, 7]), ([8], [8]), ([9, 10], [IGNORED, IGNORED])])
    assert len(rows) == 3
    assert rows.lengths.tolist() == [3, 1, 2]
    assert [rows.learned(index).tolist() for index in range(3)] == [[0, 1], [], []]


def test_rows_without_learned_tokens_leave_an_empty_loss() -> None:
    rows = TokenRows.of([([9, 10], [IGNORED, IGNORED])])
    (piece,) = make_passes(rows, [[0], [0]], PassSize(1), CPU)
    assert piece.learned == (0, 0)
    assert len(piece.positions) == len(piece.targets) == 0
