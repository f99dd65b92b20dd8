"""The small run that the tests of whole commands share."""

from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of two short trials and few cases; its runs lie beside it, in `runs`."""
    folder = tmp_path_factory.mktemp("e2e")
    path = folder / "small.yaml"
    content = {
        "name": "small",
        "model": {"base": "tiny"},
        "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 150}], "max_length": 512},
        "train": {"max_steps": 6, "eval_steps": 2, "batch_size": 4, "micro_batch_size": 4},
        "search": {
            "num_trials": 2,
            "keep": 1,
            "space": {"r": [8], "alpha": [16], "learning_rate": {"min": 1e-3, "max": 1e-2}},
        },
        "eval": {"max_new_tokens": 32, "max_cases": 8},
        "resources": {"storage_path": str(folder / "runs")},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
