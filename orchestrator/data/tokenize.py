"""Canonical samples -> token ids and labels, rendered once with the chat template that also renders evaluation.

Only what the assistant says is learned, its end-of-turn token included. What evaluation's prompt already holds, such as
the empty think block that some templates put before every reply, is not.
"""

import hashlib
import json
import shutil
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
from datasets import Dataset, disable_progress_bars
from transformers import PreTrainedTokenizerBase

from orchestrator.config import RunConfig
from orchestrator.data.card import LeftOut, TokenCard
from orchestrator.data.render import (
    ChatFormat,
    RenderedRow,
    RowLeftOut,
    Span,
    chat_format,
    learned_spans,
    plain_tools,
    refuse_control_tokens,
    render_row,
)
from orchestrator.data.template_proof import prove_template
from orchestrator.data.token_ledger import LedgerRow, Tally
from orchestrator.errors import DataError
from orchestrator.jsonl import dump_line, read_jsonl
from orchestrator.models.base import base_folder, load_tokenizer
from orchestrator.models.templates import stop_token_ids
from orchestrator.records import JsonObject, Message, Sample, SampleKind, ToolSpec
from orchestrator.runs import RunDir, SplitName, digest_of, open_atomic, write_text_atomic

__all__ = ["IGNORED", "LeftOut", "TokenCard", "render_prompt", "tokenize_run", "tokenize_sample", "tokenize_samples"]

IGNORED = -100
"""Label of a token that is not learned (PyTorch's cross-entropy default)."""
BATCH = 256
"""Samples rendered while those before them are encoded."""
MANY_TURNS = 32
"""Conversations of more assistant turns are measured before each turn is looked at."""
LAYOUT = 2
"""Changes with what is written, so that tokens of an older layout are made again."""
_SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})


class TokenRow(NamedTuple):
    """One sample in tokens; both lists have the same length. `spans` are the learned turns, of `num_turns`."""

    input_ids: list[int]
    labels: list[int]
    spans: tuple[Span, ...]
    num_turns: int


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    *,
    thinking: bool = False,
) -> list[int]:
    """Token ids of a conversation up to the point where the assistant speaks.

    Args:
        tokenizer: As `load_tokenizer` gives it.
        messages: The conversation so far.
        tools: What is offered.
        thinking: Whether the assistant may think first; earlier thoughts are shown only then.
    """
    dropped = None if thinking else {"reasoning_content"}
    ids = tokenizer.apply_chat_template(
        [message.model_dump(mode="json", exclude_none=True, exclude=dropped) for message in messages],
        tools=plain_tools(tools),
        add_generation_prompt=True,
        enable_thinking=thinking,
        return_dict=False,
    )
    return list(ids)


def tokenize_sample(tokenizer: PreTrainedTokenizerBase, sample: Sample, *, thinking: bool = False) -> TokenRow:
    """Token ids and labels of a sample of any length; every turn of the assistant is learned that can be.

    Raises:
        DataError: If the sample cannot be trained on, with the reason.
    """
    form = chat_format(tokenizer, thinking=thinking)
    row = next(tokenize_samples(form, [sample], max_length=None)).row
    if isinstance(row, LeftOut):
        raise DataError(f"{row.reason}: {row.detail}", where=f"sample {sample.id}")
    return row


class Tokenized(NamedTuple):
    """A sample, which `is_shortened` if it had to be, and its tokens or why it has none."""

    sample: Sample
    row: TokenRow | LeftOut
    is_shortened: bool = False


def tokenize_samples(
    form: ChatFormat, samples: Iterable[Sample], *, max_length: int | None, shorten: bool = False, screen: bool = True
) -> Iterator[Tokenized]:
    """Tokenise samples in order, some at a time.

    A sample of more than `max_length` tokens is left out, or with `shorten` ends after the last assistant turn that
    fits; its kind is then what that turn does. With `screen`, samples whose texts hold control tokens are left out.
    """
    limit = _Limit(max_length, shorten)
    source = iter(samples)
    batches = iter(lambda: list(islice(source, BATCH)), [])
    with ThreadPoolExecutor(max_workers=1) as encoder:
        waiting: _Batch | None = None
        for batch in batches:
            rendered = [_render(form, sample, limit, screen=screen) for sample in batch]
            texts = [row.text for row in rendered if isinstance(row, RenderedRow)]
            if waiting:
                yield from _encoded(form, waiting, limit)
            waiting = _Batch(batch, rendered, encoder.submit(form.encode_batch, texts))
        if waiting:
            yield from _encoded(form, waiting, limit)


class _Limit(NamedTuple):
    """The longest row, and whether a longer sample is shortened to it."""

    max_length: int | None
    shorten: bool


class _Batch(NamedTuple):
    """Samples, what each came to so far, and the encodings of those that are text, on their way."""

    samples: list[Sample]
    rendered: list[RenderedRow | Tokenized]
    encodings: Future[list[Any]]


def _render(form: ChatFormat, sample: Sample, limit: _Limit, *, screen: bool) -> RenderedRow | Tokenized:
    num_turns = sum(message.role == "assistant" for message in sample.messages)
    try:
        if screen:
            refuse_control_tokens(form, sample)
        if limit.max_length is not None and num_turns > MANY_TURNS:
            # Every turn is rendered with all before it: not for a talk that is too long anyway.
            length = _length(form, sample, len(sample.messages))
            if length > limit.max_length:
                return _too_long(form, sample, length, limit)
        return render_row(form, sample.messages, sample.tools)
    except RowLeftOut as problem:
        return _left_out(sample, problem, None)


def _length(form: ChatFormat, sample: Sample, num_messages: int) -> int:
    """Tokens of the first messages of a sample."""
    text = form.text(form.plain(sample.messages[:num_messages]), plain_tools(sample.tools), prompt=False)
    return len(form.encode(text))


def _left_out(sample: Sample, problem: RowLeftOut, tokens: int | None) -> Tokenized:
    reason, detail = problem.reason, problem.detail
    return Tokenized(sample, LeftOut(id=sample.id, source=sample.source, reason=reason, detail=detail, tokens=tokens))


def _encoded(form: ChatFormat, batch: _Batch, limit: _Limit) -> Iterator[Tokenized]:
    encodings = iter(batch.encodings.result())
    for sample, row in zip(batch.samples, batch.rendered, strict=True):
        yield row if isinstance(row, Tokenized) else _fitted(form, sample, row, next(encodings), limit)


def _fitted(form: ChatFormat, sample: Sample, row: RenderedRow, encoding: Any, limit: _Limit) -> Tokenized:
    length = len(encoding.ids)
    try:
        if limit.max_length is not None and length > limit.max_length:
            return _too_long(form, sample, length, limit)
        return Tokenized(sample, _token_row(form, row, encoding))
    except RowLeftOut as problem:
        return _left_out(sample, problem, length)


def _too_long(form: ChatFormat, sample: Sample, length: int, limit: _Limit) -> Tokenized:
    """The sample up to its last assistant turn that fits, where it may be shortened and one does."""
    max_length = limit.max_length or length
    detail = f"has {length} tokens, more than data.max_length {max_length}"
    if limit.shorten:
        detail += "; not even its first reply fits"
        if shortened := _shortened(form, sample, max_length):
            return shortened
    return _left_out(sample, RowLeftOut("too_long", detail), length)


def _shortened(form: ChatFormat, sample: Sample, max_length: int) -> Tokenized | None:
    """Rendered anew, because a template may close a talk otherwise than it goes on."""
    places = [place for place, message in enumerate(sample.messages) if message.role == "assistant"]
    num_fitting = bisect_right(places, max_length, key=lambda place: _length(form, sample, place + 1))
    for place in reversed(places[:num_fitting]):
        reply = sample.messages[place]
        kind: SampleKind = "tool_call" if reply.tool_calls else "answer"
        shorter = sample.model_copy(update={"messages": sample.messages[: place + 1], "kind": kind})
        try:
            row = render_row(form, shorter.messages, shorter.tools)
            tokens = _token_row(form, row, form.encode_batch([row.text])[0])
        except RowLeftOut:
            continue
        return Tokenized(shorter, tokens, is_shortened=True)
    return None


def _token_row(form: ChatFormat, row: RenderedRow, encoding: Any) -> TokenRow:
    ids: list[int] = encoding.ids
    labels = [IGNORED] * len(ids)
    spans = learned_spans(form, row, encoding)
    for span in spans:
        labels[span.start : span.end] = ids[span.start : span.end]
    return TokenRow(ids, labels, tuple(spans), row.num_turns)


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
    folder = base_folder(config.model)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.model.trust_remote_code)
    parts: tuple[SplitName, ...] = ("train", "val")
    card_path = run.root / "data" / "tokens" / "card.json"
    digest = tokens_digest(config, run, tokenizer, parts)
    if card_path.is_file():
        stored = json.loads(card_path.read_text(encoding="utf-8"))
        if stored.pop("digest") == digest:
            return {part: TokenCard.model_validate(stored[part]) for part in parts}
    card_path.unlink(missing_ok=True)  # whoever is cut off below must not leave a card that fits older tokens
    form = chat_format(tokenizer, thinking=config.data.reasoning == "keep")
    prove_template(form)
    cards = {part: _tokenize_part(config, run, part, form) for part in parts}
    content: JsonObject = {"digest": digest}
    content.update((part, card.model_dump(mode="json")) for part, card in cards.items())
    write_text_atomic(card_path, json.dumps(content, indent=2) + "\n")
    return cards


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
        [data.max_length, data.overlong, data.reasoning, LAYOUT],
    )


def _file_digest(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tokenize_part(config: RunConfig, run: RunDir, part: SplitName, form: ChatFormat) -> TokenCard:
    samples = read_jsonl(run.split(part), Sample)
    shorten = config.data.overlong == "shorten"
    rows = tokenize_samples(form, samples, max_length=config.data.max_length, shorten=shorten)
    folder, tally = tokens_folder(run, part), Tally()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{part}-", dir=folder.parent) as work:
        with open_atomic(ledger_path(run, part)) as ledger:
            _write_rows(Path(work) / "rows.arrow", rows, ledger, tally)
        if not tally.lengths:
            raise _nothing_usable(run, part, tally.left_out)
        disable_progress_bars()
        Dataset.from_file(f"{work}/rows.arrow").save_to_disk(f"{work}/saved")
        shutil.rmtree(folder, ignore_errors=True)  # replaced and never changed: other runs may share its files
        Path(work, "saved").rename(folder)
    return tally.card("marked template" if form.is_marked else "derived")


def _write_rows(path: Path, rows: Iterator[Tokenized], ledger: TextIO, tally: Tally) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        for batch in iter(lambda: list(islice(rows, 4 * BATCH)), []):
            kept = [_note(tokenized, ledger, tally) for tokenized in batch]
            writer.write_batch(_record_batch([row for row in kept if row is not None]))


def _note(tokenized: Tokenized, ledger: TextIO, tally: Tally) -> TokenRow | None:
    """Enter one sample into ledger and tally; returns its row if it is trained on."""
    sample, row = tokenized.sample, tokenized.row
    if isinstance(row, LeftOut):
        tally.left_out.append(row)
        return None
    entry = LedgerRow(
        id=sample.id,
        kind=sample.kind,
        tokens=len(row.input_ids),
        learned_tokens=sum(span.end - span.start for span in row.spans),
        turns=tuple(span.place for span in row.spans),
    )
    ledger.write(dump_line(entry) + "\n")
    tally.add(entry, unlearned_turns=row.num_turns - len(row.spans), is_shortened=tokenized.is_shortened)
    return row


def _record_batch(rows: Sequence[TokenRow]) -> pa.RecordBatch:
    """Rows as Arrow, without a Python object for every token."""
    offsets = np.cumsum([0, *(len(row.input_ids) for row in rows)], dtype=np.int32)
    ids, labels = (np.empty(int(offsets[-1]), dtype=np.int32) for _ in range(2))
    for row, start, end in zip(rows, offsets[:-1], offsets[1:], strict=True):
        ids[start:end], labels[start:end] = row.input_ids, row.labels
    lists = [pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)) for values in (ids, labels)]
    return pa.record_batch(lists, schema=_SCHEMA)


def _nothing_usable(run: RunDir, part: SplitName, left_out: Sequence[LeftOut]) -> DataError:
    where = str(run.split(part))
    if not left_out:
        return DataError(f"{part} holds no sample", where=where, fix="Give more conversations")
    reasons = ", ".join(
        f"{reason} x {count}" for reason, count in Counter(row.reason for row in left_out).most_common()
    )
    return DataError(
        f"no sample of {part} can be trained on: {reasons}; the first, {left_out[0].id}: {left_out[0].detail}",
        where=where,
        fix="Raise data.max_length where samples are too_long, or give conversations that the base's template can show",
    )
