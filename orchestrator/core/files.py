"""Files that appear whole, digests of what they hold, and typed JSON lines in and out."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from platformdirs import user_cache_path
from pydantic import BaseModel, ValidationError

from orchestrator.core.errors import DataError

Model = TypeVar("Model", bound=BaseModel)


def user_cache() -> Path:
    """The folder of what this program keeps for the user on this machine."""
    return user_cache_path("tool-lora-orchestrator")


def write_text_atomic(path: Path, text: str) -> None:
    """Write `text` to `path` so that a reader sees the old file or the new one, never a part."""
    with open_atomic(path) as file:
        file.write(text)


@contextmanager
def open_atomic(path: Path) -> Iterator[TextIO]:
    """Open `path` for writing; it gets its new content when the block ends well, and keeps the old one otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def digest_of(*parts: Any) -> str:
    """Hex digest of JSON-able values, pydantic models, or files (given as Path, by content)."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            sha.update(part.read_bytes() if part.is_file() else b"missing")
        elif isinstance(part, BaseModel):
            sha.update(part.model_dump_json().encode())
        else:
            sha.update(json.dumps(part, sort_keys=True).encode())
        sha.update(b"\0")
    return sha.hexdigest()


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
