"""The rows that parity looks at: what was stored for training, and the test part as evaluation sees it."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import load_from_disk

from orchestrator.chat.rendering import ChatFormat, Span
from orchestrator.core.errors import DataError
from orchestrator.core.jsonl import read_jsonl
from orchestrator.core.records import Sample
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.store import LedgerRow, ledger_path, tokens_folder
from orchestrator.data.tokens.tokenize import IGNORED, tokenize_samples
from orchestrator.run.paths import RunDir, SplitName

ROWS_AT_ONCE = 1024


class ParityRow(NamedTuple):
    """A sample and its tokens. `spans` are its learned turns; `fault` says why it has none."""

    sample: Sample
    ids: list[int]
    spans: tuple[Span, ...]
    fault: LeftOut | None = None


def parity_rows(run: RunDir, form: ChatFormat) -> Iterator[ParityRow]:
    """Every row that is trained on, as it is stored, and every row of the test part.

    Raises:
        DataError: If the stored tokens are not those of the split files.
    """
    stored: tuple[SplitName, ...] = ("train", "val")
    for part in stored:
        yield from _stored_rows(run, part)
    for sample, row, _ in tokenize_samples(form, read_jsonl(run.split("test"), Sample), max_length=None, screen=False):
        if isinstance(row, LeftOut):
            yield ParityRow(sample, [], (), row)
        else:
            yield ParityRow(sample, row.input_ids, row.spans)


def _stored_rows(run: RunDir, part: SplitName) -> Iterator[ParityRow]:
    ledger = read_jsonl(ledger_path(run, part), LedgerRow)
    samples = read_jsonl(run.split(part), Sample)
    for ids, labels in _arrays(run, part):
        entry = next(ledger, None)
        sample = next((sample for sample in samples if entry and sample.id == entry.id), None)
        learned = _runs(labels)
        if entry is None or sample is None or len(learned) != len(entry.turns):
            raise DataError(
                "the stored tokens are not those of the split files",
                where=str(tokens_folder(run, part)),
                fix="Remove the folder data/tokens of the run, so that the data is tokenised again",
            )
        spans = tuple(Span(place, start, end) for place, (start, end) in zip(entry.turns, learned, strict=True))
        yield ParityRow(sample, ids.tolist(), spans)


def _arrays(run: RunDir, part: SplitName) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels of each stored row."""
    rows = load_from_disk(str(tokens_folder(run, part))).with_format("arrow")
    for table in rows.iter(ROWS_AT_ONCE):
        columns = [table.column(name).combine_chunks() for name in ("input_ids", "labels")]
        values = [_flat(column) for column in columns]
        starts = columns[0].offsets.to_numpy() - columns[0].offsets[0].as_py()
        for start, end in pairwise(starts):
            yield values[0][start:end], values[1][start:end]


def _flat(column: pa.ListArray) -> np.ndarray:
    return np.asarray(column.flatten().to_numpy())


def _runs(labels: np.ndarray) -> Sequence[tuple[int, int]]:
    """Start and end of each run of learned tokens."""
    learned = np.concatenate(([False], labels != IGNORED, [False])).astype(np.int8)
    edges = np.flatnonzero(np.diff(learned))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
