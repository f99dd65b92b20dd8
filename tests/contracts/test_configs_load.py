"""Every configuration that ships is valid, says what it is, and uses only keys that exist."""

from pathlib import Path

import pytest

from orchestrator.config.load import load_config

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_documented_configs_ship() -> None:
    assert {"demo", "qwen3-0.6b", "qwen3-1.7b-mcp", "smollm2-135m"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_names_its_run_after_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_config_opens_with_a_comment(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(("name", "base"), [("demo", "tiny"), ("smollm2-135m", "smollm2-135m")])
def test_a_demo_needs_no_hub_and_no_file(name: str, base: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    assert config.model.base == base
    assert [source.path for source in config.data.sources] == ["synthetic"]


def test_the_mcp_recipe() -> None:
    config = load_config(ROOT / "configs" / "qwen3-1.7b-mcp.yaml")
    lora, train = config.lora, config.train
    assert config.model.base == "Qwen/Qwen3-1.7B"
    assert (lora.r, lora.alpha, lora.dropout, lora.target_modules) == (16, 32, 0.05, "all-linear")
    assert (train.learning_rate, train.scheduler, train.warmup_ratio) == (2e-4, "cosine", 0.1)
    assert (train.micro_batch_size, train.batch_size, train.epochs, train.max_steps) == (4, 16, 3.0, None)
    assert config.data.max_length == 2048
