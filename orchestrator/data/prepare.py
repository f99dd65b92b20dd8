"""The prepare stage: sources -> canonical samples -> train, val, test, quarantine and data card."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import DataConfig, RunConfig, SourceConfig
from orchestrator.data.canonical import content_hash, ignored_fields, sample_from_row
from orchestrator.data.quality import check_sample
from orchestrator.data.readers import RawRow, RowFormat, detect_format, read_source, resolve_path
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.data.split import Split, split_samples
from orchestrator.data.synthetic import generate_samples
from orchestrator.errors import DataError
from orchestrator.jsonl import dump_jsonl, dump_line
from orchestrator.records import QuarantinedRow, Record, Sample, SampleKind
from orchestrator.runs import RunDir, SplitName, write_text_atomic

SYNTHETIC = "synthetic"
SYNTHETIC_SAMPLES = 2000
SYNTHETIC_SEED = 0
"""Fixed: `data.split.seed` decides where samples fall, not what they are."""


class ReasonCount(Record):
    """How many rows were quarantined for one reason, and the first of them as `file:line: detail`."""

    count: int
    example: str


class SourceCard(Record):
    """What one source gave. `rows` is `samples` plus the sum of `quarantined`.

    `sha256` is that of the whole file, None for the generator. `formats` counts rows by detected format, and
    `format_reason` says what told. `ignored_fields` counts rows by fields that hold something and have no place in a
    sample. `num_renamed` ids were taken already by another sample and got the content hash appended.
    """

    path: str
    sha256: str | None
    formats: dict[str, int]
    format_reason: str
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


class DataCard(Record):
    """`data/card.json`: what the data of a run is. Produced by `prepare_data`, consumed by the report.

    `parts` counts samples by part, and `part_kinds` by part and kind; `groups` are sets of samples that start alike and
    were dealt as one. `tools` is by tool name.
    """

    rows: int
    samples: int
    quarantined: int
    repaired_nulls: int
    groups: int
    num_tools: int
    sources: tuple[SourceCard, ...]
    reasons: dict[str, ReasonCount]
    kinds: dict[SampleKind, int]
    tags: dict[str, int]
    parts: dict[SplitName, int]
    part_kinds: dict[SplitName, dict[SampleKind, int]]
    tools: dict[str, ToolCard]


@dataclass
class _Loaded:
    """What was read from one source so far."""

    config: SourceConfig
    sha256: str | None = None
    samples: list[Sample] = field(default_factory=list)
    quarantine: list[QuarantinedRow] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    repaired_nulls: int = 0
    num_renamed: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.samples) + len(self.quarantine)


@dataclass
class _Seen:
    """What earlier samples of all sources take: content hash -> `file:line`, and ids."""

    contents: dict[str, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)


def prepare_data(config: RunConfig, run: RunDir, *, base_dir: Path) -> DataCard:
    """Read all sources, split them, and write the run's `data/` folder.

    Every row is either in one of the parts or in the quarantine, which is written before anything is refused.

    Args:
        config: The run's configuration; `data` decides.
        run: Where to write.
        base_dir: Folder that relative source paths start at, usually the config file's.

    Raises:
        DataError: If a file cannot be read, a source has no usable row, more than `data.max_quarantine_rate` of the
            rows were quarantined (duplicates aside), or the samples are too few to split.
    """
    seen = _Seen()
    loaded = [_load(source, seen, base_dir) for source in config.data.sources]
    write_text_atomic(run.quarantine, dump_jsonl(row for source in loaded for row in source.quarantine))
    for source in loaded:
        _refuse_without_samples(source, run)
    _refuse_bad_data(loaded, config.data, run)
    split = split_samples([sample for source in loaded for sample in source.samples], config.data.split)
    card = _card(loaded, split)
    for part, samples in _parts(split).items():
        write_text_atomic(run.split(part), dump_jsonl(samples))
    write_text_atomic(run.card, card.model_dump_json(indent=2) + "\n")
    return card


def _parts(split: Split) -> dict[SplitName, tuple[Sample, ...]]:
    return {"train": split.train, "val": split.val, "test": split.test}


def _load(source: SourceConfig, seen: _Seen, base_dir: Path) -> _Loaded:
    loaded = _Loaded(source)
    if source.path == SYNTHETIC:
        count = source.limit or SYNTHETIC_SAMPLES
        for sample in generate_samples(count, seed=SYNTHETIC_SEED, catalogue=source.catalogue):
            loaded.formats[SYNTHETIC] += 1
            try:
                _take(sample, loaded, seen)
            except RowRejected as rejected:
                loaded.quarantine.append(_refused_sample(sample, rejected))
        return loaded
    for row in read_source(source, base_dir=base_dir):
        if isinstance(row, QuarantinedRow):
            loaded.quarantine.append(row)
            continue
        try:
            _take_row(row, loaded, seen)
        except RowRejected as rejected:
            loaded.quarantine.append(row.quarantined(rejected.reason, rejected.detail))
    loaded.sha256 = _file_sha256(resolve_path(source.path, base_dir=base_dir))
    return loaded


def _refused_sample(sample: Sample, rejected: RowRejected) -> QuarantinedRow:
    raw = dump_line(sample)
    return QuarantinedRow(source=sample.source, line=None, reason=rejected.reason, detail=rejected.detail, raw=raw)


def _take_row(row: RawRow, loaded: _Loaded, seen: _Seen) -> None:
    row_format = _row_format(row, loaded.config)
    loaded.formats[row_format] += 1
    sample = sample_from_row(row.value, row_format, source=f"{row.source}:{row.line}")
    _take(sample, loaded, seen)
    loaded.ignored.update(ignored_fields(row.value))


def _row_format(row: RawRow, source: SourceConfig) -> RowFormat:
    found = detect_format(row.value)
    if source.format not in ("auto", found):
        detail = f"the row is {found}, but the config says format {source.format}"
        raise RowRejected(Reason.UNKNOWN_FORMAT, detail)
    return found


def _take(sample: Sample, loaded: _Loaded, seen: _Seen) -> None:
    sample, num_nulls = check_sample(sample)
    content = content_hash(sample)
    if content in seen.contents:
        raise RowRejected(Reason.DUPLICATE, f"the same messages and tools as {seen.contents[content]}")
    seen.contents[content] = sample.source
    if sample.id in seen.ids:
        # Two files may both count from 1; the id names a case in evaluation and must be unique.
        sample = sample.model_copy(update={"id": f"{sample.id}-{content[:16]}"})
        loaded.num_renamed += 1
    seen.ids.add(sample.id)
    loaded.repaired_nulls += num_nulls
    loaded.samples.append(sample)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_without_samples(source: _Loaded, run: RunDir) -> None:
    if source.samples:
        return
    raise DataError(
        f"none of its {source.num_rows} rows could be used: {_common_reasons(source.quarantine)}",
        where=source.config.path,
        allowed="rows with `messages` (OpenAI, TRL) or ShareGPT `conversations`",
        fix=f"Look at {run.quarantine}, where every refused row stands with its reason",
    )


def _refuse_bad_data(loaded: list[_Loaded], config: DataConfig, run: RunDir) -> None:
    # A repeated row is a good row that adds nothing: counted on the card, but no sign of bad data.
    bad = [row for source in loaded for row in source.quarantine if row.reason != Reason.DUPLICATE]
    num_rows = sum(source.num_rows for source in loaded)
    rate = len(bad) / num_rows
    if rate > config.max_quarantine_rate:
        raise DataError(
            f"{len(bad)} of {num_rows} rows ({rate:.1%}) could not be used: {_common_reasons(bad)}",
            where="data.max_quarantine_rate",
            allowed=f"at most {config.max_quarantine_rate:.1%}",
            fix=f"Look at {run.quarantine}, then repair the rows or raise data.max_quarantine_rate",
        )


def _common_reasons(quarantine: list[QuarantinedRow]) -> str:
    reasons = sorted(_reasons(quarantine).items(), key=lambda item: -item[1].count)
    return "; ".join(f"{reason} x {card.count}, such as {card.example}" for reason, card in reasons[:3])


def _reasons(quarantine: Iterable[QuarantinedRow]) -> dict[str, ReasonCount]:
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for row in quarantine:
        counts[row.reason] += 1
        place = row.source if row.line is None else f"{row.source}:{row.line}"
        examples.setdefault(row.reason, f"{place}: {row.detail}")
    return {reason: ReasonCount(count=counts[reason], example=examples[reason]) for reason in sorted(counts)}


def _card(loaded: list[_Loaded], split: Split) -> DataCard:
    parts = _parts(split)
    samples = [sample for part in parts.values() for sample in part]
    quarantine = [row for source in loaded for row in source.quarantine]
    num_rows = sum(source.num_rows for source in loaded)
    assert num_rows == len(samples) + len(quarantine), "a row was lost between reading and splitting"
    tools = _tools(samples)
    return DataCard(
        rows=num_rows,
        samples=len(samples),
        quarantined=len(quarantine),
        repaired_nulls=sum(source.repaired_nulls for source in loaded),
        groups=split.num_groups,
        num_tools=len(tools),
        sources=tuple(_source_card(source) for source in loaded),
        reasons=_reasons(quarantine),
        kinds=_kinds(samples),
        tags=_sorted(Counter(tag for sample in samples for tag in sample.tags)),
        parts={part: len(members) for part, members in parts.items()},
        part_kinds={part: _kinds(members) for part, members in parts.items()},
        tools=tools,
    )


def _source_card(loaded: _Loaded) -> SourceCard:
    source = loaded.config
    return SourceCard(
        path=source.path,
        sha256=loaded.sha256,
        formats=_sorted(loaded.formats),
        format_reason=_format_reason(source),
        limit=source.limit,
        rows=loaded.num_rows,
        samples=len(loaded.samples),
        quarantined=_sorted(Counter(row.reason for row in loaded.quarantine)),
        repaired_nulls=loaded.repaired_nulls,
        ignored_fields=_sorted(loaded.ignored),
        num_renamed=loaded.num_renamed,
    )


def _format_reason(source: SourceConfig) -> str:
    if source.path == SYNTHETIC:
        return "made by the built-in generator"
    told = "the first turn of each row: `role` is messages, `from` is sharegpt"
    return told if source.format == "auto" else f"{told}; the config asks for {source.format}"


def _kinds(samples: Iterable[Sample]) -> dict[SampleKind, int]:
    counts: Counter[SampleKind] = Counter(sample.kind for sample in samples)
    return dict(sorted(counts.items()))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _tools(samples: Iterable[Sample]) -> dict[str, ToolCard]:
    offered: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for sample in samples:
        offered.update(tool.function.name for tool in sample.tools)
        calls.update(_called(sample))
    return {name: ToolCard(offered=offered[name], calls=calls[name]) for name in sorted(offered)}


def _called(sample: Sample) -> Iterator[str]:
    return (call.function.name for message in sample.messages for call in message.tool_calls)
