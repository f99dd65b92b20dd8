"""Logged outcomes of live cases, one JSON object a line (docs/rollout.md), as one record for each request.

Outcomes arrive late and doubled: lines with the same id are put together. Lines that contradict each other are refused.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject, Record
from orchestrator.core.text import counted
from orchestrator.data.read.file_bytes import Found
from orchestrator.data.read.json_files import read_json_lines
from orchestrator.notation.strict_json import StrictJsonError, parse

ArmName = Literal["old", "new"]
OLD: ArmName = "old"
NEW: ArmName = "new"


class Outcome(Record):
    """What came of one live request. Produced by `read_log`, consumed by `rollout/verdict`.

    Args:
        id: The request; lines that share it are one outcome.
        arm: Which of the two answered.
        unit: The user or conversation that it belongs to; None: the request stands for itself.
        success: Whether it was answered as asked; None: not known yet.
        over_refusal: Whether it was refused and should not have been; None: not known, or it should have been refused.
        invalid_call: Whether a call in it was invalid; None: not known, or no call was wanted.
        latency_s: Seconds from the request to the end of the reply; None: not measured.
    """

    id: str = Field(min_length=1)
    arm: ArmName
    unit: str | None = Field(default=None, min_length=1)
    success: bool | None = Field(default=None, strict=True)
    over_refusal: bool | None = Field(default=None, strict=True)
    invalid_call: bool | None = Field(default=None, strict=True)
    latency_s: float | None = Field(default=None, gt=0, allow_inf_nan=False, strict=True)


def read_log(paths: Sequence[Path]) -> list[Outcome]:
    """One outcome for each id, in the order in which the ids first appear; files may be gzipped.

    Raises:
        DataError: If a file cannot be read or holds nothing, or a line is bad or contradicts another of its id.
    """
    merged: dict[str, tuple[JsonObject, str]] = {}
    bad: list[DataError] = []
    for where, found in _lines(paths):
        try:
            _merge(merged, _outcome(found, where), where)
        except DataError as error:
            bad.append(error)
    if bad:
        others = f" ({counted(len(bad) - 1, 'other line')} cannot be used either)" if len(bad) > 1 else ""
        first = bad[0]
        raise DataError(f"{first.what}{others}", where=first.where, allowed=first.allowed, fix=first.fix)
    if not merged:
        raise DataError("there is no outcome", where=", ".join(map(str, paths)), fix="docs/rollout.md says how to log")
    return [Outcome.model_validate(fields) for fields, _ in merged.values()]


def _lines(paths: Iterable[Path]) -> Iterator[tuple[str, Found]]:
    for path in paths:
        try:
            for found in read_json_lines(path):
                yield f"{path}:{found.line}", found
        except OSError as error:
            raise DataError(f"the file cannot be read ({error.strerror})", where=str(path)) from None


def _outcome(found: Found, where: str) -> Outcome:
    if found.refusal:
        raise DataError(found.refusal.detail, where=where)
    try:
        fields = parse(str(found.content))
    except StrictJsonError as error:
        raise DataError(str(error), where=where, allowed="one JSON object a line") from None
    if not isinstance(fields, dict):
        raise DataError("the line is no JSON object", where=where, allowed="one JSON object a line")
    unknown = sorted(fields.keys() - Outcome.model_fields.keys())
    if unknown:
        raise DataError(f"there is no field {unknown[0]!r}", where=where, allowed=", ".join(Outcome.model_fields))
    try:
        return Outcome.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field, given = str(first["loc"][0]), first["input"]
        what = f"{field} is missing" if first["type"] == "missing" else f"{field} is {given!r}"
        raise DataError(what, where=where, allowed=_allowed(field)) from None


def _allowed(field: str) -> str:
    if field == "arm":
        return f"{OLD}, {NEW}"
    if field in ("id", "unit"):
        return "a text that is not empty" if field == "id" else "a text that is not empty, or null"
    return "a number of seconds above 0, or null" if field == "latency_s" else "true, false, or null for not known"


def _merge(merged: dict[str, tuple[JsonObject, str]], outcome: Outcome, where: str) -> None:
    fields = outcome.model_dump(exclude_none=True)
    before, place = merged.setdefault(outcome.id, (fields, where))
    for name, value in fields.items():
        if before.setdefault(name, value) != value:
            what = f"{name} of {outcome.id!r} is {value!r}, and {before[name]!r} at {place}"
            raise DataError(
                what, where=where, fix="Give each request an id of its own, and each outcome once it is known"
            )
