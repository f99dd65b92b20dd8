"""Rows of a source as tests look at them: as read, and as they come out once parsed."""

from pathlib import Path

from orchestrator.config.schema import SourceConfig
from orchestrator.core.records import JsonObject, QuarantinedRow
from orchestrator.data.read.sources import RawRow, parse_row, quarantined, read_source
from orchestrator.data.rejection import RowRejected


def parsed(row: RawRow | QuarantinedRow) -> JsonObject | QuarantinedRow:
    """What becomes of a row once it is parsed."""
    if isinstance(row, QuarantinedRow):
        return row
    try:
        return parse_row(row)
    except RowRejected as rejected:
        return quarantined(row, rejected.reason, rejected.detail)


def read(path: Path, *, limit: int | None = None) -> list[JsonObject | QuarantinedRow]:
    """The rows of a file, parsed."""
    return [parsed(row) for row in raw(path, limit=limit)]


def raw(path: Path, *, limit: int | None = None) -> list[RawRow | QuarantinedRow]:
    """The rows of a file as they are read."""
    return list(read_source(SourceConfig(path=path.name, limit=limit), base_dir=path.parent))
