"""One chunk of raw rows -> checked canonical samples and what later steps need to know about them, in any process."""

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from orchestrator.config.evaluation import RowFormat, is_function
from orchestrator.core.errors import ConfigError
from orchestrator.core.files import dump_line
from orchestrator.core.records import JsonObject, Message, QuarantinedRow, Sample
from orchestrator.data.clean.duplicates import shingles, signature
from orchestrator.data.clean.quality import Flag, check_sample, find_flags
from orchestrator.data.formats.bfcl import with_answer
from orchestrator.data.formats.canonical import hashes_of, ignored_fields, sample_from_row
from orchestrator.data.formats.common import TOOL_LISTS
from orchestrator.data.formats.detect import Detected, detect_format
from orchestrator.data.formats.turn_lists import with_rejected
from orchestrator.data.formats.turn_order import TurnFinding
from orchestrator.data.read.sources import RawRow, parse_mapped_row, parse_row, quarantined
from orchestrator.data.read.tables import value_row
from orchestrator.data.read.unread import tools_hint
from orchestrator.data.rejection import OFFERED_NONE, Reason, RowRejected
from orchestrator.data.split.parts import SplitItem, group_key

TOOL_FIELDS = (*TOOL_LISTS, "function")
"""Fields under which a row of any format offers tools."""


class ConvertSettings(NamedTuple):
    """How the rows of one source are read, and as what: `auto`, a `RowFormat` or a `RowFunction`.

    `answers` are BFCL's, by id, `tools` are offered in rows without any. `fields` and `system` are those of the config.
    With `rejected`, rows end with the reply that they reject in place of the one that they prefer.
    """

    row_format: str
    keep_reasoning: bool
    answers: Mapping[str, list[Any]]
    tools: list[Any] | None
    fields: Mapping[str, str]
    system: str | None
    rejected: bool = False


class Converted(NamedTuple):
    """A good row. `line` is its sample as JSON; `detected` is None for generated samples.

    `columns` are those of `data.sources[].fields` that hold something, `has_default_system` says that `data.system` was
    put in front. `taught` is that of `Hashes`, `turns` are what was done to the order of the turns.
    """

    line: str
    id: str
    item: SplitItem
    taught: tuple[int, ...]
    signature: np.ndarray
    tags: tuple[str, ...]
    is_kind_inferred: bool
    detected: Detected | None
    ignored: tuple[str, ...]
    repaired_nulls: int
    flags: tuple[Flag, ...]
    has_default_system: bool
    columns: tuple[str, ...] = ()
    turns: tuple[TurnFinding, ...] = ()


class Refused(NamedTuple):
    """A bad row, and its format as far as that was recognised."""

    row: QuarantinedRow
    detected: Detected | None


def convert_rows(rows: list[RawRow | QuarantinedRow], settings: ConvertSettings) -> list[Converted | Refused]:
    """Every row as a sample or as an entry of the quarantine, in order."""
    return [Refused(row, None) if isinstance(row, QuarantinedRow) else _convert(row, settings) for row in rows]


def _convert(row: RawRow, settings: ConvertSettings) -> Converted | Refused:
    detected: Detected | None = None
    value: JsonObject = {}
    try:
        value, columns = parse_mapped_row(row, settings.fields)
        if is_function(settings.row_format):
            value = _from_function(row_function(settings.row_format), value)
        if settings.tools is not None and not any(value.get(name) for name in TOOL_FIELDS):
            value = value | {"tools": settings.tools}
        if settings.rejected:
            value = with_rejected(value)
        detected = _format_of(value, settings)
        if detected.format == "bfcl":
            value = with_answer(value, settings.answers)
        source = f"{row.source}:{row.line}"
        keep = settings.keep_reasoning
        sample, is_inferred, turns = sample_from_row(value, detected.format, source=source, keep_reasoning=keep)
        converted = convert_sample(sample, is_kind_inferred=is_inferred, system=settings.system)
        ignored = tuple(ignored_fields(value, detected.format))
        return converted._replace(detected=detected, ignored=ignored, columns=columns, turns=turns)
    except RowRejected as rejected:
        return Refused(quarantined(row, rejected.reason, rejected.detail + _hint(value, rejected)), detected)


def _hint(row: JsonObject, rejected: RowRejected) -> str:
    """Where the tools may be that were missed in a row, as the end of the sentence about it."""
    return tools_hint(row) if rejected.reason is Reason.UNKNOWN_TOOL and OFFERED_NONE in rejected.detail else ""


def _format_of(value: dict[str, Any], settings: ConvertSettings) -> Detected:
    if settings.row_format == "auto":
        detected = detect_format(value)
        return detected._replace(why=f"{detected.why}, with `fields`") if settings.fields else detected
    if is_function(settings.row_format):
        return Detected("messages", f"the function {settings.row_format} returns it")
    return Detected(cast("RowFormat", settings.row_format), "the config says so")


def _from_function(function: Callable[[JsonObject], Any], row: JsonObject) -> JsonObject:
    """What the user's function makes of a row, as the strict JSON object that a file would have given."""
    try:
        given = function(row)
        found = value_row(0, given)
    except Exception as error:  # noqa: BLE001 - whatever it raises is a finding about this row
        raise RowRejected(Reason.FUNCTION_FAILED, f"{type(error).__name__}: {error}"[:300]) from None
    if given is None:
        raise RowRejected(Reason.LEFT_OUT, "the function returned None")
    if not isinstance(given, dict):
        raise RowRejected(Reason.FUNCTION_FAILED, f"the function returned a {type(given).__name__}, not a dict or None")
    if found.refusal is not None:
        raise found.refusal
    return parse_row(RawRow("", 0, found.content))


@lru_cache
def row_function(name: str) -> Callable[[JsonObject], Any]:
    """The function of a `RowFunction`, imported as Python imports it and from the current directory, or ConfigError."""
    where = f"data.sources.format {name}"
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    rule = f"Modules are looked for in the current directory ({here}) and among the installed packages"
    importlib.invalidate_caches()
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except Exception as error:
        problem = f"the module {module_name} cannot be imported ({type(error).__name__}: {error})"
        raise ConfigError(problem, where=where, fix=rule) from error
    if not callable(function):
        raise ConfigError(f"the module {module_name} has no function {function_name}", where=where, fix=rule)
    return cast("Callable[[JsonObject], Any]", function)


def function_files(name: str) -> list[Path]:
    """The files of a `RowFunction`: of the module named and of the module that defines it; ConfigError if none."""
    modules = dict.fromkeys([name.partition(":")[0], getattr(row_function(name), "__module__", None)])
    files = [getattr(sys.modules.get(module or ""), "__file__", None) for module in modules]
    if found := [Path(file) for file in files if file]:
        return found
    raise ConfigError("the function is in no Python file", where=f"data.sources.format {name}")


def convert_sample(sample: Sample, *, is_kind_inferred: bool, system: str | None) -> Converted:
    """Check a sample (see `check_sample`) and describe it for duplicates, splits and counts.

    `system` becomes the system message of a sample that has none; None leaves it without.
    """
    sample, num_nulls = check_sample(sample)
    gets_system = system is not None and sample.messages[0].role != "system"
    if gets_system:
        messages = (Message(role="system", content=system), *sample.messages)
        sample = sample.model_copy(update={"messages": messages})
    line = dump_line(sample)
    hashes = hashes_of(sample)
    item = SplitItem(
        content=hashes.content[:16],
        group=group_key(sample),
        kind=sample.kind,
        offered=tuple(tool.function.name for tool in sample.tools),
        called=tuple(call.function.name for message in sample.messages for call in message.tool_calls),
    )
    return Converted(
        line=line,
        id=sample.id,
        item=item,
        taught=hashes.taught,
        signature=signature(shingles(sample)),
        tags=sample.tags,
        is_kind_inferred=is_kind_inferred,
        detected=None,
        ignored=(),
        repaired_nulls=num_nulls,
        flags=tuple(find_flags(sample, line, is_kind_inferred=is_kind_inferred)),
        has_default_system=gets_system,
    )


def convert_samples(samples: list[Sample], *, system: str | None) -> list[Converted | Refused]:
    """Every generated sample, checked like a row of a file."""
    converted: list[Converted | Refused] = []
    for sample in samples:
        try:
            converted.append(convert_sample(sample, is_kind_inferred=False, system=system))
        except RowRejected as refusal:
            found = {"reason": refusal.reason, "detail": refusal.detail, "raw": dump_line(sample)}
            converted.append(Refused(QuarantinedRow(source=sample.source, **found), None))
    return converted
