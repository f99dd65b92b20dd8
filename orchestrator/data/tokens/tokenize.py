"""Canonical samples -> token ids and labels, rendered once with the chat template that also renders evaluation.

Only what the assistant says is learned, its end-of-turn token included. What evaluation's prompt already holds, such as
the empty think block that some templates put before every reply, is not.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from orchestrator.chat.rendering import (
    ChatFormat,
    RenderedRow,
    Span,
    learned_spans,
    refuse_control_tokens,
    refuse_dropped_text,
    render_row,
)
from orchestrator.chat.template_input import RowLeftOut, plain_tools
from orchestrator.core.records import Sample, SampleKind
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.advice import advice_on

IGNORED = -100
"""Label of a token that is not learned (PyTorch's cross-entropy default)."""
BATCH = 256
"""Samples that are rendered while the previous ones are encoded."""
MANY_TURNS = 32
"""A conversation of more assistant turns is measured as a whole before its turns are rendered one by one."""


class TokenRow(NamedTuple):
    """One sample in tokens; both lists have the same length. `spans` are the learned turns, of `num_turns`."""

    input_ids: list[int]
    labels: list[int]
    spans: tuple[Span, ...]
    num_turns: int


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
    """Samples, the state of each, and the pending encodings of those that were rendered."""

    samples: list[Sample]
    rendered: list[RenderedRow | Tokenized]
    encodings: Future[list[Any]]


def _render(form: ChatFormat, sample: Sample, limit: _Limit, *, screen: bool) -> RenderedRow | Tokenized:
    num_turns = sum(message.role == "assistant" for message in sample.messages)
    try:
        if screen:
            refuse_control_tokens(form, sample)
        if limit.max_length is not None and num_turns > MANY_TURNS:
            # Each turn is rendered with all turns before it: too slow for a conversation that is too long anyway.
            length = _length(form, sample, len(sample.messages))
            if length > limit.max_length:
                return _too_long(form, sample, length, limit)
        row = render_row(form, sample.messages, sample.tools)
        if screen:
            refuse_dropped_text(form, row, sample.messages)
        return row
    except RowLeftOut as problem:
        return _left_out(form, sample, problem, None)


def _length(form: ChatFormat, sample: Sample, num_messages: int) -> int:
    """Tokens of the first messages of a sample."""
    text = form.text(form.plain(sample.messages[:num_messages]), plain_tools(sample.tools), prompt=False)
    return len(form.encode(text))


def _left_out(form: ChatFormat, sample: Sample, problem: RowLeftOut, tokens: int | None) -> Tokenized:
    given = {"id": sample.id, "source": sample.source, "kind": sample.kind, "tokens": tokens}
    fix = _advice(form, sample, problem)
    return Tokenized(sample, LeftOut(**given, reason=problem.reason, detail=problem.detail, fix=fix))


def _advice(form: ChatFormat, sample: Sample, problem: RowLeftOut) -> str:
    """Advice; for each message of a template it is looked for once, which takes several renderings."""
    if problem.reason != "template_refuses":
        return advice_on(form, sample, problem)
    known = _known_advice(form)
    if problem.detail not in known:
        known[problem.detail] = advice_on(form, sample, problem)
    return known[problem.detail]


@lru_cache(maxsize=4)
def _known_advice(_form: ChatFormat) -> dict[str, str]:
    return {}


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
        return _left_out(form, sample, problem, length)


def _too_long(form: ChatFormat, sample: Sample, length: int, limit: _Limit) -> Tokenized:
    """The sample up to its last assistant turn that fits, where it may be shortened and one does."""
    max_length = limit.max_length or length
    detail = f"has {length} tokens, more than data.max_length {max_length}"
    if limit.shorten:
        detail += "; not even its first reply fits"
        if shortened := _shortened(form, sample, max_length):
            return shortened
    return _left_out(form, sample, RowLeftOut("too_long", detail), length)


def _shortened(form: ChatFormat, sample: Sample, max_length: int) -> Tokenized | None:
    """Rendered again, because a template may end a conversation differently from how it goes on."""
    places = [place for place, message in enumerate(sample.messages) if message.role == "assistant" and message.learned]
    num_fitting = bisect_right(places, max_length, key=lambda place: _length(form, sample, place + 1))
    for place in reversed(places[:num_fitting]):
        reply = sample.messages[place]
        kind: SampleKind = "tool_call" if reply.tool_calls else "answer"
        update = {"messages": sample.messages[: place + 1], "kind": kind, "kind_inferred": False}
        shorter = sample.model_copy(update=update)
        try:
            row = render_row(form, shorter.messages, shorter.tools)
            refuse_dropped_text(form, row, shorter.messages)
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
