"""Rows of JSON files: one a line, the elements of one list, or a single one. A row stays text; nothing is parsed here.

A document of any size is read value by value: memory holds a chunk and one value, delimited by the scanner of the
standard library. Only the text between rows is judged: a broken line is refused where it is parsed, a broken document
as a whole.
"""

import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from orchestrator.core.errors import DataError
from orchestrator.data.read.file_bytes import MAX_LINE_BYTES, UTF8_BOM, Found, Line, bounded_lines, not_utf8, open_bytes
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import MAX_DEPTH

JSON_SPACE = " \t\r\n"
TURN_LISTS = ("messages", "conversations", "conversation")
"""Fields that hold a row's turns, in every format but MCP."""
MCP_TURN_LISTS = ("messages", "session")
"""Fields that hold a row's turns in MCP, where a turn may be a JSON-RPC message."""
ALL_TURN_LISTS = frozenset({*TURN_LISTS, *MCP_TURN_LISTS})
ROW_FIELDS = ALL_TURN_LISTS | {
    *("question", "query", "chat", "instruction", "prompt", "input", "output", "tool"),
    *("chosen", "contents", "request", "full_request", "inputs"),
}
"""Fields that a row has and a turn or an object around a list of rows has not; `jsonrpc` a row and a turn may have."""
SHARED_FIELDS = frozenset({"tools", "functions", "system"})
"""Fields that mean something for a row and would be lost if they stood beside a list of rows."""

CHUNK_CHARS = 2**20
MAX_VALUE_CHARS = MAX_LINE_BYTES
_SPACE = re.compile(r"[ \t\n\r]*")
# Numbers stay text: their digits are judged where a value is parsed.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
_NUMBER_TAIL = 3
"""`1e+` may go on as a number after its first character: so many characters must follow to know."""


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
        fix = "Repair the file or fetch it again, or save it as JSON lines"
        raise DataError(f"{error}{after}", where=str(path), fix=fix) from None


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
    of_rows = ROW_FIELDS | {"jsonrpc"}
    is_row = any(name in of_rows and not _is_list_of_rows(name, first) for name, first in members.items())
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
    if name not in ALL_TURN_LISTS or not first:
        return False
    element: Any = json.loads(first, parse_int=str, parse_float=str)
    return isinstance(element, dict) and bool(ROW_FIELDS & element.keys()) and not element.keys() & {"role", "from"}


def _has_turns(first: str | None) -> bool:
    """Whether the first element of a list is a row with a list of turns."""
    element: Any = json.loads(first, parse_int=str, parse_float=str) if first else None
    return isinstance(element, dict) and any(isinstance(element.get(name), list) for name in ALL_TURN_LISTS)


def _list_name(path: Path, members: dict[str, str | None]) -> str:
    lists = [name for name, first in members.items() if first is not None]
    with_turns = [name for name in lists if _has_turns(members[name])]
    if len(lists) > 1 and len(with_turns) == 1:
        return with_turns[0]  # the conversations among what else a benchmark keeps in its file of results
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


class BrokenJsonError(ValueError):
    """A JSON text whose values cannot be delimited, with the line and column in its message."""


class JsonStream:
    """Walks through a JSON text, opened with `newline=""`, from its start, `chunk_chars` at a time.

    Every method raises BrokenJsonError where the text is no JSON.
    """

    def __init__(self, file: TextIO, chunk_chars: int = CHUNK_CHARS) -> None:
        self._file, self._chunk_chars = file, chunk_chars
        self._text, self._at, self._has_ended = "", 0, False
        self._lines_before, self._column_before = 0, 0

    def peek(self) -> str:
        """The next character that is no space, without moving beyond it; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or self._has_ended:
                return self._text[self._at : self._at + 1]
            self._read_more()

    def value(self) -> str:
        """The text of the value that comes next; one beyond MAX_VALUE_CHARS counts as broken."""
        self.peek()
        while True:
            problem, place = "it has no end", self._at
            try:
                _, end = _SCANNER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                problem, place = f"not JSON: {error.msg.removesuffix(' at')}", error.pos
            except RecursionError:
                raise self._broken(f"nested deeper than {MAX_DEPTH} levels", self._at) from None
            else:
                is_whole = self._has_ended or end + _NUMBER_TAIL <= len(self._text)
                if is_whole and end - self._at <= MAX_VALUE_CHARS:
                    text, self._at = self._text[self._at : end], end
                    return text
            if len(self._text) - self._at > MAX_VALUE_CHARS:
                raise self._broken(f"a value is longer than {MAX_VALUE_CHARS} characters, or {problem}", place)
            if self._has_ended:
                raise self._broken(problem, place)
            self._read_more()

    def elements(self) -> Iterator[str]:
        """The texts of the elements of the array that comes next."""
        self._expect("[")
        if self._skip("]"):
            return
        while True:
            yield self.value()
            if self._skip("]"):
                return
            self._expect(",")

    def keys(self) -> Iterator[str]:
        """The keys of the object that comes next; before the next one, the caller reads the value."""
        self._expect("{")
        if self._skip("}"):
            return
        while True:
            if self.peek() != '"':
                raise self._broken("not JSON: Expecting a key in double quotes", self._at)
            key: str = json.loads(self.value())
            self._expect(":")
            yield key
            if self._skip("}"):
                return
            self._expect(",")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._broken("not JSON: Extra data", self._at)

    def _skip(self, char: str) -> bool:
        is_next = self.peek() == char
        self._at += is_next
        return is_next

    def _expect(self, char: str) -> None:
        if not self._skip(char):
            raise self._broken(f"not JSON: Expecting '{char}'", self._at)

    def _read_more(self) -> None:
        # As much again as is waiting, so that scanning a long value anew each time stays linear in its length.
        more = self._file.read(max(self._chunk_chars, len(self._text) - self._at))
        self._lines_before, self._column_before = self._position(self._at)
        self._text, self._at, self._has_ended = self._text[self._at :] + more, 0, not more

    def _position(self, place: int) -> tuple[int, int]:
        """Lines, and characters of the last line, before a place in the buffer."""
        num_lines = self._text.count("\n", 0, place)
        if not num_lines:
            return self._lines_before, self._column_before + place
        return self._lines_before + num_lines, place - self._text.rfind("\n", 0, place) - 1

    def _broken(self, problem: str, place: int) -> BrokenJsonError:
        num_lines, column = self._position(place)
        is_cut = self._has_ended and (not self._text[place:].strip() or "Unterminated" in problem)
        end = "; the text ends too early" if is_cut else ""
        return BrokenJsonError(f"{problem} at line {num_lines + 1}, column {column + 1}{end}")
