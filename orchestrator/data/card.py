"""`data/card.json`: what the data of a run is. Produced by `prepare`, read by `check` and the report."""

from typing import Literal

from pydantic import Field

from orchestrator.core.records import LeftOutReason, Record, SampleKind
from orchestrator.run.paths import SplitName

HeldOutName = Literal["val", "test"]
NOT_SHOWN: tuple[LeftOutReason, ...] = (
    "nothing_to_learn",
    "text_not_shown",
    "calls_not_shown",
    "prompt_differs",
    "template_refuses",
)
"""Why the chat template does not show a good sample: what another template might."""
MOST_NOT_SHOWN = 0.5
"""The share of the data that the chat template may leave out. Beyond it, what is learned and scored is other data."""


class ReasonCount(Record):
    """How often something was found, and the first of it as `file:line: detail`."""

    count: int
    example: str


class RepeatCount(Record):
    """How many rows were set aside for one reason of `REPEATED`: the first of them, and the row that was kept.

    Each is told by its place and in words: what is asked last, and the reply.
    """

    count: int
    row: str
    kept: str


class FormatCount(Record):
    """How many rows of a source were read as one format, and why the first of them was taken for it."""

    rows: int
    why: str


class SourceCard(Record):
    """What one source gave. `rows` is `samples` plus the sum of `quarantined`.

    `files` are its file names; `sha256` is that of their bytes in this order, None for the generator and the hub.
    `ignored_fields` counts rows by fields that hold something and have no place in a sample. `num_renamed` ids were
    taken already by another sample and got the content hash appended.
    """

    path: str
    files: tuple[str, ...]
    sha256: str | None
    formats: dict[str, FormatCount]
    limit: int | None
    rows: int
    samples: int
    quarantined: dict[str, int]
    repaired_nulls: int
    ignored_fields: dict[str, int]
    num_renamed: int


class ToolCard(Record):
    """In how many samples a tool is offered, and how many calls name it."""

    offered: int
    calls: int


class Overlap(Record):
    """How many of `n` different things of a held-out part also occur in train, and one of them."""

    count: int
    n: int
    example: str | None = None


class LeakCard(Record):
    """What a held-out part shares with train.

    `prompts` are samples whose last user message is also one of train (letter case, punctuation and spaces aside);
    `arguments` are different text values in calls; `tools` are names of offered tools; `near_duplicates` are samples
    whose words overlap with one of train by `data.near_duplicate_threshold` (0.9 where that is off). Shared tools are
    expected in a split by conversation, and shared arguments in any: they are shown so that scores can be read rightly.
    """

    prompts: Overlap
    arguments: Overlap
    tools: Overlap
    near_duplicates: Overlap


class DataCard(Record):
    """What the data of a run is.

    `reasons` are those of the quarantine, `repeats` those of them for which a row is good and another teaches the same,
    with a pair to look at; `untaught_turns` are turns of the assistant that a sample shows and another, which begins
    alike, teaches; `turns` counts samples by what was done to the order of their turns, or left to the chat
    template (`TurnCode`); `flags` are findings in rows that were kept. `parts` counts samples by part,
    and `part_kinds` by part and kind; `inferred_kinds` is how many samples' kind was inferred from their last turn,
    and `default_systems` how many got the system prompt of `data.system`.
    `groups` are sets of samples that start alike and were dealt as one; `moved_groups` of them were moved so that no
    part lacks a kind. `pruned_tools` are held-out tools taken out of the offers of training samples (split by tool).
    `tools` is by tool name.
    """

    rows: int
    samples: int
    quarantined: int
    repaired_nulls: int
    groups: int
    moved_groups: int
    pruned_tools: int
    num_tools: int
    sources: tuple[SourceCard, ...]
    reasons: dict[str, ReasonCount]
    repeats: dict[str, RepeatCount] = Field(default_factory=dict)
    untaught_turns: int = 0
    turns: dict[str, ReasonCount] = Field(default_factory=dict)
    flags: dict[str, ReasonCount]
    kinds: dict[SampleKind, int]
    inferred_kinds: int
    default_systems: int = 0
    tags: dict[str, int]
    parts: dict[SplitName, int]
    part_kinds: dict[SplitName, dict[SampleKind, int]]
    leaks: dict[HeldOutName, LeakCard]
    tools: dict[str, ToolCard]


class LeftOut(Record):
    """A sample that is not trained on, and why; `tokens` is None where it was left out before it was tokenised.

    `fix` is what would let the template show it; cards of earlier versions have none.
    """

    id: str
    source: str
    kind: SampleKind
    reason: LeftOutReason
    detail: str
    tokens: int | None = None
    fix: str = ""


class KindTokens(Record):
    """Token counts of the samples of one kind."""

    samples: int
    tokens: int
    learned_tokens: int


class TokenCard(Record):
    """Token counts of one part of the split. Produced by `tokenize_run`; `learned_tokens` carry the loss.

    `rows` is what is trained on: a sample is one row, or several where the template shows earlier turns otherwise once
    the conversation goes on, or the tokenizer joins a reply with the prompt before it.
    `shortened` samples end at an earlier turn of the assistant so that they fit. `unlearned_turns` are earlier turns of
    the assistant in trained samples that carry no loss, because the template shows nothing of them. `histogram` holds
    (up_to, rows) in two bins a doubling; each begins after the last.
    """

    samples: int
    rows: int
    tokens: int
    learned_tokens: int
    longest: int
    shortened: int
    unlearned_turns: int
    by_kind: dict[SampleKind, KindTokens]
    histogram: tuple[tuple[int, int], ...]
    left_out: tuple[LeftOut, ...]
