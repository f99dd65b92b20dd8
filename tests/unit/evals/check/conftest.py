from pathlib import Path

import pytest
from weather_rows import CITIES, call_for, write

from orchestrator.config.schema import RunConfig


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> RunConfig:
    """A run on twelve rows that call one tool."""
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES])
    return RunConfig.model_validate(
        {
            "name": "checked",
            "model": {"base": str(model_folder)},
            "data": {"sources": [{"path": "a.jsonl"}]},
            "resources": {"storage_path": str(tmp_path / "runs")},
        }
    )
