"""What benchmarks name by path is there."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_toy_base_of_the_step_benchmark_is_there() -> None:
    base_folder = runpy.run_path(str(ROOT / "benchmarks" / "train_step.py"))["base_folder"]
    assert (base_folder("tiny") / "config.json").is_file()
    assert (base_folder("qwen3-0.6b-shape") / "tokenizer.json").is_file()
