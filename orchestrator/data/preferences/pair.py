"""What a preference is: a prompt with a better and a worse reply, and what became of every pair that was found."""

from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import Field

from orchestrator.core.files import parse_line
from orchestrator.core.records import Message, Record, Sample, SampleKind, ToolSpec
from orchestrator.data.card import HeldOutName, LeakCard
from orchestrator.run.paths import RunDir

PairOrigin = Literal["data", "file", "own_replies"]
"""Where the worse reply is from: a row of data.sources, a row of prefer.sources, or the adapter itself."""
ORIGINS: tuple[PairOrigin, ...] = get_args(PairOrigin)
PairPart = Literal["train", "val"]
PAIR_PARTS: tuple[PairPart, ...] = get_args(PairPart)


class PreferencePair(Record):
    """A prompt and two replies to it. Produced by `choose`, consumed by training and the leak audit.

    `messages` and `tools` are what evaluation renders as the prompt. Both replies are texts as the base writes them,
    without their end of turn; one of them is None where the data has a single reply, with a label. `kind` is that of
    the better one, of a single reply its own. `why_worse` is the verdict on a reply of the adapter's own; empty where
    the data says which is worse.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    chosen: str | None
    rejected: str | None
    kind: SampleKind
    source: str
    origin: PairOrigin
    why_worse: str = ""


class Candidate(NamedTuple):
    """A pair before it is rendered: a sample whose last message is the better reply, and the worse one.

    That is a message where the data has it, else the text that the adapter wrote. A single reply is the sample's last
    message, of which `label` says whether it is a good one; `rejected` is then None.
    """

    sample: Sample
    rejected: Message | str | None
    origin: PairOrigin
    why_worse: str = ""
    label: bool | None = None


class PairEntry(Record):
    """What became of one pair that was found: a line of `ledger.jsonl`.

    `part` is where it is, None if it was left out because of `left_out`: a reason that docs/preferences.md explains, or
    one of the quarantine or of `LeftOutReason`. `kind` is None where the row could not be read.
    """

    id: str
    origin: PairOrigin
    source: str
    kind: SampleKind | None = None
    part: PairPart | None = None
    left_out: str | None = None
    detail: str = ""

    @classmethod
    def of(cls, candidate: Candidate, **fate: str) -> "PairEntry":
        """The entry of a candidate."""
        sample = candidate.sample
        return cls(id=sample.id, origin=candidate.origin, source=sample.source, kind=sample.kind, **fate)


class KindCard(Record):
    """Pairs of one kind: found, wanted at most, kept; of these, in how many the chosen reply has more or fewer tokens.

    `tokens` are the mean tokens of a chosen and of a rejected reply, None without one of them.
    """

    found: int
    wanted: int
    kept: int
    chosen_longer: int
    chosen_shorter: int
    tokens: tuple[float, float] | None


class AskedCard(Record):
    """Replies that the adapter gave to training prompts of one kind, and how many of them are wrong."""

    replies: int
    wrong: int


class PairsCard(Record):
    """What the pairs of a preference training are: `card.json`. `leaks` is as in the data card, with pairs for train.

    `found` and `kept` are by origin, `left_out` by reason. Of those kept, `alone` are single replies, by their label.
    """

    adapter_id: str
    asked: dict[SampleKind, AskedCard]
    found: dict[PairOrigin, int]
    kept: dict[PairOrigin, int]
    left_out: dict[str, int]
    parts: dict[PairPart, int]
    kinds: dict[SampleKind, KindCard]
    leaks: dict[HeldOutName, LeakCard]
    alone: dict[Literal["good", "bad"], int] = Field(default={}, exclude_if=lambda counts: not counts)


def card_path(place: RunDir) -> Path:
    """The `PairsCard`."""
    return place.root / "card.json"


def read_card(place: RunDir) -> PairsCard:
    """The card that `store.write_pairs` wrote."""
    return parse_line(card_path(place).read_text(encoding="utf-8"), PairsCard, where=str(card_path(place)))
