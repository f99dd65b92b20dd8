"""All sources -> one work file of canonical samples; what is needed to choose among them stays in memory.

A sample takes a few hundred bytes of memory here, whatever its length: its line stays in the work file.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from orchestrator.config.evaluation import is_function
from orchestrator.config.schema import SYNTHETIC, DataConfig, SourceConfig
from orchestrator.core.errors import ConfigError, DataError
from orchestrator.core.parallel import map_chunks
from orchestrator.core.progress import bar
from orchestrator.core.records import JsonObject, Sample
from orchestrator.data.card import FormatCount
from orchestrator.data.clean.duplicates import NUM_PERM, shingles
from orchestrator.data.clean.quality import Flag
from orchestrator.data.formats.bfcl import answers_path, load_answers
from orchestrator.data.formats.canonical import FORMATS
from orchestrator.data.formats.turn_order import TurnFinding
from orchestrator.data.prepare.convert import (
    Converted,
    ConvertSettings,
    Refused,
    convert_rows,
    convert_samples,
    row_function,
)
from orchestrator.data.read.columns import look_up, read_recipe
from orchestrator.data.read.sources import (
    RawRow,
    file_name,
    named_files,
    parse_row,
    read_source,
    resolve_path,
    source_files,
)
from orchestrator.data.rejection import Quarantine, Reason, Reasons, RowRejected
from orchestrator.data.split.parts import SplitItem
from orchestrator.notation.strict_json import StrictJsonError, parse
from orchestrator.toy.synthetic import generate_samples

SYNTHETIC_SAMPLES = 2000
SYNTHETIC_SEED = 0
"""Fixed: `data.split.seed` decides where samples fall, not what they are."""
BOOKKEEPING = frozenset({"source", "original_names", "kind_inferred"})
"""Fields of samples that `prepare` wrote, for itself to read again."""
SPOKEN = ("role", "content", "reasoning_content", "name")
"""What two replies must share to be the same, beside the functions that they call."""
ROWS_PER_CHUNK = 250
"""Enough work to outweigh the transfer to another process, little enough to keep memory low and progress smooth."""


@dataclass
class SourceTally:
    """What has been read from one source so far."""

    config: SourceConfig
    files: tuple[str, ...] = ()
    sha256: str | None = None
    formats: Counter[str] = field(default_factory=Counter)
    format_reasons: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    first_refused: str = "none"
    num_rows: int = 0
    num_converted: int = 0
    repaired_nulls: int = 0
    num_renamed: int = 0
    columns: set[str] = field(default_factory=set)

    def format_counts(self) -> dict[str, FormatCount]:
        """Rows by format, and why the first of each was taken for it."""
        why = self.format_reasons
        return {name: FormatCount(rows=count, why=why[name]) for name, count in sorted(self.formats.items())}


class Samples:
    """The samples of all sources: lines in a work file, the rest in memory, by index in reading order."""

    def __init__(self, work_file: BinaryIO) -> None:
        self._file = work_file
        self._offsets = array("Q", [0])
        self._taught = array("Q")
        self._taught_ends = array("Q", [0])
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._signatures = np.empty((1024, NUM_PERM), dtype=np.uint32)
        self.items: list[SplitItem] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, ...]] = []
        self.sources = array("L")
        self.kinds_inferred = bytearray()
        self.default_systems = bytearray()

    def __len__(self) -> int:
        return len(self.items)

    def add(self, sample: Converted, source: int) -> None:
        """Add one sample of the source with this number."""
        data = sample.line.encode()
        self._file.write(data)
        self._offsets.append(self._offsets[-1] + len(data))
        if len(self.items) == len(self._signatures):
            # By copy: numpy may resize in place only what nothing else refers to.
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[len(self.items)] = sample.signature
        self._taught.extend(sample.taught)
        self._taught_ends.append(len(self._taught))
        item = sample.item
        # Most samples offer the same few tools: each list of names is kept once.
        self.items.append(item._replace(offered=self._shared(item.offered), called=self._shared(item.called)))
        self.ids.append(sample.id)
        self.tags.append(self._shared(sample.tags))
        self.sources.append(source)
        self.kinds_inferred.append(sample.is_kind_inferred)
        self.default_systems.append(sample.has_default_system)

    def _shared(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return self._tuples.setdefault(names, names)

    @property
    def signatures(self) -> np.ndarray:
        """MinHash signatures, `uint32[len(self), NUM_PERM]`."""
        return self._signatures[: len(self.items)]

    def taught(self, index: int) -> "array[int]":
        """The hashes of the turns that a sample teaches, see `Hashes`."""
        return self._taught[self._taught_ends[index] : self._taught_ends[index + 1]]

    def shared_turns(self) -> set[int]:
        """The hashes of turns that several samples teach."""
        hashes, counts = np.unique(np.asarray(self._taught, dtype=np.uint64), return_counts=True)
        return set(hashes[counts > 1].tolist())

    def line(self, index: int) -> str:
        """The sample as one line of JSON."""
        start, end = self._offsets[index], self._offsets[index + 1]
        self._file.seek(start)
        return self._file.read(end - start).decode()

    def value(self, index: int) -> JsonObject:
        """The sample as a JSON object."""
        value: JsonObject = json.loads(self.line(index))
        return value

    def place(self, index: int) -> tuple[str, int | None]:
        """The source of a sample and its line there; a generated sample has none."""
        source = str(self.value(index)["source"])
        file, _, line = source.rpartition(":")
        return (file, int(line)) if file and line.isdigit() else (source, None)

    def name(self, index: int) -> str:
        """How a person finds a sample: `file:line`, or its source and id."""
        source, line = self.place(index)
        return f"{source}:{line}" if line else f"{source} {self.ids[index]}"

    def words(self, index: int) -> frozenset[str]:
        """What near-duplicates share, see `shingles`."""
        return shingles(Sample.model_validate_json(self.line(index)))


def collect(
    config: DataConfig, base_dir: Path, samples: Samples, quarantine: Quarantine, *, flags: Reasons, turns: Reasons
) -> list[SourceTally]:
    """Read every source; good rows go to `samples`, bad ones to `quarantine`.

    Findings in good rows go to `flags`, those about the order of their turns to `turns`.
    """
    tallies = [_opened(source, base_dir) for source in config.sources]
    with bar("Reading rows", None) as advance:
        for number, tally in enumerate(tallies):
            for chunk in converted(tally.config, config, base_dir):
                for row in chunk:
                    _count(row, tally)
                    if isinstance(row, Refused):
                        quarantine.add(row.row)
                    else:
                        samples.add(row, number)
                        _note(row, row.flags, flags)
                        _note(row, row.turns, turns)
                advance(len(chunk))
    return tallies


def _opened(source: SourceConfig, base_dir: Path) -> SourceTally:
    named_files(source, base_dir=base_dir)
    if is_function(source.format):
        row_function(source.format)
    _refuse_unknown_fields(source)
    files = source_files(source, base_dir=base_dir)
    names = tuple(file_name(file, source, base_dir=base_dir) for file in files)
    return SourceTally(source, files=names, sha256=_sha256(files) if files else None)


def _refuse_unknown_fields(source: SourceConfig) -> None:
    """Refuse fields that no format reads, and templates that cannot be read."""
    formats = [form for name, form in FORMATS.items() if source.format in ("auto", name)]
    known = sorted(set().union(*(form.fields for form in formats)) - BOOKKEEPING)
    for name, recipe in source.fields.items():
        read_recipe(recipe)
        if name not in known:
            what = "no format reads" if source.format == "auto" else f"the format {source.format} does not read"
            fix = "On the left stands a field of the format, on the right a column of yours (docs/data.md)"
            allowed = ", ".join(known)
            raise ConfigError(f"{what} a field {name!r}", where="data.sources.fields", allowed=allowed, fix=fix)


def refuse_unmatched_fields(tally: SourceTally, base_dir: Path) -> None:
    """Refuse a source of which no row has a column that `fields` names: the name must be wrong.

    Raises:
        DataError: If there is such a column.
    """
    fields = tally.config.fields.items()
    named = [(column.name, name) for name, recipe in fields for column in read_recipe(recipe).columns]
    unseen = [(column, name) for column, name in named if column not in tally.columns]
    if not unseen or (not tally.num_converted and tally.quarantined[Reason.MISSING_COLUMN] < tally.num_rows):
        return
    first = _first_row(tally.config, base_dir)
    for column, name in unseen:
        if look_up(first, column) is None:
            raise DataError(
                f"no row has the column {column!r}, which `fields` gives for `{name}`",
                where=tally.config.path,
                allowed=f"the columns of the first row: {', '.join(first)}",
                fix="Correct data.sources[].fields",
            )


def _first_row(source: SourceConfig, base_dir: Path) -> JsonObject:
    for row in read_source(source, base_dir=base_dir):
        with suppress(RowRejected):
            if isinstance(row, RawRow):
                return parse_row(row)
    return {}


def _sha256(files: Iterable[Path]) -> str:
    sha = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: sha)
    return sha.hexdigest()


def converted(
    source: SourceConfig, config: DataConfig, base_dir: Path, *, rejected: bool = False
) -> Iterator[list[Converted | Refused]]:
    """The rows of a source in their order, some at a time; `rejected` as in `ConvertSettings`."""
    if source.path == SYNTHETIC:
        count = source.limit or SYNTHETIC_SAMPLES
        made = generate_samples(count, seed=SYNTHETIC_SEED, catalogue=source.catalogue)
        return map_chunks(partial(convert_samples, system=config.system), made, chunk_size=ROWS_PER_CHUNK)
    assert source.format != "synthetic", "the config allows this format for the path `synthetic` alone"
    answers, tools = _answers(source, base_dir), _tools(source, base_dir)
    settings = ConvertSettings(source.format, config.thinking, answers, tools, source.fields, config.system, rejected)
    rows = read_source(source, base_dir=base_dir)
    return map_chunks(partial(convert_rows, settings=settings), rows, chunk_size=ROWS_PER_CHUNK)


def _answers(source: SourceConfig, base_dir: Path) -> dict[str, list[Any]]:
    if source.answers is not None:
        return load_answers(resolve_path(source.answers, base_dir=base_dir))
    answers: dict[str, list[Any]] = {}
    for questions in source_files(source, base_dir=base_dir):
        if path := answers_path(questions):
            answers |= load_answers(path)
    return answers


def _tools(source: SourceConfig, base_dir: Path) -> list[Any] | None:
    if source.tools is None:
        return None
    path = resolve_path(source.tools, base_dir=base_dir)
    try:
        tools = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, StrictJsonError) as error:
        raise DataError(f"the tools cannot be read ({error})", where=str(path), fix="Give a JSON file") from None
    for key in ("result", "tools"):  # an MCP response holds a result, which holds the tools
        tools = tools.get(key, tools) if isinstance(tools, dict) else tools
    if not isinstance(tools, list) or not tools:
        raise DataError("this holds no tools", where=str(path), allowed="a JSON list of tools, or a tools/list result")
    return tools


def _count(row: Converted | Refused, tally: SourceTally) -> None:
    tally.num_rows += 1
    name = row.detected.format if row.detected else SYNTHETIC
    if isinstance(row, Refused):
        if not tally.quarantined:
            tally.first_refused = f"{row.row.source}:{row.row.line}: {row.row.detail}"
        tally.quarantined[row.row.reason] += 1
        if row.detected is None:
            return
    else:
        tally.num_converted += 1
        tally.ignored.update(row.ignored)
        tally.repaired_nulls += row.repaired_nulls
        tally.columns.update(row.columns)
    tally.formats[name] += 1
    tally.format_reasons.setdefault(name, row.detected.why if row.detected else "made by the built-in generator")


def _note(row: Converted, found: Iterable[Flag | TurnFinding], reasons: Reasons) -> None:
    for code, detail in found:
        reasons.add(code, f"{json.loads(row.line)['source']}: {detail}")


def contradictions(samples: Samples, kept: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Pairs of a kept sample and an earlier one with the same tools and turns but for the last, by index.

    Either may be wrong, or both right: a person must look. A sample is in one pair at most, with the first that asks
    the same. Ids of calls are not looked at.
    """
    indices = list(kept)
    sizes = Counter(samples.items[index].group for index in indices)
    firsts: dict[bytes, tuple[int, bytes]] = {}
    for index in indices:
        if sizes[samples.items[index].group] == 1:
            continue  # nothing else starts like it
        value = samples.value(index)
        *asked, reply = map(_spoken, value["messages"])
        said = _digest(reply)
        first, said_first = firsts.setdefault(_digest([asked, value["tools"]]), (index, said))
        if said != said_first:
            yield index, first


def _spoken(message: JsonObject) -> list[Any]:
    return [*(message.get(key) for key in SPOKEN), [call["function"] for call in message.get("tool_calls", ())]]


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:16]
