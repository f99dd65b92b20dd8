"""The rows that parity is asked of: those that are trained on, as they are stored, and those of the test part."""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from datasets import load_from_disk

from evals.check.card import FIXES
from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.segments import Span
from orchestrator.core.errors import DataError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Sample
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.store import LedgerRow, ledger_path, tokens_folder
from orchestrator.data.tokens.tokenize import IGNORED, tokenize_samples
from orchestrator.run.paths import RunDir, SplitName

ROWS_AT_ONCE = 512


class ParityRow(NamedTuple):
    """One row of a sample. `spans` are its learned turns; `fault` says why it has none.

    `is_asked` is whether it is of the test part, of which evaluation asks what can be asked.
    """

    sample: Sample
    ids: list[int]
    spans: tuple[Span, ...]
    fault: LeftOut | None = None
    is_asked: bool = False


def parity_rows(run: RunDir, form: ChatFormat) -> Iterator[ParityRow]:
    """Every row that is trained on, as it is stored, and every row of the test part.

    Raises:
        DataError: If the stored tokens are not those of the split files.
    """
    yield from chain(_stored_rows(run, "train"), _stored_rows(run, "val"))
    tested = read_jsonl(run.split("test"), Sample)
    for sample, tokens, _ in tokenize_samples(form, tested, max_length=None, screen=False):
        if isinstance(tokens, LeftOut):
            yield ParityRow(sample, [], (), tokens, is_asked=True)
        else:
            yield from (ParityRow(sample, row.input_ids, row.spans, is_asked=True) for row in tokens.rows)


def _stored_rows(run: RunDir, part: SplitName) -> Iterator[ParityRow]:
    ledger = read_jsonl(ledger_path(run, part), LedgerRow)
    samples = read_jsonl(run.split(part), Sample)
    sample: Sample | None = None
    for ids, labels in _arrays(run, part):
        entry = next(ledger, None)
        if entry is not None and (sample is None or sample.id != entry.id):
            sample = next((sample for sample in samples if sample.id == entry.id), None)
        learned = _runs(labels)
        if entry is None or sample is None or len(learned) != len(entry.turns):
            what = "the stored tokens are not those of the split files"
            raise DataError(what, where=str(tokens_folder(run, part)), fix=FIXES["mask_wrong"])
        spans = tuple(Span(place, start, end) for place, (start, end) in zip(entry.turns, learned, strict=True))
        yield ParityRow(sample, ids.tolist(), spans)


def _arrays(run: RunDir, part: SplitName) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels of each stored row."""
    rows = load_from_disk(str(tokens_folder(run, part))).with_format("arrow")
    for table in rows.iter(ROWS_AT_ONCE):
        columns = [table.column(name).combine_chunks() for name in ("input_ids", "labels")]
        ids, labels = (np.asarray(column.flatten().to_numpy()) for column in columns)
        starts = columns[0].offsets.to_numpy() - columns[0].offsets[0].as_py()
        for start, end in pairwise(starts):
            yield ids[start:end], labels[start:end]


def _runs(labels: np.ndarray) -> Sequence[tuple[int, int]]:
    """Start and end of each run of learned tokens."""
    learned = np.concatenate(([False], labels != IGNORED, [False])).astype(np.int8)
    edges = np.flatnonzero(np.diff(learned))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
