"""Rows of a source as tests look at them: as written, as read, and as they come out once parsed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.schema import SourceConfig
from orchestrator.core.records import FunctionCall, FunctionSpec, JsonObject, QuarantinedRow, ToolCall, ToolSpec
from orchestrator.data.read.sources import RawRow, parse_row, quarantined, read_source
from orchestrator.data.rejection import RowRejected

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather in a city", "parameters": PARAMETERS}
TOOL = ToolSpec(function=FunctionSpec(**FUNCTION))

Reader = Callable[[JsonObject], object]


def call(city: str, call_id: str | None = None) -> ToolCall:
    """A call of that tool."""
    return ToolCall(id=call_id, function=FunctionCall(name="weather", arguments={"city": city}))


def conversation(*turns: tuple[str, Any], **fields: Any) -> JsonObject:
    """A row of turns with `from` and `value`."""
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns], **fields}


def outcome(read_row: Reader, row: JsonObject) -> str:
    """Why a row is rejected; nothing for one that is read."""
    try:
        read_row(row)
    except RowRejected as found:
        return found.detail
    return ""


def rejection(read_row: Reader, row: JsonObject) -> RowRejected:
    """How a row is rejected."""
    with pytest.raises(RowRejected) as caught:
        read_row(row)
    assert caught.value.detail
    return caught.value


def assert_decided_at_once(read_row: Reader, row: JsonObject) -> None:
    """A hostile row is read, or rejected in few words, within a second."""
    begin = time.process_time()
    assert len(outcome(read_row, row)) < 500
    assert time.process_time() - begin < 1


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
