"""Rows of JSON files: one a line, the elements of one list, or a single one. A row stays text; nothing is parsed here.

Only the text between rows is judged: a broken line is refused where it is parsed, a broken document as a whole.
"""

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from orchestrator.core.errors import DataError
from orchestrator.data.read.file_bytes import MAX_LINE_BYTES, UTF8_BOM, Found, Line, bounded_lines, not_utf8, open_bytes
from orchestrator.data.read.json_stream import BrokenJsonError, JsonStream
from orchestrator.data.rejection import Reason, RowRejected

JSON_SPACE = " \t\r\n"
TURN_LISTS = ("messages", "conversations")
ROW_FIELDS = frozenset(
    {*TURN_LISTS, "question", "query", "chat", "instruction", "prompt", "input", "output", "tool", "jsonrpc"}
)
"""Fields that tell a row from an object that merely holds a list of rows."""
SHARED_FIELDS = frozenset({"tools", "functions", "system"})
"""Fields that mean something for a row and would be lost if they stood beside a list of rows."""


def read_json_lines(path: Path) -> Iterator[Found]:
    """The lines that hold something; lines too long or not UTF-8 as refused."""
    with open_bytes(path) as file:
        for line in bounded_lines(file):
            found = _found(line)
            if found.content:
                yield found


def _found(line: Line) -> Found:
    if line.is_too_long:
        detail = f"the line has {line.num_bytes} bytes, more than {MAX_LINE_BYTES}"
        return Found(line.number, _shown(line.data), RowRejected(Reason.LINE_TOO_LONG, detail))
    data = line.data.removeprefix(UTF8_BOM) if line.number == 1 else line.data
    try:
        return Found(line.number, data.decode().strip(JSON_SPACE))
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line (0x{data[error.start]:02x}) is not UTF-8"
        return Found(line.number, _shown(data), RowRejected(Reason.NOT_UTF8, detail))


def _shown(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def read_json(path: Path) -> Iterator[Found]:
    """The rows of a list, of an object with one list of rows, of an object that is one row, or of JSON lines.

    Raises:
        DataError: If the document is none of these, is broken (rows before the break may have been given), is not
            UTF-8, or has an element or key that is longer than a row may be.
    """
    num_rows = 0
    try:
        lines = list(islice(read_json_lines(path), 2))
        is_object = bool(lines) and str(lines[0].content).lstrip(JSON_SPACE).startswith("{")
        for found in _read_object(path, lines) if is_object else _read_list(path):
            yield found
            num_rows += 1
    except UnicodeDecodeError:
        raise not_utf8(str(path)) from None
    except BrokenJsonError as error:
        after = f" (after {num_rows} good {'row' if num_rows == 1 else 'rows'})" if num_rows else ""
        raise DataError(
            f"{error}{after}", where=str(path), fix="Repair the file or fetch it again, or save it as JSON lines"
        ) from None


def _opened(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="")


def _is_object(line: Found) -> bool:
    if line.refusal or not isinstance(line.content, str) or not line.content.startswith("{"):
        return False
    try:
        json.loads(line.content, parse_int=str, parse_float=str)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _read_list(path: Path) -> Iterator[Found]:
    with _opened(path) as text:
        stream = JsonStream(text)
        if not (start := stream.peek()):
            return
        if start != "[":
            stream.value()
            stream.end()
            raise _no_rows_in(path, "the document is neither a list nor an object")
        for number, element in enumerate(stream.elements(), start=1):
            yield Found(number, element)
        stream.end()


def _read_object(path: Path, first_lines: list[Found]) -> Iterator[Found]:
    """What starts with `{`: one object, or JSON lines, as many published .json files are."""
    if len(first_lines) == 2 and _is_object(first_lines[0]):
        return read_json_lines(path)
    try:
        # The whole object is looked at first: what it is may stand at its end, and a broken one gives no row at all.
        members = _members(path)
    except (BrokenJsonError, UnicodeDecodeError):
        if _is_object(first_lines[-1]):
            return read_json_lines(path)  # The first of the lines is a bad one.
        raise
    return _rows_of_object(path, members)


def _rows_of_object(path: Path, members: dict[str, str | None]) -> Iterator[Found]:
    is_row = any(name in ROW_FIELDS and not _is_list_of_rows(name, first) for name, first in members.items())
    with _opened(path) as text:
        stream = JsonStream(text)
        if is_row:
            yield Found(1, stream.value())
            return
        wanted = _list_name(path, members)
        for name in stream.keys():  # noqa: SIM118 - a walk through a text, no mapping
            if name == wanted:
                yield from (Found(number, element) for number, element in enumerate(stream.elements(), start=1))
                return
            stream.value()


def _members(path: Path) -> dict[str, str | None]:
    """By name, the first element of each list (empty for an empty list), None for any other member."""
    members: dict[str, str | None] = {}
    with _opened(path) as text:
        stream = JsonStream(text)
        for name in stream.keys():  # noqa: SIM118
            if name in members:
                raise DataError(f"the key {name[:80]!r} stands twice", where=str(path), fix="Remove one of the two")
            members[name] = None
            if stream.peek() != "[":
                stream.value()
                continue
            elements = stream.elements()
            members[name] = next(elements, "")
            for _ in elements:
                pass
        stream.end()
    return members


def _is_list_of_rows(name: str, first: str | None) -> bool:
    """Whether a list named like one of turns holds rows: its first element has the fields of a row, not of a turn."""
    if name not in TURN_LISTS or not first:
        return False
    element: Any = json.loads(first, parse_int=str, parse_float=str)
    return isinstance(element, dict) and bool(ROW_FIELDS & element.keys()) and not element.keys() & {"role", "from"}


def _list_name(path: Path, members: dict[str, str | None]) -> str:
    lists = [name for name, first in members.items() if first is not None]
    if len(lists) != 1:
        names = f": {', '.join(repr(name[:40]) for name in lists[:5])}" if lists else ""
        raise _no_rows_in(path, f"the object holds {len(lists) or 'no'} lists{names}")
    if lost := sorted(SHARED_FIELDS & members.keys() - {lists[0]}):
        raise DataError(
            f"`{lost[0]}` stands beside the list of rows {lists[0][:40]!r}, where no row has it",
            where=str(path),
            fix=f"Put `{lost[0]}` into each row",
        )
    return lists[0]


def _no_rows_in(path: Path, detail: str) -> DataError:
    return DataError(
        f"the document holds no single list of rows ({detail})",
        where=str(path),
        allowed="a list of objects, an object with one list, an object that is one conversation, or JSON lines",
        fix="Save the conversations as JSON lines",
    )
