"""A JSON text of any size, read value by value: memory holds a chunk and one value, never the document.

Values are given as text, so that whoever needs one parses it strictly, in any process. Here they are only delimited,
by the scanner of the standard library.
"""

import json
import re
from collections.abc import Iterator
from typing import TextIO

from orchestrator.data.read.file_bytes import MAX_LINE_BYTES
from orchestrator.notation.strict_json import MAX_DEPTH

CHUNK_CHARS = 2**20
MAX_VALUE_CHARS = MAX_LINE_BYTES
_SPACE = re.compile(r"[ \t\n\r]*")
# Numbers stay text: their digits are judged where a value is parsed.
_SCANNER = json.JSONDecoder(parse_int=str, parse_float=str)
_NUMBER_TAIL = 3
"""`1e+` may go on as a number after its first character: so many characters must follow to know."""


class BrokenJsonError(ValueError):
    """A JSON text whose values cannot be told apart, with the line and column in its message."""


class JsonStream:
    """Walks through a JSON text from its start. Every method raises BrokenJsonError where the text is no JSON.

    Args:
        file: The text, opened with `newline=""`.
        chunk_chars: How much to read at a time.
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
                    return self._taken(end)
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

    def _taken(self, end: int) -> str:
        text, self._at = self._text[self._at : end], end
        return text

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
