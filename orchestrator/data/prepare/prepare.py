"""The prepare stage: sources -> canonical samples -> train, val, test, quarantine and data card."""

import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from orchestrator.config.evaluation import is_function
from orchestrator.config.schema import DataConfig, ModelConfig, RunConfig
from orchestrator.core.errors import DataError
from orchestrator.core.files import digest_of, open_atomic, write_text_atomic
from orchestrator.core.records import SampleKind
from orchestrator.data.card import DataCard, HeldOutName, LeakCard, Overlap, ReasonCount, SourceCard, ToolCard
from orchestrator.data.clean.duplicates import similar_to
from orchestrator.data.formats.bfcl import answers_path
from orchestrator.data.prepare.collect import Samples, SourceTally, collect, contradictions, refuse_unmatched_fields
from orchestrator.data.prepare.convert import function_files
from orchestrator.data.prepare.repeats import without_repeats
from orchestrator.data.read.sources import named_files, source_files
from orchestrator.data.rejection import NOT_BAD, Quarantine, Reasons
from orchestrator.data.split.leaks import audit_leaks
from orchestrator.data.split.parts import Assignment, assign_parts, visible_tools
from orchestrator.run.copies import local_path
from orchestrator.run.paths import RunDir, SplitName

Name = TypeVar("Name", bound=str)

PARTS: tuple[SplitName, ...] = ("train", "val", "test")
PATHS = ("path", "answers", "tools")
"""Fields of a source that name files."""
DISTRIBUTION = "tool-lora-orchestrator"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
AUDITED_SIMILARITY = 0.9
"""The similarity from which the leak audit counts near-duplicates if the configuration does not look for them."""


@dataclass(frozen=True)
class _Chosen:
    """Which samples stay, by index, and where each goes.

    `names` holds the new ids of those whose id was taken; `untaught` is that of `repeats.Unlike`.
    """

    kept: "array[int]"
    assignment: Assignment
    names: Mapping[int, str]
    untaught: Mapping[int, list[int]]


def prepare_data(config: RunConfig, run: RunDir, *, base_dir: Path) -> DataCard:
    """Read all sources, split them, and write the run's `data/` folder.

    Every row is either in one of the parts or in the quarantine, which is written before anything is refused. Which of
    several similar samples is kept, and where a sample goes, depends on the rows alone, not on their order. Relative
    source paths start at `base_dir`, usually the config file's folder.

    Raises:
        DataError: If a file cannot be read, a source has no usable row, more than `data.max_quarantine_rate` of the
            rows were quarantined (duplicates aside), or the samples are too few to split.
    """
    run.quarantine.parent.mkdir(parents=True, exist_ok=True)
    flags, turns = Reasons(), Reasons()
    with tempfile.TemporaryFile(dir=run.quarantine.parent) as work_file:
        samples = Samples(cast("BinaryIO", work_file))
        with open_atomic(run.quarantine) as file:
            quarantine = Quarantine(file)
            tallies = collect(config.data, base_dir, samples, quarantine, flags=flags, turns=turns)
            unlike = without_repeats(samples, config.data, tallies, quarantine)
        reasons = quarantine.reasons.counts()
        for tally in tallies:
            refuse_unmatched_fields(tally, base_dir)
            _refuse_without_samples(tally, run)
        _refuse_bad_data(tallies, reasons, config.data, run)
        assignment = assign_parts([samples.items[index] for index in unlike.kept], config.data.split)
        names = _new_names(samples, unlike.kept, tallies)
        chosen = _Chosen(unlike.kept, assignment, names, unlike.untaught)
        for index, first in contradictions(samples, unlike.kept):
            detail = f"another reply to the same conversation as {samples.name(first)}"
            flags.add("contradiction", f"{samples.name(index)}: {detail}")
        num_pruned = _write_parts(samples, chosen, run)
        card = _card(samples, chosen, tallies, num_pruned).model_copy(
            update={
                "reasons": reasons,
                "repeats": unlike.repeats,
                "untaught_turns": sum(map(len, unlike.untaught.values())),
                "turns": turns.counts(),
                "flags": flags.counts(),
                "leaks": _leaks(samples, chosen, config.data, run),
            }
        )
    write_text_atomic(run.card, card.model_dump_json(indent=2) + "\n")
    return card


def _new_names(samples: Samples, kept: "array[int]", tallies: list[SourceTally]) -> dict[int, str]:
    """New ids where several samples have one: two files may both count from 1, but an id names a case in evaluation.

    The sample with the smallest content hash keeps the id, so that the order of the rows decides nothing.
    """
    counts = Counter(samples.ids[index] for index in kept)
    taken = {name for name, count in counts.items() if count == 1}
    names: dict[int, str] = {}
    shared = [index for index in kept if counts[samples.ids[index]] > 1]
    for index in sorted(shared, key=lambda index: samples.items[index].content):
        name = samples.ids[index]
        if name in taken:
            name = names[index] = f"{name}-{samples.items[index].content.hex()[:16]}"
            tallies[samples.sources[index]].num_renamed += 1
        taken.add(name)
    return names


def _write_parts(samples: Samples, chosen: _Chosen, run: RunDir) -> int:
    """Write the three parts; returns how many offers of held-out tools were taken out of samples."""
    num_pruned = 0
    held_out = chosen.assignment.held_out_tools
    with ExitStack() as stack:
        files = {part: stack.enter_context(open_atomic(run.split(part))) for part in PARTS}
        for index, part in zip(chosen.kept, chosen.assignment.parts, strict=True):
            item = samples.items[index]
            visible = set(visible_tools(part, item.offered, held_out)) if held_out else set(item.offered)
            text = samples.line(index)
            untaught = chosen.untaught.get(index, ())
            if index in chosen.names or untaught or len(visible) < len(set(item.offered)):
                value = json.loads(text)
                taught = [
                    turn for turn in value["messages"] if turn["role"] == "assistant" and turn.get("learned", True)
                ]
                for place in untaught:
                    taught[place]["learned"] = False
                value["id"] = chosen.names.get(index, value["id"])
                tools = [tool for tool in value["tools"] if tool["function"]["name"] in visible]
                num_pruned += len(value["tools"]) - len(tools)
                text = json.dumps(value | {"tools": tools}, ensure_ascii=False)
            files[part].write(text + "\n")
    return num_pruned


def _leaks(samples: Samples, chosen: _Chosen, config: DataConfig, run: RunDir) -> dict[HeldOutName, LeakCard]:
    rows: dict[SplitName, list[int]] = {part: [] for part in PARTS}
    for index, part in zip(chosen.kept, chosen.assignment.parts, strict=True):
        rows[part].append(index)
    threshold = config.near_duplicate_threshold or AUDITED_SIMILARITY
    held_out: tuple[HeldOutName, ...] = ("val", "test")
    near = {part: _near_train(samples, rows[part], rows["train"], threshold) for part in held_out}
    return audit_leaks({part: run.split(part) for part in PARTS}, near)


def _near_train(samples: Samples, rows: list[int], train: list[int], threshold: float) -> Overlap:
    found = similar_to(rows, train, samples.signatures, threshold, samples.words)
    first = next(iter(found.items()), None)
    example = None if first is None else " and ".join(str(samples.value(index)["source"]) for index in first)
    return Overlap(count=len(found), n=len(rows), example=example)


def _refuse_without_samples(tally: SourceTally, run: RunDir) -> None:
    if tally.num_converted:
        return
    reasons = ", ".join(f"{reason} x {count}" for reason, count in tally.quarantined.most_common(3))
    raise DataError(
        f"none of its {tally.num_rows} rows could be used: {reasons}; the first is {tally.first_refused}",
        where=tally.config.path,
        allowed="rows in one of the formats of docs/data.md",
        fix=f"Look at {run.quarantine}, where every refused row stands with its reason",
    )


def _refuse_bad_data(
    tallies: list[SourceTally], reasons: dict[str, ReasonCount], config: DataConfig, run: RunDir
) -> None:
    # A repeated row is a good row that adds nothing: counted on the card, but no sign of bad data.
    bad = {reason: found for reason, found in reasons.items() if reason not in NOT_BAD}
    num_bad, num_rows = sum(found.count for found in bad.values()), sum(tally.num_rows for tally in tallies)
    rate = num_bad / num_rows
    if rate > config.max_quarantine_rate:
        common = sorted(bad.items(), key=lambda item: -item[1].count)[:3]
        named = "; ".join(f"{reason} x {found.count}, such as {found.example}" for reason, found in common)
        raise DataError(
            f"{num_bad} of {num_rows} rows ({rate:.1%}) could not be used: {named}",
            where="data.max_quarantine_rate",
            allowed=f"at most {config.max_quarantine_rate:.1%}",
            fix=f"Look at {run.quarantine}, then repair the rows or raise data.max_quarantine_rate",
        )


def _card(samples: Samples, chosen: _Chosen, tallies: list[SourceTally], num_pruned: int) -> DataCard:
    items = [samples.items[index] for index in chosen.kept]
    num_rows = sum(tally.num_rows for tally in tallies)
    num_quarantined = sum(sum(tally.quarantined.values()) for tally in tallies)
    assert num_rows == len(items) + num_quarantined, "a row was lost between reading and splitting"
    tools = _tools(samples, chosen)
    by_source = Counter(samples.sources[index] for index in chosen.kept)
    by_part = {part: Counter[SampleKind]() for part in PARTS}
    for item, part in zip(items, chosen.assignment.parts, strict=True):
        by_part[part][item.kind] += 1
    return DataCard(
        rows=num_rows,
        samples=len(items),
        quarantined=num_quarantined,
        repaired_nulls=sum(tally.repaired_nulls for tally in tallies),
        groups=chosen.assignment.num_groups,
        moved_groups=chosen.assignment.moved_groups,
        pruned_tools=num_pruned,
        num_tools=len(tools),
        sources=tuple(_source_card(tally, by_source[number]) for number, tally in enumerate(tallies)),
        reasons={},
        flags={},
        kinds=_sorted(Counter(item.kind for item in items)),
        inferred_kinds=sum(samples.kinds_inferred[index] for index in chosen.kept),
        default_systems=sum(samples.default_systems[index] for index in chosen.kept),
        tags=_sorted(Counter(tag for index in chosen.kept for tag in samples.tags[index])),
        parts={part: by_part[part].total() for part in PARTS},
        part_kinds={part: _sorted(by_part[part]) for part in PARTS},
        leaks={},
        tools=tools,
    )


def _source_card(tally: SourceTally, num_samples: int) -> SourceCard:
    return SourceCard(
        path=tally.config.path,
        files=tally.files,
        sha256=tally.sha256,
        formats=tally.format_counts(),
        limit=tally.config.limit,
        rows=tally.num_rows,
        samples=num_samples,
        quarantined=_sorted(tally.quarantined),
        repaired_nulls=tally.repaired_nulls,
        ignored_fields=_sorted(tally.ignored),
        num_renamed=tally.num_renamed,
    )


def _tools(samples: Samples, chosen: _Chosen) -> dict[str, ToolCard]:
    offered: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for index, part in zip(chosen.kept, chosen.assignment.parts, strict=True):
        item = samples.items[index]
        offered.update(visible_tools(part, item.offered, chosen.assignment.held_out_tools))
        calls.update(item.called)
    return {name: ToolCard(offered=offered[name], calls=calls[name]) for name in sorted(offered)}


def _sorted(counts: Counter[Name]) -> dict[Name, int]:
    return dict(sorted(counts.items()))


def data_digest(config: DataConfig, *, base_dir: Path) -> str:
    """Digest of what decides the split files: the section and its files, by name and content.

    Not by folder, for a submitted job finds the same files in another place each time. The file of a function that
    reads rows is one of them; a hub data set counts by its name and revision.

    Raises:
        DataError: If a source is missing.
        ConfigError: If a function that reads rows is missing.
    """
    files: list[Path] = []
    for source in config.sources:
        questions = source_files(source, base_dir=base_dir)
        found = [answers_path(path) for path in questions]
        files += [*questions, *(path for path in found if path is not None)]
        files += named_files(source, base_dir=base_dir)
        files += function_files(source.format) if is_function(source.format) else []
    named = [
        source.model_dump() | {key: (path := getattr(source, key)) and Path(path).name for key in PATHS}
        for source in config.sources
    ]
    section = config.model_dump(mode="json") | {"sources": named}
    return digest_of(section, [file.name for file in files], *files, version(DISTRIBUTION))


def tokenizer_digest(model: ModelConfig) -> str:
    """Digest of what decides how text becomes tokens: the base's name and revision, and a local folder's files."""
    folder = local_path(model.base)
    files = [folder / name for name in TOKENIZER_FILES] if folder.is_dir() else []
    return digest_of(model.base, model.revision, model.trust_remote_code, *files, version(DISTRIBUTION))
