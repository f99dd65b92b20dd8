"""The rows of a probe stand for those of the data: its largest pass, and as much padding as real steps have."""

import numpy as np
import pytest
import torch

from orchestrator.multi_lora.batch import PassSize, TokenRows, make_passes, padded_lengths, samples_of_step
from orchestrator.plan.passes import CPU_PASS_TOKENS
from orchestrator.probe.rows import (
    SIMULATED,
    EngineSteps,
    TrainerSteps,
    batches_of,
    cost_of_a_token,
    filled,
    largest_rows,
)

LENGTHS = np.random.default_rng(3).integers(20, 900, 120)
SIZE = PassSize(4, tokens=CPU_PASS_TOKENS, overhead=100)


def padded(rows: int, longest: int) -> float:
    return rows * longest


def test_the_engines_steps_have_the_passes_that_the_engine_makes() -> None:
    rows = TokenRows.of([([1] * int(size), [1] * int(size)) for size in LENGTHS])
    for number, step in enumerate(EngineSteps(LENGTHS, slots=2, size=SIZE).typical(8)):
        samples = [samples_of_step(len(LENGTHS), 8, seed=slot, step=number) for slot in range(2)]
        made = [tuple(piece.ids.shape) for piece in make_passes(rows, samples, SIZE, torch.device("cpu"))]
        assert list(step.passes) == made
        assert step.tokens == LENGTHS[samples].sum()
        assert sorted(step.rows) == sorted(samples[0])


def test_the_trainers_steps_see_every_row_once_with_little_padding() -> None:
    steps = TrainerSteps(LENGTHS, micro_batch_size=4).typical(8)
    assert sorted(row for step in steps for row in step.rows) == list(range(len(LENGTHS)))
    assert {rows for step in steps for rows, _ in step.passes} == {4}
    by_chance = [TrainerSteps(LENGTHS, micro_batch_size=4).of(tuple(range(at, at + 8))) for at in range(0, 120, 8)]
    assert 1.0 < cost_of_a_token(steps, padded) < cost_of_a_token(by_chance, padded)


@pytest.mark.parametrize(("rows", "tokens"), [(4, 1536.0), (4, np.inf), (1, 1536.0), (8, 700.0)])
def test_no_pass_of_the_data_is_larger_than_the_largest(rows: int, tokens: float) -> None:
    in_passes = padded_lengths(LENGTHS)
    chosen = largest_rows(in_passes, rows=rows, tokens=tokens)
    size = len(chosen) * in_passes[list(chosen)].max()
    assert len(chosen) <= rows
    assert len(chosen) == 1 or size <= tokens
    steps = EngineSteps(LENGTHS, slots=1, size=PassSize(rows, tokens=tokens, overhead=100)).typical(40)
    assert len(steps) == SIMULATED
    assert size >= max(count * longest for step in steps for count, longest in step.passes)


def test_batches_come_from_everywhere_and_share_passes() -> None:
    steps = EngineSteps(LENGTHS, slots=2, size=SIZE).typical(16)
    batches = list(batches_of(steps, rows=4, number=6))
    assert {len(batch) for batch in batches} == {4}
    assert len(set(batches)) == 6
    spreads = [np.ptp(LENGTHS[list(batch)]) for batch in batches]
    assert np.mean(spreads) < np.ptp(LENGTHS) / 2


def test_a_batch_is_filled_with_the_shortest_rows_even_where_there_are_few() -> None:
    few = np.array([50, 10, 30])
    assert filled((0,), few, 6) == (0, 1, 2, 0, 1, 2)
    batches = list(batches_of(TrainerSteps(few, micro_batch_size=2).typical(2), rows=4, number=2))
    assert [len(batch) for batch in batches] == [4, 4]
