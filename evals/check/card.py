"""The card of a check, and how a person sees it: tables and whole sentences, the verdict last."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from orchestrator.core.files import read_jsonl
from orchestrator.core.progress import say, show_table
from orchestrator.core.records import SAMPLE_KINDS, QuarantinedRow, Record, SampleKind
from orchestrator.core.text import duration_text
from orchestrator.data.card import DataCard, LeakCard, Overlap, ReasonCount, TokenCard
from orchestrator.data.rejection import REPEATED, Reasons
from orchestrator.run.paths import RunDir, SplitName

BAR_CHARS = 30
MAX_TOOLS = 12
"""Most tools that the table of tools names; the card has all."""

ParityProblemCode = Literal[
    "prompt_differs",
    "mask_wrong",
    "tools_dropped",
    "tool_calls_dropped",
    "tool_results_dropped",
    "system_dropped",
    "call_not_parsed",
    "call_changed",
    "serving_parser_differs",
]


class ParityProblem(Record):
    """One way in which training, evaluation and serving would not see the same tokens or calls."""

    code: ParityProblemCode
    sample_id: str
    detail: str


class ParityCard(Record):
    """Whether what is trained is what is evaluated and served. Produced by `check_parity`.

    `prompts` samples of every kind had their evaluation prompt compared with their training tokens; `calls` gold calls
    were rendered, decoded and parsed; `serving_calls` of them also by vLLM's parser named `serving_parser` (None with
    `serving_note` where it could not be asked). `base_template_differs` of the prompts differ when rendered with
    the base's own chat template: serve with the adapter's `chat_template.jinja`. `problems` holds the first of
    each code, `num_problems` counts all.
    """

    prompts: int
    prompt_kinds: dict[SampleKind, int]
    calls: int
    serving_parser: str | None
    serving_calls: int
    serving_note: str | None = None
    base_template_differs: int
    num_problems: int
    problems: tuple[ParityProblem, ...]


class CheckCard(Record):
    """Everything that `check` found. Kept in `check/check.json` under the digest of what was checked.

    `data_digest` is that of the split files alone. Both digests are empty where the sources could not be read. `data`,
    `tokens` and `parity` are None or empty from the first step that failed. `not_ready` says in whole sentences what
    has to change before training; empty means ready.
    """

    digest: str
    data_digest: str
    data: DataCard | None
    tokens: dict[SplitName, TokenCard]
    parity: ParityCard | None
    not_ready: tuple[str, ...]
    duration_s: float


def show_check(card: CheckCard, folder: RunDir, *, is_new: bool, conflict: str | None) -> None:
    """Print a check that was made in `folder`, now or earlier; `conflict` is why a run of this config is refused."""
    # A check that could not read its sources set nothing aside: what lies there is of other data.
    has_rows_aside = bool(card.digest) and folder.quarantine.is_file()
    if card.data is not None:
        show_data(card.data)
    elif has_rows_aside:
        show_reasons("Set aside", _quarantined(folder))
    if card.tokens:
        show_tokens(card.tokens)
    if card.data is not None and card.data.leaks:
        show_leaks(card.data)
    if card.parity is not None:
        show_parity(card.parity)
    if has_rows_aside:
        say(f"\nAll of it, with every row that was set aside and its reason: {folder.quarantine.parent}")
    for reason in card.not_ready:
        say(f"- {reason}")
    if conflict:
        say(f"Note: the data was checked, but a run of this configuration would be refused: {conflict}")
    took = duration_text(card.duration_s)
    how = f"checked in {took}" if is_new else f"by an earlier check of the same data, which took {took}"
    say(f"{'NOT READY' if card.not_ready else 'READY'} ({how})")


def show_data(card: DataCard) -> None:
    """Sources, kinds, tools and what was set aside."""
    aside = f"{_share(card.quarantined, card.rows)} were set aside{_repeats(card)}"
    say(f"\n{card.rows:,} rows became {card.samples:,} samples; {aside}.")
    sources = [
        [source.path, _formats(source.formats.items()), f"{source.rows:,}", f"{source.samples:,}"]
        for source in card.sources
    ]
    show_table("Sources", ["source", "format (inferred from)", "rows", "samples"], sources)
    kinds = [
        [kind, *(f"{card.part_kinds[part].get(kind, 0):,}" for part in ("train", "val", "test"))]
        for kind in SAMPLE_KINDS
        if kind in card.kinds
    ]
    show_table("What the last turn teaches", ["kind", "train", "val", "test"], kinds)
    if card.inferred_kinds:
        say(f"The kind of {_share(card.inferred_kinds, card.samples)} samples was inferred from their last turn.")
    if card.repaired_nulls:
        say(f"{card.repaired_nulls:,} nulls that a table had filled in were taken out.")
    _show_tools(card)
    show_reasons("Set aside", card.reasons)
    show_reasons("Kept, but look at these", card.flags)
    ignored = sum((Counter(source.ignored_fields) for source in card.sources), Counter[str]())
    if ignored:
        fields = ", ".join(f"{name} ({count:,} rows)" for name, count in ignored.most_common(8))
        say(f"Fields that hold something and were not used: {fields}.")


def _repeats(card: DataCard) -> str:
    count = sum(found.count for reason, found in card.reasons.items() if reason in REPEATED)
    return f", {count:,} of these because they repeat others" if count else ""


def _formats(formats: Iterable[tuple[str, object]]) -> str:
    return "; ".join(f"{name} ({getattr(count, 'why', '')})" for name, count in formats)


def _show_tools(card: DataCard) -> None:
    called = sorted(card.tools.items(), key=lambda tool: (-tool[1].calls, tool[0]))
    rows = [[name, f"{tool.offered:,}", f"{tool.calls:,}"] for name, tool in called[:MAX_TOOLS]]
    more = f", {len(called) - MAX_TOOLS:,} more not shown" if len(called) > MAX_TOOLS else ""
    if rows:
        show_table(f"Tools ({card.num_tools:,}{more})", ["tool", "offered in samples", "calls"], rows)
    never = sum(not tool.calls for tool in card.tools.values())
    if never:
        say(f"{never:,} tools are offered and never called.")


def show_reasons(title: str, reasons: Mapping[str, ReasonCount]) -> None:
    """Reason codes by frequency, each with its first example."""
    if reasons:
        ordered = sorted(reasons.items(), key=lambda item: -item[1].count)
        show_table(title, ["reason", "rows", "the first"], [[r, f"{c.count:,}", c.example] for r, c in ordered])


def _quarantined(folder: RunDir) -> dict[str, ReasonCount]:
    reasons = Reasons()
    for row in read_jsonl(folder.quarantine, QuarantinedRow):
        reasons.add_row(row)
    return reasons.counts()


def show_tokens(cards: Mapping[SplitName, TokenCard]) -> None:
    """Lengths as a histogram, and what carries the loss."""
    for part, card in cards.items():
        most = max((samples for _, samples in card.histogram), default=1) or 1
        rows = [
            [f"up to {up_to:,}", f"{samples:,}", "#" * -(-samples * BAR_CHARS // most)]
            for up_to, samples in card.histogram
        ]
        show_table(f"Tokens a sample, {part}", ["tokens", "samples", ""], rows)
        say(
            f"{part}: {card.tokens:,} tokens, of which {_share(card.learned_tokens, card.tokens)} carry the loss "
            f"({card.mask}); longest {card.longest:,}; {len(card.left_out):,} left out, {card.shortened:,} shortened."
        )
        for reason, count in Counter(row.reason for row in card.left_out).most_common():
            first = next(row for row in card.left_out if row.reason == reason)
            say(f"  left out: {reason} x {count:,}, such as {first.source}: {first.detail}")


def show_leaks(card: DataCard) -> None:
    """What the held-out parts share with train."""
    rows = [[part, *_overlaps(leak)] for part, leak in card.leaks.items()]
    columns = ["part", "prompts", "near-duplicates", "text arguments", "tools"]
    show_table("Shared with train", columns, rows)
    for part, leak in card.leaks.items():
        if leak.prompts.count:
            say(f"{part} shares prompts with train, such as: {leak.prompts.example}")


def _overlaps(leak: LeakCard) -> Iterator[str]:
    for overlap in (leak.prompts, leak.near_duplicates, leak.arguments, leak.tools):
        yield _overlap(overlap)


def _overlap(overlap: Overlap) -> str:
    return f"{overlap.count:,} of {overlap.n:,}"


def show_parity(card: ParityCard) -> None:
    """Whether training, evaluation and serving see the same tokens and calls."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in card.prompt_kinds.items())
    served = (
        f"vLLM's {card.serving_parser} parser agreed on {card.serving_calls:,} of them"
        if card.serving_parser
        else card.serving_note or "no serving parser was asked"
    )
    say(
        f"\nParity: {card.prompts:,} prompts ({kinds}) compared token by token with what is trained on; "
        f"{card.calls:,} calls rendered, decoded and parsed again; {served}. "
        + (f"{card.num_problems:,} problems." if card.num_problems else "No problem.")
    )
    if card.base_template_differs:
        say(
            f"{card.base_template_differs:,} of the prompts differ in the base's own chat template: "
            "serve adapters with the chat_template.jinja beside them."
        )
    for problem in card.problems:
        say(f"  {problem.code}: {problem.sample_id}: {problem.detail}")


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else f"{count:,}"
