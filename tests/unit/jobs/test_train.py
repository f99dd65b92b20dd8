"""What makes a training another one."""

import json
from pathlib import Path

import pytest
from adapters_elsewhere import made
from builders import make_config

from jobs.train import training_digest
from orchestrator.config.schema import RunConfig, TrainConfig
from orchestrator.run.paths import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    for part in ("train", "val"):
        folder.split(part).parent.mkdir(parents=True, exist_ok=True)
        folder.split(part).write_text("{}\n", encoding="utf-8")
    return folder


def test_the_adapter_to_start_from_counts_by_its_content(run: RunDir, tmp_path: Path, model_folder: Path) -> None:
    def digest(start: Path | None) -> str:
        config: RunConfig = make_config(tmp_path, train=TrainConfig(init_from=start and str(start)))
        return training_digest(config, run)

    folder = made(tmp_path / "start", model_folder)
    before = digest(folder)
    assert before != digest(None)
    folder = folder.rename(tmp_path / "moved")
    assert digest(folder) == before
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 16}), encoding="utf-8")
    assert digest(folder) != before
