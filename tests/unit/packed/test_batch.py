from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_runs import random_rows

from orchestrator.packed.batch import (
    IGNORED,
    Pass,
    TokenRows,
    even_passes,
    make_passes,
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


def all_cuts(rows: int, most_rows: int) -> list[list[tuple[int, int]]]:
    found = []
    for number in range(rows):
        for inner in combinations(range(1, rows), number):
            edges = [0, *inner, rows]
            cuts = list(pairwise(edges))
            if all(end - start <= most_rows for start, end in cuts):
                found.append(cuts)
    return found


@given(lengths_by_slot, st.integers(1, 8), st.integers(0, 1000))
def test_no_cut_into_passes_costs_less(lengths: list[list[int]], most_rows: int, overhead: int) -> None:
    by_length = np.array(lengths)
    cuts = split_ranks(by_length, most_rows=most_rows, overhead=overhead)
    assert [place for start, end in cuts for place in range(start, end)] == list(range(by_length.shape[1]))
    assert all(0 < end - start <= most_rows for start, end in cuts)
    possible = all_cuts(by_length.shape[1], most_rows)
    assert cost(cuts, by_length, overhead) == min(cost(other, by_length, overhead) for other in possible)


@given(lengths_by_slot, st.integers(1, 8), st.integers(0, 1000))
def test_the_cut_is_the_same_for_slots_with_the_same_lengths(
    lengths: list[list[int]], most_rows: int, overhead: int
) -> None:
    one, many = np.array(lengths[:1]), np.array(lengths[:1] * 5)
    assert split_ranks(one, most_rows=most_rows, overhead=overhead) == split_ranks(
        many, most_rows=most_rows, overhead=overhead
    )


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
    st.integers(1, 6),
    st.integers(0, 200),
)
def test_passes_hold_every_learned_token_once_behind_its_own_row(
    samples: list[list[int]], most_rows: int, overhead: int
) -> None:
    passes = list(make_passes(ROWS, samples, most_rows=most_rows, overhead=overhead, device=CPU))
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
    for piece in make_passes(ROWS, samples, most_rows=2, overhead=0, device=CPU):
        rows = len(piece.ids) // 2
        for place, rank in enumerate(piece.ranks):
            index = samples[place // rows][rank]
            ids = ROWS.ids[ROWS.offsets[index] : ROWS.offsets[index + 1]].tolist()
            assert piece.ids[place, : len(ids)].tolist() == ids


@pytest.mark.parametrize("most_rows", [1, 3, 100])
def test_evaluation_sees_every_row_once_for_each_slot(most_rows: int) -> None:
    passes = list(even_passes(ROWS, 2, most_rows=most_rows, device=CPU))
    for slot in range(2):
        got = [token for piece in passes for token in learned_tokens(piece, slot)]
        assert sorted(got) == sorted(wanted_tokens(ROWS, list(range(len(ROWS)))))


def test_a_rows_first_token_is_never_learned() -> None:
    rows = TokenRows.of([([5, 6, 7], [5, 6, 7]), ([8], [8]), ([9, 10], [IGNORED, IGNORED])])
    assert len(rows) == 3
    assert rows.lengths.tolist() == [3, 1, 2]
    assert [rows.learned(index).tolist() for index in range(3)] == [[0, 1], [], []]


def test_rows_without_learned_tokens_leave_an_empty_loss() -> None:
    rows = TokenRows.of([([9, 10], [IGNORED, IGNORED])])
    (piece,) = make_passes(rows, [[0], [0]], most_rows=1, overhead=0, device=CPU)
    assert piece.learned == (0, 0)
    assert len(piece.positions) == len(piece.targets) == 0
