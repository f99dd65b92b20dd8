"""Raw rows of every kind of source as a stream: memory holds a few rows, never a file.

A bad row becomes a `QuarantinedRow`; a source that cannot be read as a whole is one `DataError`. JSON is parsed by
`parse_row`, which any process can call.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from orchestrator.config.evaluation import PATHS_START
from orchestrator.config.schema import HUB, SYNTHETIC, SourceConfig
from orchestrator.config.storage import is_bucket
from orchestrator.core.errors import DataError, causes
from orchestrator.core.records import JsonObject, QuarantinedRow
from orchestrator.data.read.columns import Mapped, map_fields
from orchestrator.data.read.file_bytes import GZIP_SUFFIX, Found, refuse_unreadable
from orchestrator.data.read.json_files import ALL_TURN_LISTS, read_json, read_json_lines
from orchestrator.data.read.tables import read_csv, read_parquet, value_row
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.pythonic import parse_json_or_literal
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely, parse
from orchestrator.run.copies import local_copy

PARQUET = ".parquet"
TEXT_READERS: dict[str, Callable[[Path], Iterator[Found]]] = {
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
}
READERS = {
    **TEXT_READERS,
    **{ending + GZIP_SUFFIX: read for ending, read in TEXT_READERS.items()},
    PARQUET: read_parquet,
}
"""How a file is read, by the end of its name."""
MAX_RAW_CHARS = 10_000
"""Longest text of a bad row that the quarantine repeats; the rest stays in the source at the line given."""
TEXT_COLUMNS = frozenset(
    {"instruction", "input", "output", "prompt", "response", "query", "chat", "text", "content", "system"}
)
"""CSV columns that are text even where the text is JSON."""
FAULT_REASONS: dict[str, Reason] = {
    "malformed": Reason.MALFORMED_JSON,
    "too_deep": Reason.NESTED_TOO_DEEPLY,
    "invalid_unicode": Reason.INVALID_UNICODE,
}


class RawRow(NamedTuple):
    """One row as it stands in a source. Small and picklable: rows go to other processes in chunks.

    `source` is the file as a user would name it, `line` a 1-based line or a 1-based place in an array or table.
    `content` is JSON text not yet parsed, or the cells of a CSV row by column.
    """

    source: str
    line: int
    content: str | JsonObject


def resolve_path(path: str, *, base_dir: Path) -> Path:
    """Where a source lies: `path` as it is when absolute, under the home folder for `~`, else under `base_dir`.

    Of one in a bucket there is a copy here.
    """
    if is_bucket(path):
        return local_copy(path)
    try:
        return base_dir / Path(path).expanduser()
    except RuntimeError:
        raise DataError("the home folder is not known", where=path, fix="Give the path in full") from None


def source_files(source: SourceConfig, *, base_dir: Path) -> list[Path]:
    """The files of a source in the order they are read; none for the generator and the hub.

    A pattern (`*`, `?`, `[...]`, `**` for any folders) means the files it matches, sorted; hidden ones only where it
    names the dot. A path that exists is never a pattern.

    Raises:
        DataError: If a file is missing, no regular file, empty, of an unknown type or plainly not UTF-8, or if a
            pattern matches nothing.
    """
    if source.path == SYNTHETIC or source.path.startswith(HUB):
        return []
    path = resolve_path(source.path, base_dir=base_dir)
    files = _matches(source.path, base_dir) if _is_pattern(source.path) and not _exists(path) else [path]
    for file in files:
        if _file_type(file) not in READERS and file.is_file():
            raise _unknown_type(file)
        refuse_unreadable(file, is_text=_file_type(file) != PARQUET)
    return files


def named_files(source: SourceConfig, *, base_dir: Path) -> list[Path]:
    """The files of answers and of tools that a source names beside its rows; refused as in `refuse_unreadable`."""
    files = [resolve_path(path, base_dir=base_dir) for path in (source.answers, source.tools) if path]
    for file in files:
        refuse_unreadable(file, is_text=True)
    return files


def file_name(file: Path, source: SourceConfig, *, base_dir: Path) -> str:
    """One of a source's files as a user would name it: as in the config, or relative to `base_dir` for a pattern."""
    if file == resolve_path(source.path, base_dir=base_dir):
        return source.path
    return str(file.relative_to(base_dir)) if file.is_relative_to(base_dir) else str(file)


def _is_pattern(text: str) -> bool:
    return any(char in text for char in "*?[")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _matches(given: str, base_dir: Path) -> list[Path]:
    parts = PurePath(given).parts
    num_fixed = next(number for number, part in enumerate(parts) if _is_pattern(part))
    folder = resolve_path(str(PurePath(*parts[:num_fixed])), base_dir=base_dir)
    pattern = PurePath(*parts[num_fixed:])
    fix = f"Correct data.sources[].path: {PATHS_START}"
    try:
        found = {file for file in folder.glob(str(pattern)) if not file.is_dir()}
    except (ValueError, OSError) as error:
        raise DataError(f"this is no pattern of files ({error})", where=given, fix=fix) from None
    names_dot = any(part.startswith(".") for part in pattern.parts)
    files = sorted(file for file in found if names_dot or not _is_hidden(file.relative_to(folder)))
    if not files:
        raise DataError("no file matches this pattern", where=str(folder / pattern), fix=fix)
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _file_type(path: Path) -> str:
    suffix = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + suffix if suffix == GZIP_SUFFIX else suffix


def _unknown_type(path: Path) -> DataError:
    return DataError(
        f"the file type {_file_type(path) or '(none)'!r} is not known",
        where=str(path),
        allowed=", ".join(READERS),
        fix="Convert the file to JSON lines, one conversation a line, or narrow the pattern",
    )


def read_source(source: SourceConfig, *, base_dir: Path) -> Iterator[RawRow | QuarantinedRow]:
    """Yield the first `source.limit` rows of a source, over all its files in order.

    Rows that cannot even be taken out of their file come as quarantined; the others may still turn out bad in
    `parse_row`. Text is UTF-8, with or without a byte order mark. The generator has no rows (ValueError).

    Raises:
        DataError: As `source_files`; if a file holds no rows, or its structure is broken, after the rows before the
            break; if a hub data set cannot be read.
    """
    if source.path == SYNTHETIC:
        raise ValueError("the generator makes samples, not raw rows")
    rows = _read_hub(source) if source.path.startswith(HUB) else _read_files(source, base_dir)
    return islice(rows, source.limit)


def _read_files(source: SourceConfig, base_dir: Path) -> Iterator[RawRow | QuarantinedRow]:
    for file in source_files(source, base_dir=base_dir):
        try:
            yield from _rows(READERS[_file_type(file)](file), file_name(file, source, base_dir=base_dir), str(file))
        except OSError as error:
            fix = "Check the disk it lies on"
            raise DataError(f"the file cannot be read ({error})", where=str(file), fix=fix) from None


def _rows(found: Iterator[Found], name: str, where: str) -> Iterator[RawRow | QuarantinedRow]:
    is_empty = True
    for line, content, refusal in found:
        is_empty = False
        row = RawRow(name, line, content)
        yield quarantined(row, refusal.reason, refusal.detail) if refusal else row
    if is_empty:
        raise DataError("it holds no rows", where=where, fix="Give a source with at least three conversations")


def _read_hub(source: SourceConfig) -> Iterator[RawRow | QuarantinedRow]:
    # Heavy imports, needed by this kind of source alone.
    import httpx
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name = source.path.removeprefix(HUB)
    try:
        rows = load_dataset(name, source.subset, split=source.part, revision=source.revision, streaming=True)
        yield from _rows((value_row(place, row) for place, row in enumerate(rows, start=1)), source.path, source.path)
    except DataError:
        raise
    # Many libraries stand behind a data set, each with exceptions of its own.
    except (
        *(OSError, ValueError, LookupError, TypeError, RuntimeError),
        *(DatasetsError, httpx.HTTPError, httpx.InvalidURL, pa.ArrowException),
    ) as error:
        raise _hub_error(source, error) from None


def _hub_error(source: SourceConfig, error: Exception) -> DataError:
    name = source.path.removeprefix(HUB)
    said = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    kinds = {type(cause).__name__ for cause in causes(error)}
    if "gated" in said.lower() or "GatedRepoError" in kinds:
        fix = f"Accept its terms on https://huggingface.co/datasets/{name}, then log in or set HF_TOKEN"
    elif isinstance(error, ConnectionError) or kinds & {"ConnectError", "ConnectTimeout", "OfflineModeIsEnabled"}:
        fix = "Connect to the network, or download the data set elsewhere and name its files as the path"
    elif isinstance(error, FileNotFoundError):
        fix = f"Check the id ({HUB}owner/name) and revision; a private data set needs HF_TOKEN"
    else:
        fix = "Correct subset, part or revision, or download the data set and name its files as the path"
    return DataError(f"the data set cannot be read from the hub: {said}", where=source.path, fix=fix)


def parse_row(row: RawRow) -> JsonObject:
    """The row as a JSON object. A CSV cell that starts like a JSON object or list is taken for one if it is one.

    RowRejected if the row is not strict JSON or no object, or a CSV cell of turns is not strict JSON.
    """
    return parse_mapped_row(row, {}).row


def parse_mapped_row(row: RawRow, fields: Mapping[str, str]) -> Mapped:
    """The row as `parse_row` gives it, with `data.sources[].fields` applied; a CSV cell is read by its mapped name."""
    if not isinstance(row.content, str):
        mapped = map_fields(row.content, fields)
        return mapped._replace(row={column: _cell_value(column, cell) for column, cell in mapped.row.items()})
    value = _strict(row.content, "")
    if not isinstance(value, dict):
        raise RowRejected(Reason.ROW_NOT_AN_OBJECT, f"the row is {dump_loosely(value)[:80]}, not an object")
    return map_fields(value, fields)


def _strict(text: str, where: str) -> Any:
    try:
        return parse(text)
    except StrictJsonError as error:
        raise RowRejected(FAULT_REASONS[error.fault.code], f"{where}{error.fault.detail}") from None


def _cell_value(column: str, cell: Any) -> Any:
    if not isinstance(cell, str) or column in TEXT_COLUMNS or not cell.lstrip().startswith(("[", "{")):
        return cell
    try:
        return parse_json_or_literal(cell) if column in ALL_TURN_LISTS else parse(cell)
    except StrictJsonError:
        return _strict(cell, f"`{column}` is ") if column in ALL_TURN_LISTS else cell


def quarantined(row: RawRow, reason: Reason, detail: str) -> QuarantinedRow:
    """A row as an entry of the quarantine."""
    text = row.content if isinstance(row.content, str) else dump_loosely(row.content)
    return QuarantinedRow(source=row.source, line=row.line, reason=reason, detail=detail, raw=clip_raw(text))


def clip_raw(text: str) -> str:
    """The text of a bad row, cut at MAX_RAW_CHARS, with its full length."""
    return text if len(text) <= MAX_RAW_CHARS else f"{text[:MAX_RAW_CHARS]} ... ({len(text)} characters in all)"
