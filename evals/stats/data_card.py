"""What a report says about the data: sentences and tables from the data card. Pure functions.

Names and examples come from the data: whoever draws a table or prints a sentence escapes it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orchestrator.core.records import SAMPLE_KINDS
from orchestrator.core.text import counted
from orchestrator.data.card import DataCard, HeldOutName, LeakCard, Overlap, ReasonCount, SourceCard
from orchestrator.run.paths import SplitName

PARTS: tuple[SplitName, ...] = ("train", "val", "test")
MAX_FIELDS = 8
"""Most unused fields that a report names; the card has all."""
SHA256_DIGITS = 12
"""Digits of a source's hash that a report shows; the card has all."""

MANY_REPEATS = 0.2
"""Share of the rows that may repeat others before a check warns: beyond it, more than chance repeats was taken out."""
REPEATED_AS: Mapping[str, tuple[str, str]] = {
    "duplicate": ("is the same as another", "are the same as others"),
    "beginning": ("is the beginning of another", "are the beginnings of others"),
    "near_duplicate": ("is almost the same as another", "are almost the same as others"),
}
"""What the card's reasons in `repeats` mean, of one row and of several."""

HOW_TO_READ_LEAKS = (
    "Shared prompts and near-duplicates make scores too good; shared tools are expected in a split by conversation, "
    "while a split by tool shows scores on tools never seen in training; "
    "text arguments, such as the names of cities, may recur in any split."
)

Cell = str | int


class DataTable(NamedTuple):
    """A table; every row has as many cells as `head`. `note` says how to read it, empty where that is plain."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def data_sentences(card: DataCard) -> list[str]:
    """What happened to the rows, in whole sentences."""
    sentences = [
        f"{counted(card.rows, 'row')} became {counted(card.samples, 'sample')}; "
        f"{_share(card.quarantined, card.rows)} {_were(card.quarantined)} set aside."
    ]
    for reason, found in card.repeats.items():
        what = REPEATED_AS[reason][found.count > 1]
        pair = f"such as {found.row}, beside {found.kept}"
        sentences.append(f"{_share(found.count, card.rows)} {'row' if found.count == 1 else 'rows'} {what}, {pair}.")
    if card.untaught_turns:
        turns = counted(card.untaught_turns, "turn")
        are = "is" if card.untaught_turns == 1 else "are"
        sentences.append(
            f"{turns} of the assistant {are} learned in another row that begins alike, and only shown here."
        )
    if card.inferred_kinds:
        sentences.append(f"The kind of {_samples(card.inferred_kinds, card.samples)} was inferred from the last turn.")
    if card.default_systems:
        got = _samples(card.default_systems, card.samples)
        sentences.append(f"{got} had no system message and got that of data.system.")
    if card.repaired_nulls:
        nulls = counted(card.repaired_nulls, "null")
        sentences.append(f"{nulls} that a table had filled in {_were(card.repaired_nulls)} taken out.")
    renamed = sum(source.num_renamed for source in card.sources)
    if renamed:
        sentences.append(f"{counted(renamed, 'sample')} got a new id, the own one being taken.")
    if card.moved_groups:
        sentences.append(
            f"{card.moved_groups:,} of {counted(card.groups, 'group')} of samples that start alike "
            f"{_were(card.moved_groups)} moved to another part, "
            "so that no part lacks a kind."
        )
    if card.pruned_tools:
        offers = f"{counted(card.pruned_tools, 'offer')} of held-out tools {_were(card.pruned_tools)}"
        sentences.append(f"{offers} taken out of samples of parts that must not see them.")
    ignored = sum((Counter(source.ignored_fields) for source in card.sources), Counter[str]())
    if ignored:
        fields = ", ".join(f"{name} ({counted(count, 'row')})" for name, count in ignored.most_common(MAX_FIELDS))
        more = f" and {len(ignored) - MAX_FIELDS:,} more" if len(ignored) > MAX_FIELDS else ""
        sentences.append(f"Fields that hold something and were not used: {fields}{more}.")
    return sentences


def repeated_share(card: DataCard) -> float:
    """The share of the rows that were set aside because they are the same, or almost the same, as others.

    Beginnings of others do not count: what they teach is in the data.
    """
    count = sum(found.count for reason, found in card.repeats.items() if reason != "beginning")
    return count / card.rows if card.rows else 0.0


def _samples(count: int, total: int) -> str:
    return f"{_share(count, total)} {'sample' if count == 1 else 'samples'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def data_tables(card: DataCard) -> list[DataTable]:
    """All tables with at least one row, in reading order."""
    tables = [
        _sources(card.sources),
        kinds_table(card),
        _leaks(card.leaks),
        _first_shared(card.leaks),
        reasons_table("Set aside", card.reasons),
        reasons_table("Turns that were put in order, or are left to the chat template", card.turns),
        reasons_table("Kept, but look at these", card.flags),
        _tools(card),
        DataTable("Tags", ("Tag", "Samples"), tuple(Counter(card.tags).most_common())),
    ]
    return [table for table in tables if table.rows]


def leak_warning(card: DataCard) -> str | None:
    """One sentence if the test part repeats training, so that its scores promise too much; else None."""
    leak = card.leaks.get("test")
    if leak is None:
        return None
    findings = [
        *_finding(leak.prompts, ("repeats a prompt of training", "repeat a prompt of training")),
        *_finding(leak.near_duplicates, ("nearly repeats a sample of training", "nearly repeat a sample of training")),
    ]
    return f"{' and '.join(findings)}: the scores may be too good." if findings else None


def _finding(overlap: Overlap, verb: tuple[str, str]) -> Iterable[str]:
    if overlap.count:
        samples = "held-out sample" if overlap.n == 1 else "held-out samples"
        yield f"{overlap.count:,} of {overlap.n:,} {samples} {verb[overlap.count > 1]}"


def _sources(sources: Iterable[SourceCard]) -> DataTable:
    rows = tuple(
        (
            source.path if source.limit is None else f"{source.path} (at most {counted(source.limit, 'row')})",
            _formats(source),
            source.rows,
            source.samples,
            sum(source.quarantined.values()),
            (source.sha256 or "")[:SHA256_DIGITS],
        )
        for source in sources
    )
    return DataTable(
        "Sources", ("Source", "Format, and why", "Rows", "Samples", "Set aside", "SHA-256 begins with"), rows
    )


def _formats(source: SourceCard) -> str:
    found = source.formats.items()
    if len(found) == 1:
        return "; ".join(f"{name} ({count.why})" for name, count in found)
    return "; ".join(f"{name}, {counted(count.rows, 'row')} ({count.why})" for name, count in found)


def kinds_table(card: DataCard) -> DataTable:
    """Counts of samples, without a word of the data."""
    rows: list[tuple[Cell, ...]] = [
        (kind.replace("_", " "), *(card.part_kinds.get(part, {}).get(kind, 0) for part in PARTS), card.kinds[kind])
        for kind in SAMPLE_KINDS
        if kind in card.kinds
    ]
    rows.append(("all", *(card.parts.get(part, 0) for part in PARTS), card.samples))
    return DataTable("Samples by kind and part", ("Kind", *PARTS, "all"), tuple(rows))


def _leaks(leaks: Mapping[HeldOutName, LeakCard]) -> DataTable:
    rows = tuple((part, *(_overlap(overlap) for overlap in _overlaps(leak).values())) for part, leak in leaks.items())
    head = ("Part", "Prompts", "Near-duplicates", "Text arguments", "Tools")
    return DataTable("Shared with training", head, rows, HOW_TO_READ_LEAKS)


def _first_shared(leaks: Mapping[HeldOutName, LeakCard]) -> DataTable:
    rows = tuple(
        (part, what, overlap.example)
        for part, leak in leaks.items()
        for what, overlap in _overlaps(leak).items()
        if overlap.count and overlap.example is not None
    )
    return DataTable("What is shared", ("Part", "Shared", "The first"), rows)


def _overlaps(leak: LeakCard) -> dict[str, Overlap]:
    return {
        "prompt": leak.prompts,
        "near-duplicate": leak.near_duplicates,
        "text argument": leak.arguments,
        "tool": leak.tools,
    }


def _overlap(overlap: Overlap) -> str:
    return f"{overlap.count:,} of {overlap.n:,}"


def reasons_table(title: str, reasons: Mapping[str, ReasonCount]) -> DataTable:
    """Reason codes by frequency, each with its first example."""
    ordered = sorted(reasons.items(), key=lambda item: (-item[1].count, item[0]))
    rows = tuple((reason, found.count, found.example) for reason, found in ordered)
    return DataTable(title, ("Reason", "Rows", "The first"), rows)


def _tools(card: DataCard) -> DataTable:
    called = sorted(card.tools.items(), key=lambda tool: (-tool[1].calls, -tool[1].offered, tool[0]))
    never = sum(not tool.calls for tool in card.tools.values())
    note = (
        f"{never:,} of {counted(card.num_tools, 'tool')} {'is' if never == 1 else 'are'} offered and never called."
        if never
        else ""
    )
    rows = tuple((name, tool.offered, tool.calls) for name, tool in called)
    return DataTable("Tools", ("Tool", "Offered in samples", "Calls"), rows, note)


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})" if total else f"{count:,}"
