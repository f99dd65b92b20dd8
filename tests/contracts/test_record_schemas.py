"""The records that are stored or read by others change only on purpose.

After an intended change, write the snapshot again: `python tests/contracts/test_record_schemas.py`.
"""

import difflib
import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from evals.records import Report, Scores
from orchestrator.core.records import AdapterRecord, Sample, TrialRecord

SNAPSHOT = Path(__file__).parent / "record_schemas.json"
RECORDS: tuple[type[BaseModel], ...] = (Sample, TrialRecord, AdapterRecord, Scores, Report)


def schemas() -> dict[str, str]:
    """JSON Schema of each record, as text that shows differences line by line; docstrings are no contract."""
    return {record.__name__: _pretty(_without_prose(record.model_json_schema())) for record in RECORDS}


def _pretty(schema: object) -> str:
    return json.dumps(schema, indent=2, sort_keys=True)


def _without_prose(schema: object) -> object:
    if isinstance(schema, dict):
        return {key: _without_prose(value) for key, value in schema.items() if not _is_prose(key, value)}
    return [_without_prose(value) for value in schema] if isinstance(schema, list) else schema


def _is_prose(key: str, value: object) -> bool:
    return key in ("description", "title") and isinstance(value, str)


def test_the_snapshot_holds_each_record_and_no_other() -> None:
    assert set(json.loads(SNAPSHOT.read_text(encoding="utf-8"))) == {record.__name__ for record in RECORDS}


@pytest.mark.parametrize("name", [record.__name__ for record in RECORDS])
def test_a_stored_record_has_the_shape_that_was_agreed(name: str) -> None:
    agreed = _pretty(json.loads(SNAPSHOT.read_text(encoding="utf-8"))[name])
    current = schemas()[name]
    if current != agreed:
        changes = difflib.unified_diff(agreed.splitlines(), current.splitlines(), "agreed", "current", lineterm="", n=2)
        pytest.fail(
            f"{name} changed. Files of earlier runs and readers of the report have the agreed shape: a new field needs "
            "a default, and a field that goes or changes needs a line in CHANGELOG.md and docs/artifacts.md.\n"
            "If it is meant, run `python tests/contracts/test_record_schemas.py` and commit the snapshot.\n\n"
            + "\n".join(changes),
            pytrace=False,
        )


if __name__ == "__main__":
    content = {name: json.loads(schema) for name, schema in schemas().items()}
    SNAPSHOT.write_text(_pretty(content) + "\n", encoding="utf-8")
