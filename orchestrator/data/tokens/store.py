"""The tokens of a run: train and val are tokenised once and memory-mapped by every worker; with a card and a ledger."""

import hashlib
import json
import shutil
import tempfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import pyarrow as pa
from datasets import Dataset, disable_progress_bars
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.formats import CONFIG_KEY
from orchestrator.chat.named_templates import CONFIG_KEY as TEMPLATE_KEY
from orchestrator.chat.named_templates import OWN
from orchestrator.chat.proof import prove_template
from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.chat.template import stop_token_ids
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import DataError
from orchestrator.core.files import digest_of, dump_line, open_atomic, parse_line, write_text_atomic
from orchestrator.core.parallel import map_chunks
from orchestrator.core.records import JsonObject, Record, Sample, SampleKind
from orchestrator.data.card import MOST_NOT_SHOWN, NOT_SHOWN, KindTokens, LeftOut, TokenCard
from orchestrator.data.tokens.tokenize import Tokenized, TokenRow, tokenize_samples
from orchestrator.models.base import base_tokenizer
from orchestrator.run.paths import RunDir, SplitName

ROWS_PER_CHUNK = 1000
"""Rows a process tokenises at a time; it takes seconds to load the tokenizer, so few rows go to no other process."""
LAYOUT = 4
"""The version of what is written: tokens of another layout are made again."""
NUM_BINS, FIRST_BIN = 12, 32
"""At most so many bins of a histogram; the first never ends below this length."""
_SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})


class LedgerRow(Record):
    """One stored row, in their order; those of one sample follow each other.

    `turns` are the places of the messages that are learned in it.
    """

    id: str
    kind: SampleKind
    tokens: int
    learned_tokens: int
    turns: tuple[int, ...]


@dataclass
class Tally:
    """Running totals of a part while its rows are written."""

    left_out: list[LeftOut] = field(default_factory=list)
    samples: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    learned: int = 0
    shortened: int = 0
    unlearned_turns: int = 0
    by_kind: dict[SampleKind, KindTokens] = field(default_factory=dict)

    def add(self, stored: "_StoredSample") -> None:
        """Count one sample that is trained on."""
        entries = [row.entry for row in stored.rows]
        self.samples += 1
        self.lengths.update(entry.tokens for entry in entries)
        self.shortened += stored.is_shortened
        self.unlearned_turns += stored.unlearned_turns
        tokens, learned = (sum(entry.tokens for entry in entries), sum(entry.learned_tokens for entry in entries))
        self.learned += learned
        before = self.by_kind.get(entries[0].kind, KindTokens(samples=0, tokens=0, learned_tokens=0))
        self.by_kind[entries[0].kind] = KindTokens(
            samples=before.samples + 1, tokens=before.tokens + tokens, learned_tokens=before.learned_tokens + learned
        )

    def card(self) -> TokenCard:
        """The card of a part with at least one row."""
        return TokenCard(
            samples=self.samples,
            rows=self.lengths.total(),
            tokens=sum(length * count for length, count in self.lengths.items()),
            learned_tokens=self.learned,
            longest=max(self.lengths),
            shortened=self.shortened,
            unlearned_turns=self.unlearned_turns,
            by_kind=dict(sorted(self.by_kind.items())),
            histogram=histogram(self.lengths),
            left_out=tuple(self.left_out),
        )


def tokens_folder(run: RunDir, part: SplitName) -> Path:
    """Where the tokens of one part are kept (Arrow, memory-mapped by every worker)."""
    return run.root / "data" / "tokens" / part


def ledger_path(run: RunDir, part: SplitName) -> Path:
    """One `LedgerRow` a line, in the order of the stored tokens."""
    return run.root / "data" / "tokens" / f"{part}.ledger.jsonl"


def tokenize_run(config: RunConfig, run: RunDir) -> dict[SplitName, TokenCard]:
    """Tokenise train and val once for all trials, unless it is done for the same data and base.

    Writes `data/tokens/<part>/` with columns `input_ids` and `labels` (int32), `data/tokens/<part>.ledger.jsonl` and
    `data/tokens/card.json`.

    Raises:
        DataError: If no sample of a part can be trained on.
        InputError: If the base's chat template cannot be learned from.
        ModelNotFoundError: If the base model is not there.
    """
    tokenizer = base_tokenizer(config.model)
    parts: tuple[SplitName, ...] = ("train", "val")
    card_path = run.root / "data" / "tokens" / "card.json"
    digest = tokens_digest(config, run, tokenizer, parts)
    if card_path.is_file():
        stored = json.loads(card_path.read_text(encoding="utf-8"))
        if stored.pop("digest") == digest:
            return {part: TokenCard.model_validate(stored[part]) for part in parts}
    card_path.unlink(missing_ok=True)  # whoever is cut off below must not leave a card that fits older tokens
    form = chat_format(tokenizer, thinking=config.data.thinking, reply_format=config.eval.reply_format)
    prove_template(form, where=None if config.model.chat_template == OWN else TEMPLATE_KEY)
    shorten = config.data.overlong == "shorten"
    settings = _Settings(
        config.model, digest, form.thinking, config.eval.reply_format, config.data.max_length, shorten=shorten
    )
    cards = {part: _tokenize_part(run, part, settings) for part in parts}
    content: JsonObject = {"digest": digest}
    content.update((part, card.model_dump(mode="json")) for part, card in cards.items())
    write_text_atomic(card_path, json.dumps(content, indent=2) + "\n")
    return cards


def refuse_left_out(config: RunConfig, cards: Mapping[SplitName, TokenCard]) -> None:
    """DataError if too little of train remains.

    That is if it lost every sample of a kind, more than `MOST_NOT_SHOWN` of its samples to the chat template, or more
    than `data.max_quarantine_rate` to marks in their texts. Samples that are too long count towards no rate:
    `data.max_length` decides, and the card counts them.
    """
    card = cards["train"]
    total, lost = card.samples + len(card.left_out), Counter(row.kind for row in card.left_out)
    gone = sorted(kind for kind in lost if kind not in card.by_kind)
    marked = [row for row in card.left_out if row.reason == "control_token_in_text"]
    not_shown = [row for row in card.left_out if row.reason in NOT_SHOWN]
    most_marked = config.data.max_quarantine_rate
    if not gone and len(marked) <= most_marked * total and len(not_shown) <= MOST_NOT_SHOWN * total:
        return
    first = _commonest([*marked, *not_shown] or card.left_out)
    whole = f", among them every sample of kind {', '.join(gone)}" if gone else ""
    raise DataError(
        f"{len(card.left_out)} of {total} samples of train cannot be trained on ({_reasons(card.left_out)}){whole}; "
        f"such as {first.source}: {first.detail}",
        where=_where(first, config.eval.reply_format, TEMPLATE_KEY),
        allowed=f"some of every kind; at most {most_marked:.1%} with marks of the base in their texts, and "
        f"{MOST_NOT_SHOWN:.0%} that the chat template cannot show",
        fix=f"{first.fix}; or leave such conversations out of the data",
    )


def _commonest(left_out: Sequence[LeftOut]) -> LeftOut:
    """The first sample of the commonest reason."""
    reason = Counter(row.reason for row in left_out).most_common(1)[0][0]
    return next(row for row in left_out if row.reason == reason)


def _reasons(left_out: Sequence[LeftOut]) -> str:
    return ", ".join(f"{reason} x {n}" for reason, n in Counter(row.reason for row in left_out).most_common())


def tokens_digest(
    config: RunConfig, run: RunDir, tokenizer: PreTrainedTokenizerBase, parts: Sequence[SplitName]
) -> str:
    """Digest of what decides the tokens of these parts."""
    data = config.data
    files = [run.split(part) for part in parts] + [Path(tokenizer.name_or_path) / "tokenizer.json"]
    return digest_of(
        [_file_digest(path) for path in files],
        tokenizer.chat_template,
        sorted(stop_token_ids(tokenizer)),
        dict(tokenizer.special_tokens_map),
        [data.max_length, data.overlong, data.reasoning, config.eval.reply_format, LAYOUT],
    )


def _file_digest(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Settings(NamedTuple):
    """What a process needs to tokenise lines. `digest` is that of the tokens: another one, another chat format."""

    model: ModelConfig
    digest: str
    thinking: bool
    reply_format: str
    max_length: int
    shorten: bool


class _StoredRow(NamedTuple):
    """A row that is trained on: `ids` and `labels` are int32 of one length."""

    entry: LedgerRow
    ids: np.ndarray
    labels: np.ndarray


class _StoredSample(NamedTuple):
    """The rows of a sample that is trained on."""

    rows: tuple[_StoredRow, ...]
    unlearned_turns: int
    is_shortened: bool


def _tokenize_part(run: RunDir, part: SplitName, settings: _Settings) -> TokenCard:
    chunks = map_chunks(partial(_tokenize_lines, settings=settings), _lines(run.split(part)), chunk_size=ROWS_PER_CHUNK)
    folder, tally = tokens_folder(run, part), Tally()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{part}-", dir=folder.parent) as work:
        with open_atomic(ledger_path(run, part)) as ledger:
            _write_rows(Path(work) / "rows.arrow", chunks, ledger, tally)
        if not tally.lengths:
            raise _nothing_usable(run, part, tally.left_out, settings.reply_format)
        disable_progress_bars()
        Dataset.from_file(f"{work}/rows.arrow").save_to_disk(f"{work}/saved")
        shutil.rmtree(folder, ignore_errors=True)  # replaced and never changed: other runs may share its files
        Path(work, "saved").rename(folder)
    return tally.card()


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where each line of a split file stands, and its text."""
    with path.open(encoding="utf-8") as file:
        yield from ((f"{path}:{number}", text) for number, text in enumerate(file, start=1))


def _tokenize_lines(lines: list[tuple[str, str]], settings: _Settings) -> list[_StoredSample | LeftOut]:
    samples = (parse_line(text, Sample, where=where) for where, text in lines)
    rows = tokenize_samples(_form(settings), samples, max_length=settings.max_length, shorten=settings.shorten)
    return [_stored(tokenized) for tokenized in rows]


@lru_cache(maxsize=1)
def _form(settings: _Settings) -> ChatFormat:
    tokenizer = base_tokenizer(settings.model)
    return chat_format(tokenizer, thinking=settings.thinking, reply_format=settings.reply_format)


def _stored(tokenized: Tokenized) -> _StoredSample | LeftOut:
    sample, tokens = tokenized.sample, tokenized.tokens
    if isinstance(tokens, LeftOut):
        return tokens
    rows = tuple(_stored_row(sample, row) for row in tokens.rows)
    return _StoredSample(rows, tokens.unlearned, tokenized.is_shortened)


def _stored_row(sample: Sample, row: TokenRow) -> _StoredRow:
    entry = LedgerRow(
        id=sample.id,
        kind=sample.kind,
        tokens=len(row.input_ids),
        learned_tokens=sum(span.end - span.start for span in row.spans),
        turns=tuple(span.place for span in row.spans),
    )
    ids, labels = (np.array(values, dtype=np.int32) for values in (row.input_ids, row.labels))
    return _StoredRow(entry, ids, labels)


def _write_rows(path: Path, chunks: Iterator[list[_StoredSample | LeftOut]], ledger: TextIO, tally: Tally) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        for chunk in chunks:
            samples = [each for each in chunk if isinstance(each, _StoredSample)]
            tally.left_out += [each for each in chunk if isinstance(each, LeftOut)]
            for sample in samples:
                tally.add(sample)
            rows = [row for sample in samples for row in sample.rows]
            ledger.writelines(dump_line(row.entry) + "\n" for row in rows)
            writer.write_batch(_record_batch(rows))


def _record_batch(rows: Sequence[_StoredRow]) -> pa.RecordBatch:
    """Rows as Arrow, without a Python object for every token."""
    offsets = pa.array(np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int32))
    empty = np.empty(0, dtype=np.int32)
    columns = (np.concatenate([empty, *values]) for values in ([r.ids for r in rows], [r.labels for r in rows]))
    return pa.record_batch([pa.ListArray.from_arrays(offsets, pa.array(values)) for values in columns], schema=_SCHEMA)


def _nothing_usable(run: RunDir, part: SplitName, left_out: Sequence[LeftOut], reply_format: str) -> DataError:
    where = str(run.split(part))
    if not left_out:
        return DataError(f"{part} holds no sample", where=where, fix="Give more conversations")
    first = _commonest(left_out)
    what = f"no sample of {part} can be trained on: {_reasons(left_out)}; such as {first.id}: {first.detail}"
    return DataError(what, where=_where(first, reply_format, where), fix=first.fix)


def _where(first: LeftOut, reply_format: str, otherwise: str) -> str:
    """The setting that decided on a sample that is left out."""
    if first.reason == "calls_not_shown" and reply_format != "auto":
        return CONFIG_KEY
    return {"too_long": "data.max_length", "control_token_in_text": "data.max_quarantine_rate"}.get(
        first.reason, otherwise
    )


def histogram(lengths: Counter[int]) -> tuple[tuple[int, int], ...]:
    """Counts of lengths as (up_to, samples), from the shortest to the longest that occurs, in at most `NUM_BINS` bins.

    Two bins for each doubling of the length (32, 48, 64, 96, ...), so that few long samples do not flatten the rest;
    what is shorter than the first bin's start is counted in it.
    """
    edges = [edge << step for step in range(max(lengths).bit_length()) for edge in (FIRST_BIN, FIRST_BIN * 3 // 2)]
    last = bisect_left(edges, max(lengths))
    first = max(bisect_left(edges, min(lengths)), last - NUM_BINS + 1)
    bins = Counter(dict.fromkeys(edges[first : last + 1], 0))
    for length, count in lengths.items():
        bins[edges[max(first, bisect_left(edges, length))]] += count
    return tuple(sorted(bins.items()))
