"""Rows of a suite's file, of any type that files of training data may have: JSON lines, a JSON array, CSV, gzip, ..."""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.config.schema import SourceConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import QuarantinedRow
from orchestrator.data.read.sources import RawRow, read_source

_HOLDS_NOTHING = ("the file is empty", "it holds no rows")


def suite_rows(path: Path, *, limit: int | None = None) -> Iterator[RawRow | QuarantinedRow]:
    """The first `limit` rows of a file, as `orchestrator.data.read.sources.read_source` gives them.

    Raises:
        DataError: As there; an empty file is told in the words of a suite, for which one row is enough.
    """
    absolute = path.absolute()
    try:
        yield from read_source(SourceConfig(path=str(absolute), limit=limit), base_dir=absolute.parent)
    except DataError as error:
        if error.what not in _HOLDS_NOTHING:
            raise
        raise DataError("the file holds no row", where=str(path), fix="Give a file with at least one") from None


def refuse_no_file(path: Path, what: str) -> None:
    """Refuse a path that is no regular file.

    Raises:
        DataError: If there is none, or something else; its message begins with `what`, such as `suite xstest`.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{what}: this is a folder, not a file", where=str(path), fix="Name a file in it")
    if path.exists():
        fix = "Save the rows as a file first"
        raise DataError(f"{what}: this is a device or pipe, not a file", where=str(path), fix=fix)
    fix = "Correct the path; in a configuration it starts at the config file's folder"
    raise DataError(f"{what}: there is no such file", where=str(path), fix=fix)
