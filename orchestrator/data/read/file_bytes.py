"""Bounded reading of data files: what is refused before it is read, gzip, and lines of limited length."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from orchestrator.config.evaluation import PATHS_START
from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject
from orchestrator.data.rejection import RowRejected

MAX_LINE_BYTES = 16 * 2**20
"""Longest line, array element or table row: no conversation comes near it, and a few of them fit in any memory."""
HEAD_BYTES = 16_384
"""How much of a longer line is kept to show what it was; more than the quarantine shows."""
MAX_EXPANSION = 200
"""Gzip shrinks text 3 to 30 times, at most 1,032 times."""
FREE_EXPANDED_BYTES = 2**30
"""Expanded size up to which the ratio does not matter."""

UTF8_BOM = b"\xef\xbb\xbf"
GZIP_SUFFIX = ".gz"
_FOREIGN = {
    b"\x1f\x8b": ("compressed with gzip", "Let its name end in .gz once for each time it was compressed, or unpack it"),
    b"PK\x03\x04": ("a zip archive", "Unpack it and name the file in it"),
    b"PAR1": ("Parquet", "Let its name end in .parquet"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it, or compress it with gzip"),
}
"""First bytes of what is often found under the name of a text file."""


class Found(NamedTuple):
    """What stands in one place of a source: a row, or as `content` what was refused there.

    `line` is a 1-based line, or a 1-based place in an array or table. `content` is JSON text, or the cells of a table.
    """

    line: int
    content: str | JsonObject
    refusal: RowRejected | None = None


class Line(NamedTuple):
    """A 1-based line without the end of line; of a line beyond MAX_LINE_BYTES, `data` is the start alone."""

    number: int
    data: bytes
    num_bytes: int

    @property
    def is_too_long(self) -> bool:
        """Whether more than `data` stands in the file."""
        return self.num_bytes > MAX_LINE_BYTES


def refuse_unreadable(path: Path, *, is_text: bool) -> None:
    """Check a file's type and first bytes.

    Raises:
        DataError: If it is missing, no regular file, not to be opened, empty, or (`is_text`) plainly no UTF-8 text.
    """
    where = str(path)
    try:
        if not path.exists():
            fix = f"Correct data.sources: {PATHS_START}; a hub data set is hub:owner/name"
            raise DataError("the file does not exist", where=where, fix=fix)
        if path.is_dir():
            raise DataError("this is a folder, not a file", where=where, fix="Name a file in it, or a pattern of files")
        if not path.is_file():
            raise DataError("this is a device or pipe, not a file", where=where, fix="Save the rows as a file first")
        with open_bytes(path) as file:
            start = file.read(7)
    except OSError as error:
        raise DataError(f"the file cannot be opened ({error})", where=where, fix="Check its permissions") from None
    if not start.removeprefix(UTF8_BOM):
        raise DataError("the file is empty", where=where, fix="Give a file with at least three conversations")
    if is_text:
        _refuse_foreign(start, where)


def _refuse_foreign(start: bytes, where: str) -> None:
    for magic, (what, fix) in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"the file is {what}, which its name does not say", where=where, fix=fix)
    if b"\0" in start[:4] or start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise not_utf8(where)


def not_utf8(where: str) -> DataError:
    """The error for a text in another encoding."""
    fix = "Convert it, for example with: iconv -f UTF-16 -t UTF-8 old > new (or -f LATIN1, as the file is)"
    return DataError("the text is not UTF-8", where=where, allowed="UTF-8", fix=fix)


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked if its name ends in `.gz`.

    Reading them raises DataError where gzip data is broken, cut short, or expands like a bomb, and OSError where the
    disk fails.
    """
    if path.suffix.lower() != GZIP_SUFFIX:
        return path.open("rb")
    return io.BufferedReader(_Unpacked(path), buffer_size=2**18)


class _Unpacked(io.RawIOBase):
    """The content of a gzip file, refused as soon as it looks like a bomb."""

    def __init__(self, path: Path) -> None:
        self._where, self._packed_bytes = str(path), path.stat().st_size
        self._file = gzip.open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._num_bytes, self._num_lines = 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read1(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"the gzip data is broken or cut short ({str(error).rstrip('.')})",
                where=f"{self._where}:{self._num_lines + 1}",
                fix="Fetch or compress the file again",
            ) from None
        self._num_bytes += len(data)
        self._num_lines += data.count(b"\n")
        if self._num_bytes > max(FREE_EXPANDED_BYTES, MAX_EXPANSION * self._packed_bytes):
            raise DataError(
                f"{self._packed_bytes} bytes of gzip expand to more than {self._num_bytes - len(data)}: "
                "it looks like a zip bomb",
                where=self._where,
                allowed=f"up to {MAX_EXPANSION} times the size, or {FREE_EXPANDED_BYTES} bytes",
                fix="If the content is as it should be, unpack the file and name the result",
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def bounded_lines(file: BinaryIO) -> Iterator[Line]:
    r"""The lines of a file, ended by \n alone, holding no more than MAX_LINE_BYTES of one."""
    number = 0
    while data := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if data.endswith(b"\n"):
            yield Line(number, data[:-1], len(data) - 1)
        elif len(data) <= MAX_LINE_BYTES:
            yield Line(number, data, len(data))
        else:
            num_bytes, data = len(data), data[:HEAD_BYTES]
            yield Line(number, data, num_bytes + _skip_line(file))


def _skip_line(file: BinaryIO) -> int:
    num_bytes = 0
    while piece := file.readline(2**20):
        num_bytes += len(piece)
        if piece.endswith(b"\n"):
            return num_bytes - 1
    return num_bytes
