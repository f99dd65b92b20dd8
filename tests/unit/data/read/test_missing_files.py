from pathlib import Path

import pytest

from orchestrator.config.load import load_config
from orchestrator.core.errors import DataError
from orchestrator.data.prepare.prepare import data_digest


def test_a_missing_file_says_where_relative_paths_start(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("data: {sources: [{path: gone.jsonl}]}\n", encoding="utf-8")
    for overrides, folder in (((), tmp_path), (("data.sources.0.path=gone.jsonl",), Path.cwd())):
        with pytest.raises(DataError, match="at the file's folder, one in --set at the current folder") as caught:
            data_digest(load_config(config, overrides).data, base_dir=Path.cwd())
        assert caught.value.where == str(folder / "gone.jsonl")
