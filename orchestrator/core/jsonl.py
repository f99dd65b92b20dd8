"""Typed JSON lines in and out. Errors carry `file:line`."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.core.errors import DataError

Model = TypeVar("Model", bound=BaseModel)


def read_jsonl(path: Path, model: type[Model]) -> Iterator[Model]:
    """Yield one `model` per non-empty line of `path`.

    Raises:
        DataError: If the file is missing or a line does not fit, with `file:line`.
    """
    if not path.is_file():
        raise DataError("the file does not exist", where=str(path))
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield parse_line(line, model, where=f"{path}:{number}")


def parse_line(line: str, model: type[Model], *, where: str) -> Model:
    """Parse one JSON document as `model`, or raise DataError that says `where` and the first thing wrong."""
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(f"{field}: {first['msg']}", where=where) from None


def dump_line(record: BaseModel) -> str:
    """One record as one line of JSON, without absent fields and without a trailing newline."""
    return json.dumps(record.model_dump(mode="json", exclude_none=True), ensure_ascii=False)


def dump_jsonl(records: Iterable[BaseModel]) -> str:
    """Records as the text of a JSON-lines file."""
    return "".join(dump_line(record) + "\n" for record in records)
