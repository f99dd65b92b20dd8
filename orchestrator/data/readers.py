"""Raw rows of local JSON and JSON-lines files.

A bad row becomes a `QuarantinedRow`; a file that cannot be read at all is one `DataError`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from orchestrator.config import SourceConfig
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.data.strict_json import Fault, StrictJsonError, dump_loosely, first_fault, parse_marked
from orchestrator.errors import DataError
from orchestrator.records import JsonObject, QuarantinedRow

RowFormat = Literal["messages", "sharegpt"]

LINE_SUFFIXES = (".jsonl", ".ndjson")
MAX_RAW_CHARS = 10_000
"""Longest text of a bad row that the quarantine repeats; the rest stays in the source at the line given."""

UTF8_BOM = b"\xef\xbb\xbf"
FAULT_REASONS: dict[str, Reason] = {
    "malformed": Reason.MALFORMED_JSON,
    "too_deep": Reason.NESTED_TOO_DEEPLY,
    "invalid_unicode": Reason.INVALID_UNICODE,
}


@dataclass(frozen=True)
class RawRow:
    """One JSON object of a source. `line` is its 1-based line, or its 1-based place in a JSON array."""

    source: str
    line: int
    value: JsonObject
    text: str | None = None
    """The line as it stands in the file; None for a row of a JSON array."""

    def quarantined(self, reason: Reason, detail: str) -> QuarantinedRow:
        """This row as an entry of the quarantine."""
        return _quarantined(self.source, self.line, reason, detail, self.text or self.value)


def resolve_path(path: str, *, base_dir: Path) -> Path:
    """Where a source lies: `path` as it is when absolute, under the home folder for `~`, else under `base_dir`.

    Raises:
        DataError: If `~name` names no home folder.
    """
    try:
        return base_dir / Path(path).expanduser()
    except RuntimeError:
        raise DataError("the home folder is not known", where=path, fix="Give the path in full") from None


def read_source(source: SourceConfig, *, base_dir: Path) -> Iterator[RawRow | QuarantinedRow]:
    """Yield the first `source.limit` rows of a file, in order; rows that are no strict JSON object as quarantined.

    `.jsonl` and `.ndjson` hold one object a line, blank lines aside. `.json` holds a list of objects, an object with
    one list, or JSON lines. Text is UTF-8, with or without a byte order mark.

    Raises:
        DataError: If the file is missing, no regular file, empty, not UTF-8 or of another type, or if the syntax of a
            JSON document that is not in lines is broken.
    """
    path = resolve_path(source.path, base_dir=base_dir)
    _refuse_unreadable(path)
    rows = _read_lines(path, source.path) if path.suffix.lower() in LINE_SUFFIXES else _read_json(path, source.path)
    found = False
    for row in islice(rows, source.limit):
        found = True
        yield row
    if not found:
        raise DataError("the file holds no rows", where=str(path), fix="Give a file with at least three conversations")


def _refuse_unreadable(path: Path) -> None:
    where = str(path)
    try:
        if not path.exists():
            fix = "Correct data.sources[].path; a relative path starts at the config file's folder"
            raise DataError("the file does not exist", where=where, fix=fix)
        if not path.is_file():
            raise DataError("this is a folder or device, not a file", where=where, fix="Name a file in it")
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"the file cannot be opened ({error})", where=where, fix="Check its permissions") from None
    if path.suffix.lower() not in (".json", *LINE_SUFFIXES):
        raise DataError(
            f"the file type {path.suffix or '(none)'!r} is not known",
            where=where,
            allowed=", ".join((".json", *LINE_SUFFIXES)),
            fix="Convert the file to JSON lines, one conversation a line",
        )
    if not start.removeprefix(UTF8_BOM):
        raise DataError("the file is empty", where=where, fix="Give a file with at least three conversations")
    if b"\0" in start or start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _not_utf8(where)


def _not_utf8(where: str) -> DataError:
    fix = "Convert it, for example with: iconv -f UTF-16 -t UTF-8 old > new (or -f LATIN1, as the file is)"
    return DataError("the text is not UTF-8", where=where, allowed="UTF-8", fix=fix)


def _read_lines(path: Path, name: str) -> Iterator[RawRow | QuarantinedRow]:
    with path.open("rb") as file:
        # Binary lines end at \n alone; text mode would also break rows at \r.
        yield from _parse_lines(file, path, name)


def _parse_lines(lines: Iterable[bytes], path: Path, name: str) -> Iterator[RawRow | QuarantinedRow]:
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(UTF8_BOM) if number == 1 else line
        try:
            text = content.decode().strip()
        except UnicodeDecodeError:
            raise _not_utf8(f"{path}:{number}") from None
        if not text:
            continue
        try:
            value = parse_marked(text)
        except StrictJsonError as error:
            yield _faulty(name, number, error.fault, text)
        else:
            yield _row(name, number, value, text)


def _read_json(path: Path, name: str) -> Iterator[RawRow | QuarantinedRow]:
    content = path.read_bytes().removeprefix(UTF8_BOM)
    try:
        document = parse_marked(content.decode())
    except UnicodeDecodeError:
        raise _not_utf8(str(path)) from None
    except StrictJsonError as error:
        if content.lstrip().startswith(b"{") and b"\n" in content.strip():
            # Many published .json files are JSON lines.
            yield from _parse_lines(content.split(b"\n"), path, name)
            return
        raise DataError(error.fault.detail, where=str(path), fix="Repair the file, or save it as JSON lines") from None
    for number, value in enumerate(_rows_of(document, path), start=1):
        yield _row(name, number, value, None)


def _rows_of(document: Any, path: Path) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        if "messages" in document or "conversations" in document:
            return [document]
        lists = [value for value in document.values() if isinstance(value, list)]
        if len(lists) == 1:
            return lists[0]
    raise DataError(
        "the document holds no single list of rows",
        where=str(path),
        allowed="a list of objects, an object with one list, or JSON lines",
        fix="Save the conversations as JSON lines",
    )


def _row(name: str, number: int, value: Any, text: str | None) -> RawRow | QuarantinedRow:
    raw = value if text is None else text
    if fault := first_fault(value):
        return _faulty(name, number, fault, raw)
    if not isinstance(value, dict):
        detail = f"the row is {dump_loosely(value)[:80]}, not an object"
        return _quarantined(name, number, Reason.ROW_NOT_AN_OBJECT, detail, raw)
    return RawRow(source=name, line=number, value=value, text=text)


def _faulty(name: str, number: int, fault: Fault, raw: Any) -> QuarantinedRow:
    return _quarantined(name, number, FAULT_REASONS[fault.code], fault.detail, raw)


def _quarantined(name: str, number: int, reason: Reason, detail: str, raw: Any) -> QuarantinedRow:
    text = raw if isinstance(raw, str) else dump_loosely(raw)
    if len(text) > MAX_RAW_CHARS:
        text = f"{text[:MAX_RAW_CHARS]} ... ({len(text)} characters in all)"
    return QuarantinedRow(source=name, line=number, reason=reason, detail=detail, raw=text)


def detect_format(row: JsonObject) -> RowFormat:
    """Tell `messages` (turns with `role`) from ShareGPT (turns with `from`) by the first turn.

    The list of turns may be called `messages` or `conversations` in either.

    Raises:
        RowRejected: If the row is neither.
    """
    turns = turns_of(row)
    if not turns:
        return "sharegpt" if row.get("messages") is None else "messages"
    first = turns[0] if isinstance(turns[0], dict) else {}
    if "role" in first:
        return "messages"
    if "from" in first:
        return "sharegpt"
    raise RowRejected(Reason.UNKNOWN_FORMAT, "the first turn has neither `role` nor `from`")


def turns_of(row: JsonObject) -> list[Any]:
    """The list of turns of a row in either format.

    Raises:
        RowRejected: If there is none, or two.
    """
    named = [key for key in ("messages", "conversations") if row.get(key) is not None]
    if len(named) != 1:
        keys = ", ".join(sorted(row)[:10])[:200]
        none = f"has neither `messages` nor `conversations` (keys: {keys})"
        detail = "has both `messages` and `conversations`" if named else none
        raise RowRejected(Reason.UNKNOWN_FORMAT, f"the row {detail}")
    turns = row[named[0]]
    if not isinstance(turns, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{named[0]}` is not a list")
    return turns
