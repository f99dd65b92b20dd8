"""Which of the pairs found are learned: none that a held-out part knows, none twice, kinds and lengths balanced."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from orchestrator.chat.rendering import ChatFormat, refuse_control_tokens
from orchestrator.chat.segments import RenderedTurn, refuse_unfaithful, render_turns, rows_of
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.config.preferences import PreferConfig
from orchestrator.core.records import SAMPLE_KINDS, Message, Sample, SampleKind
from orchestrator.data.clean.duplicates import (
    Signatures,
    WordsOf,
    near_duplicates,
    shingles,
    signature,
    similar_to,
)
from orchestrator.data.preferences.pair import (
    ORIGINS,
    PAIR_PARTS,
    Candidate,
    KindCard,
    PairEntry,
    PairPart,
    PreferencePair,
)
from orchestrator.data.rejection import Reason
from orchestrator.data.split.leaks import Prompts


class TokenPair(NamedTuple):
    """A pair in tokens, replies with their end of turn: the columns that TRL's preference trainers take.

    A single reply stands where its label puts it, and the other is empty.
    """

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer reply."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


PROMPT_COLUMN = "prompt_ids"
REPLY_COLUMNS = ("chosen_ids", "rejected_ids")
"""Columns of the tokens of pairs, as `TokenPair` names them."""


class Shown(NamedTuple):
    """A candidate that the base's template can show."""

    candidate: Candidate
    pair: PreferencePair
    tokens: TokenPair


@dataclass
class Choice:
    """The pairs that are learned, by part, what became of all that were found, and how many of each kind were left."""

    parts: dict[PairPart, list[Shown]] = field(default_factory=lambda: {part: [] for part in PAIR_PARTS})
    entries: list[PairEntry] = field(default_factory=list)
    kinds: dict[SampleKind, KindCard] = field(default_factory=dict)


def choose_pairs(
    form: ChatFormat,
    candidates: Iterable[Candidate],
    held_out: Sequence[Sample],
    config: PreferConfig,
    *,
    max_length: int,
    threshold: float,
) -> Choice:
    """Choose the pairs to learn from, the same ones in whatever order they come.

    Left out is a pair that shares its last user message with a conversation of `held_out`, or whose words overlap with
    one by at least `threshold`; the same holds between pairs, of which the data's own go first. Of what is left no kind
    gets more than its share, and pairs with a longer chosen reply alternate with those with a shorter one. Single
    replies are left out too, unless every loss of `config` learns from them.
    """
    choice = Choice()
    shown = list(_shown(form, candidates, max_length, choice))
    if not config.takes_replies_alone:
        shown = _without_alone(shown, choice)
    shown.sort(key=lambda one: (ORIGINS.index(one.candidate.origin), _rank(one.pair, config.seed)))
    known = _without_held_out(shown, held_out, threshold, choice)
    good, bad = ([one for one in known if (one.candidate.label is False) == is_bad] for is_bad in (False, True))
    kept = [one for part in (good, bad) for one in _without_repeats(part, threshold, choice)]
    wanted = quotas(config)
    for kind in SAMPLE_KINDS:
        found = [one for one in kept if one.pair.kind == kind]
        ordered = _alternating(found)
        taken, rest = ordered[: wanted[kind]], ordered[wanted[kind] :]
        for one in rest:
            _leave_out(one, "enough_of_its_kind", f"{wanted[kind]} pairs of this kind are wanted", choice)
        choice.kinds[kind] = _card(len(found), wanted[kind], taken)
        _deal(taken, config.val, choice)
    return choice


def quotas(config: PreferConfig) -> dict[SampleKind, int]:
    """At most how many pairs of each kind are learned from."""
    total = sum(config.shares.values())
    return {kind: round(config.max_pairs * config.shares.get(kind, 0.0) / total) for kind in SAMPLE_KINDS}


def show_pair(form: ChatFormat, candidate: Candidate) -> tuple[PreferencePair, TokenPair]:
    """A pair as texts and in tokens: the prompt as evaluation sends it, and each reply as it would be generated.

    Raises:
        RowLeftOut: If the template cannot show one of the replies, or shows both alike.
    """
    sample = candidate.sample
    turn = _last_turn(form, sample)
    texts = _texts_of(form, candidate, turn.reply)
    pair = PreferencePair(
        id=sample.id,
        messages=sample.messages[:-1],
        tools=sample.tools,
        **texts,
        kind=sample.kind,
        source=sample.source,
        origin=candidate.origin,
        why_worse=candidate.why_worse,
    )
    prompt, replies = list[int](), dict[str, list[int]]()
    for name, text in texts.items():
        if text is None:
            replies[f"{name}_ids"] = []
            continue
        (row,) = rows_of(form, [turn._replace(reply=text)], form.encode)
        start = row.spans[0].start
        prompt, replies[f"{name}_ids"] = row.ids[:start], row.ids[start:]
    return pair, TokenPair(prompt, **replies)


def _texts_of(form: ChatFormat, candidate: Candidate, own: str) -> dict[str, str | None]:
    """The chosen and the rejected reply as they would be generated, None where the sample's `own` is alone."""
    sample, rejected = candidate.sample, candidate.rejected
    if candidate.label is not None:
        return {"chosen": own if candidate.label else None, "rejected": None if candidate.label else own}
    if isinstance(rejected, Message):
        rejected = _last_turn(form, sample.model_copy(update={"messages": (*sample.messages[:-1], rejected)})).reply
    return {"chosen": own, "rejected": rejected}


def _last_turn(form: ChatFormat, sample: Sample) -> RenderedTurn:
    *asked, reply = sample.messages
    before = [message.model_copy(update={"learned": False}) for message in asked]
    alone = sample.model_copy(update={"messages": (*before, reply.model_copy(update={"learned": True}))})
    refuse_control_tokens(form, alone)
    turns = render_turns(form, alone.messages, alone.tools).turns
    refuse_unfaithful(form, turns, alone)
    return turns[0]


def _shown(form: ChatFormat, candidates: Iterable[Candidate], max_length: int, choice: Choice) -> Iterator[Shown]:
    for candidate in candidates:
        try:
            one = Shown(candidate, *show_pair(form, candidate))
        except RowLeftOut as problem:
            choice.entries.append(PairEntry.of(candidate, left_out=problem.reason, detail=problem.detail))
            continue
        if (one.pair.chosen or "").strip() == (one.pair.rejected or "").strip():
            _leave_out(one, "same_reply", "both replies are the same", choice)
        elif one.tokens.longest > max_length:
            _leave_out(one, "too_long", f"has {one.tokens.longest} tokens, more than {max_length}", choice)
        else:
            yield one


def _without_alone(shown: Sequence[Shown], choice: Choice) -> list[Shown]:
    for one in shown:
        if one.candidate.label is not None:
            _leave_out(one, Reason.UNPAIRED, "the row has one reply, and only the loss kto learns from such", choice)
    return [one for one in shown if one.candidate.label is None]


def _without_held_out(
    shown: Sequence[Shown], held_out: Sequence[Sample], threshold: float, choice: Choice
) -> list[Shown]:
    prompts = Prompts.of(sample.model_dump(mode="json") for sample in held_out)
    if not shown:
        return []
    samples = [*(one.candidate.sample for one in shown), *held_out]
    rows = range(len(shown))
    alike = similar_to(rows, range(len(shown), len(samples)), _signatures(samples), threshold, _words(samples))
    kept = []
    for row, one in enumerate(shown):
        if prompts.share(one.pair.model_dump(mode="json", include={"messages"})):
            _leave_out(one, "held_out", "a held-out conversation asks the same", choice)
        elif row in alike:
            _leave_out(one, "held_out", f"{samples[alike[row]].id} of a held-out part is nearly the same", choice)
        else:
            kept.append(one)
    return kept


def _without_repeats(shown: Sequence[Shown], threshold: float, choice: Choice) -> list[Shown]:
    if not shown:
        return []
    samples = [one.candidate.sample for one in shown]
    alike = near_duplicates(_signatures(samples), np.arange(len(samples)), threshold, _words(samples))
    for row, first in alike.items():
        _leave_out(shown[row], "near_duplicate", f"nearly the same as {shown[first].pair.id}", choice)
    return [one for row, one in enumerate(shown) if row not in alike]


def _signatures(samples: Sequence[Sample]) -> Signatures:
    return np.stack([signature(shingles(sample)) for sample in samples])


def _words(samples: Sequence[Sample]) -> WordsOf:
    return lambda row: shingles(samples[row])


def _alternating(found: Sequence[Shown]) -> list[Shown]:
    """Pairs in an order whose beginnings have as many with a longer as with a shorter chosen reply, while both last."""
    piles: dict[int, list[Shown]] = {-1: [], 0: [], 1: []}
    for one in found:
        piles[_longer(one)].append(one)
    both = zip_longest(piles[1], piles[-1])
    return [*piles[0], *(one for two in both for one in two if one is not None)]


def _longer(one: Shown) -> int:
    """1 where the chosen reply has more tokens than the rejected one, -1 where it has fewer, else 0, as if alone."""
    if one.candidate.label is not None:
        return 0
    chosen, rejected = len(one.tokens.chosen_ids), len(one.tokens.rejected_ids)
    return (chosen > rejected) - (chosen < rejected)


def _card(found: int, wanted: int, taken: Sequence[Shown]) -> KindCard:
    signs = Counter(map(_longer, taken))
    chosen, rejected = ([ids for one in taken if (ids := getattr(one.tokens, name))] for name in REPLY_COLUMNS)
    return KindCard(
        found=found,
        wanted=wanted,
        kept=len(taken),
        chosen_longer=signs[1],
        chosen_shorter=signs[-1],
        tokens=(_mean(chosen), _mean(rejected)) if chosen and rejected else None,
    )


def _mean(replies: Iterable[list[int]]) -> float:
    return round(statistics.fmean(map(len, replies)), 1)


def _deal(taken: Sequence[Shown], val: float, choice: Choice) -> None:
    """An even share of all pairs goes to val; those of a kind follow those of the kinds before."""
    dealt = sum(map(len, choice.parts.values()))
    for place, one in enumerate(taken, start=dealt):
        part: PairPart = "val" if int((place + 1) * val) > int(place * val) else "train"
        choice.parts[part].append(one)
        choice.entries.append(PairEntry.of(one.candidate, part=part))


def _leave_out(one: Shown, reason: str, detail: str, choice: Choice) -> None:
    choice.entries.append(PairEntry.of(one.candidate, left_out=reason, detail=detail))


def _rank(pair: PreferencePair, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{pair.id}:{pair.rejected}".encode()).digest()
