"""Rows of tables: CSV, Parquet, and whatever else gives Python values that JSON may lack."""

import csv
import datetime
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestrator.core.errors import DataError
from orchestrator.data.read.file_bytes import MAX_LINE_BYTES, UTF8_BOM, Found, bounded_lines, not_utf8, open_bytes
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import StrictJsonError, parse

BATCH_ROWS = 256
"""Parquet rows that exist as Python values at once."""
OTHER_SEPARATORS = {";": "semicolon", "\t": "tab", "|": "bar"}


def read_csv(path: Path) -> Iterator[Found]:
    """The rows of a CSV file by the names of its header, at the line where each starts; empty cells are absent.

    Rows with more or fewer cells than the header are refused.

    Raises:
        DataError: If the quoting is broken, the text is not UTF-8, a row is longer than MAX_LINE_BYTES, or the header
            names a column twice or has another separator.
    """
    header: list[str] = []
    for line, cells in _csv_rows(path):
        if not any(cells):
            continue
        if not header:
            header = _checked_header(cells, f"{path}:{line}")
        elif len(cells) == len(header):
            yield Found(line, {name: cell for name, cell in zip(header, cells, strict=True) if cell})
        else:
            detail = f"the row has {len(cells)} cells, the header {len(header)}"
            refusal = RowRejected(Reason.MALFORMED_FIELD, detail)
            yield Found(line, json.dumps(cells, ensure_ascii=False), refusal)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    # The limit is the process's; its default of 131,072 is less than one long conversation.
    csv.field_size_limit(MAX_LINE_BYTES + 1)
    with open_bytes(path) as file:
        lines = _CsvLines(path, file)
        reader = csv.reader(lines, strict=True)
        while True:
            line = lines.start_row()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                fix = "Repair the quotes: a cell with quotes stands in quotes, with each of its own doubled"
                raise DataError(f"not CSV: {error}", where=f"{path}:{line}", fix=fix) from None
            if cells is None:
                return
            yield line, cells


class _CsvLines:
    """The decoded lines of a CSV file, as long as the row they belong to keeps within bounds."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._lines = path, bounded_lines(file)
        self._num_lines, self._first_line, self._row_bytes = 0, 1, 0

    def start_row(self) -> int:
        """Begin a row, and return the line it starts at."""
        self._first_line, self._row_bytes = self._num_lines + 1, 0
        return self._first_line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._num_lines = line.number
        self._row_bytes += line.num_bytes + 1
        if self._row_bytes > MAX_LINE_BYTES:
            raise DataError(
                f"the row is longer than {MAX_LINE_BYTES} bytes",
                where=f"{self._path}:{self._first_line}",
                fix="Close the quote that opens there and is never closed, or leave the row out",
            )
        data = line.data.removeprefix(UTF8_BOM) if line.number == 1 else line.data
        try:
            return data.decode() + "\n"
        except UnicodeDecodeError:
            raise not_utf8(f"{self._path}:{line.number}") from None


def _refuse_duplicates(names: list[str], where: str) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        fix = "Rename or remove one of the two"
        raise DataError(f"the column {twice[:80]!r} stands there twice", where=where, fix=fix)


def _checked_header(names: list[str], where: str) -> list[str]:
    _refuse_duplicates(names, where)
    for separator, called in OTHER_SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            raise DataError(f"the cells seem to be separated by a {called}", where=where, fix="Separate them by commas")
    return names


def read_parquet(path: Path) -> Iterator[Found]:
    """The rows of a Parquet file as JSON text, a batch at a time.

    Nested columns become objects and lists, and text of Arrow's JSON type the value it stands for. Arrow gives every
    object of a column the same fields: those a row lacks are null.

    Raises:
        DataError: If the file is broken, or names a column twice.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            _refuse_duplicates(schema.names, str(path))
            decode = _json_decoder(pa.struct(schema))
            batches = file.iter_batches(batch_size=BATCH_ROWS)
            values = (value for batch in batches for value in _values(batch))
            for place, value in enumerate(values, start=1):
                yield value_row(place, value, decode)
    except (pa.ArrowException, OSError) as error:
        problem = " ".join(str(error).split())[:200].rstrip(".")
        fix = "Fetch or write the file again"
        raise DataError(f"the Parquet file is broken ({problem})", where=str(path), fix=fix) from None


def _values(batch: Any) -> Iterator[Any]:
    """The rows of a batch; for one that has no Python value, the refusal."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
        return
    except (ValueError, KeyError, OverflowError):
        pass  # One bad row spoils the batch: find it.
    for place in range(batch.num_rows):
        try:
            value = batch.slice(place, 1).to_pylist(maps_as_pydicts="strict")[0]
        except UnicodeDecodeError:
            value = RowRejected(Reason.NOT_UTF8, "a text is not UTF-8")
        except (ValueError, KeyError, OverflowError) as error:
            value = RowRejected(Reason.MALFORMED_FIELD, f"a value cannot be read: {str(error)[:200]}")
        yield value


def _json_decoder(kind: Any) -> Callable[[Any], Any] | None:
    """What turns a value of an Arrow type into the same with its JSON texts parsed; None if the type has none."""
    import pyarrow as pa

    if isinstance(kind, pa.JsonType):
        return lambda text: None if text is None else parse(text)
    if pa.types.is_struct(kind):
        decoders = {field.name: decode for field in kind if (decode := _json_decoder(field.type))}
        if not decoders:
            return None
        return lambda value: value and value | {name: decode(value[name]) for name, decode in decoders.items()}
    if pa.types.is_map(kind) and (of_item := _json_decoder(kind.item_type)):
        return lambda value: value and {name: of_item(item) for name, item in value.items()}
    if isinstance(kind, (pa.ListType, pa.LargeListType, pa.FixedSizeListType)):
        of_element = _json_decoder(kind.value_type)
        return of_element and (lambda value: value and [of_element(element) for element in value])
    return None


def value_row(line: int, value: Any, decode: Callable[[Any], Any] | None = None) -> Found:
    """A row of Python values as JSON text; dates as text, bytes as the text they are. Strictness is judged later.

    `line` is the row's 1-based place, `value` the row or the refusal that stands for it. `decode` is applied first and
    may raise StrictJsonError.
    """
    refusal: RowRejected
    try:
        if isinstance(value, RowRejected):
            raise value
        text = json.dumps(decode(value) if decode else value, ensure_ascii=False, default=_as_json)
        if len(text) <= MAX_LINE_BYTES:
            return Found(line, text)
        refusal = RowRejected(Reason.LINE_TOO_LONG, f"the row has {len(text)} characters, more than {MAX_LINE_BYTES}")
    except RowRejected as rejected:
        refusal = rejected
    except StrictJsonError as error:
        refusal = RowRejected(Reason.MALFORMED_JSON, f"a field of JSON text is {error}")
    except TypeError as error:
        refusal = RowRejected(Reason.MALFORMED_FIELD, f"the row cannot be written as JSON: {str(error)[:200]}")
    return Found(line, _shown(value), refusal)


def _as_json(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (datetime.timedelta, uuid.UUID)):
        return str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise RowRejected(Reason.UNSUPPORTED_CONTENT, "a field holds bytes that are no UTF-8 text") from None
    raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"a field holds a {type(value).__name__}, which JSON lacks")


def _shown(value: Any) -> str:
    """A refused row as the quarantine shows it."""
    if isinstance(value, RowRejected):
        return ""
    return json.dumps(value, ensure_ascii=False, skipkeys=True, default=lambda part: f"({type(part).__name__})")
