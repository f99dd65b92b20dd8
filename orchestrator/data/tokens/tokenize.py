"""Canonical samples -> token ids and labels, rendered once with the chat template that also renders evaluation.

Only what the assistant says is learned, its end-of-turn token included. What evaluation's prompt already holds, such as
the empty think block that some templates put before every reply, is not.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from orchestrator.chat.rendering import ChatFormat, refuse_control_tokens
from orchestrator.chat.segments import RenderedTurns, Row, Span, refuse_unfaithful, render_turns, rows_of, texts_of
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
    """One row in tokens; both lists have the same length. `spans` are the learned turns."""

    input_ids: list[int]
    labels: list[int]
    spans: tuple[Span, ...]


class TokenRows(NamedTuple):
    """The rows of one sample, at least one; `unlearned` turns of the assistant are learned in none of them."""

    rows: tuple[TokenRow, ...]
    unlearned: int


class Tokenized(NamedTuple):
    """A sample, which `is_shortened` if it had to be, and its tokens or why it has none."""

    sample: Sample
    tokens: TokenRows | LeftOut
    is_shortened: bool = False


def tokenize_samples(
    form: ChatFormat, samples: Iterable[Sample], *, max_length: int | None, shorten: bool = False, screen: bool = True
) -> Iterator[Tokenized]:
    """Tokenise samples in order, some at a time.

    A sample with a row of more than `max_length` tokens is left out, or with `shorten` ends after the last assistant
    turn that fits; its kind is then what that turn does. With `screen`, samples are left out whose texts hold control
    tokens, or of which the template leaves out words or shows other calls.
    """
    limit = _Limit(max_length, shorten)
    source = iter(samples)
    batches = iter(lambda: list(islice(source, BATCH)), [])
    with ThreadPoolExecutor(max_workers=1) as encoder:
        waiting: _Batch | None = None
        for batch in batches:
            rendered = [_render(form, sample, limit, screen=screen) for sample in batch]
            shown = (each.turns for each in rendered if isinstance(each, RenderedTurns))
            texts = list(dict.fromkeys(text for turns in shown for text in texts_of(form, turns)))
            if waiting:
                yield from _encoded(form, waiting, limit)
            waiting = _Batch(batch, rendered, encoder.submit(_encode_all, form, texts))
        if waiting:
            yield from _encoded(form, waiting, limit)


class _Limit(NamedTuple):
    """The longest row, and whether a longer sample is shortened to it."""

    max_length: int | None
    shorten: bool

    def fits(self, length: int) -> bool:
        """Whether a row may be so long."""
        return self.max_length is None or length <= self.max_length


class _Batch(NamedTuple):
    """Samples, the state of each, and the pending token ids of the texts of those that were rendered."""

    samples: list[Sample]
    rendered: list[RenderedTurns | Tokenized]
    ids: Future[dict[str, list[int]]]


def _encode_all(form: ChatFormat, texts: list[str]) -> dict[str, list[int]]:
    return {text: encoding.ids for text, encoding in zip(texts, form.encode_batch(texts), strict=True)}


def _render(form: ChatFormat, sample: Sample, limit: _Limit, *, screen: bool) -> RenderedTurns | Tokenized:
    num_turns = sum(message.role == "assistant" for message in sample.messages)
    try:
        if screen:
            refuse_control_tokens(form, sample)
        if limit.max_length is not None and num_turns > MANY_TURNS:
            # Each turn is rendered with all turns before it: too slow for a conversation that is too long anyway.
            length = _length(form, sample, len(sample.messages))
            if not limit.fits(length):
                return _too_long(form, sample, length, limit)
        shown = render_turns(form, sample.messages, sample.tools)
        if screen:
            refuse_unfaithful(form, shown.turns, sample)
        return shown
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
    """Advice; for faults of one kind it is looked for once, which takes several renderings."""
    known, has_several = _known_advice(form), any(len(message.tool_calls) > 1 for message in sample.messages)
    of_template = problem.detail if problem.reason == "template_refuses" else ""
    kind = (problem.reason, of_template, problem.fix, has_several)
    if kind not in known:
        known[kind] = advice_on(form, sample, problem)
    return known[kind]


@lru_cache(maxsize=4)
def _known_advice(_form: ChatFormat) -> dict[object, str]:
    return {}


def _encoded(form: ChatFormat, batch: _Batch, limit: _Limit) -> Iterator[Tokenized]:
    known = batch.ids.result()

    def encode(text: str) -> list[int]:
        ids = known.get(text)
        return form.encode(text) if ids is None else ids

    for sample, shown in zip(batch.samples, batch.rendered, strict=True):
        yield shown if isinstance(shown, Tokenized) else _fitted(form, sample, shown, encode, limit)


def _fitted(
    form: ChatFormat, sample: Sample, shown: RenderedTurns, encode: Callable[[str], list[int]], limit: _Limit
) -> Tokenized:
    rows = rows_of(form, shown.turns, encode)
    longest = max(len(row.ids) for row in rows)
    if not limit.fits(longest):
        return _too_long(form, sample, longest, limit)
    return Tokenized(sample, _token_rows(rows, shown.unlearned))


def _too_long(form: ChatFormat, sample: Sample, length: int, limit: _Limit) -> Tokenized:
    """The sample up to its last assistant turn that fits, where it may be shortened and one does."""
    max_length = limit.max_length or length
    detail = f"has {length} tokens, more than data.max_length {max_length}"
    if limit.shorten:
        detail += "; not even its first reply fits"
        if shortened := _shortened(form, sample, limit):
            return shortened
    return _left_out(form, sample, RowLeftOut("too_long", detail), length)


def _shortened(form: ChatFormat, sample: Sample, limit: _Limit) -> Tokenized | None:
    """Rendered again, because a template may end a conversation differently from how it goes on."""
    places = [place for place, message in enumerate(sample.messages) if message.role == "assistant" and message.learned]
    num_fitting = bisect_right(places, limit.max_length or 0, key=lambda place: _length(form, sample, place + 1))
    for place in reversed(places[: num_fitting + 1]):
        reply = sample.messages[place]
        kind: SampleKind = "tool_call" if reply.tool_calls else "answer"
        update = {"messages": sample.messages[: place + 1], "kind": kind, "kind_inferred": False}
        shorter = sample.model_copy(update=update)
        try:
            shown = render_turns(form, shorter.messages, shorter.tools)
            refuse_unfaithful(form, shown.turns, shorter)
        except RowLeftOut:
            continue
        rows = rows_of(form, shown.turns, form.encode)
        if all(limit.fits(len(row.ids)) for row in rows):
            return Tokenized(shorter, _token_rows(rows, shown.unlearned), is_shortened=True)
    return None


def _token_rows(rows: Iterable[Row], unlearned: int) -> TokenRows:
    return TokenRows(tuple(map(_token_row, rows)), unlearned)


def _token_row(row: Row) -> TokenRow:
    labels = [IGNORED] * len(row.ids)
    for span in row.spans:
        labels[span.start : span.end] = row.ids[span.start : span.end]
    return TokenRow(row.ids, labels, row.spans)
