"""What benchmarks name by path is there."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.models.base import base_folder

ROOT = Path(__file__).resolve().parents[2]


def test_the_toy_base_of_the_step_benchmark_is_there() -> None:
    folder_of = runpy.run_path(str(ROOT / "benchmarks" / "train_step.py"))["base_folder"]
    assert (folder_of("tiny") / "config.json").is_file()
    assert (folder_of("qwen3-0.6b-shape") / "tokenizer.json").is_file()


def test_every_method_that_is_measured_is_one_of_the_configuration() -> None:
    methods = runpy.run_path(str(ROOT / "benchmarks" / "methods.py"))
    for name, contender in methods["CONTENDERS"].items():
        config = RunConfig.model_validate(
            {
                "model": {"quantization": contender.quantization},
                "lora": contender.lora,
                "train": {"optimizer": contender.optimizer, **contender.train},
            }
        )
        if contender.trainer == "multi_lora":
            assert config.trains_multi_lora, name
    assert methods["BESIDE"] in methods["CONTENDERS"]


@pytest.mark.slow  # two trainings in processes of their own
def test_bare_trl_and_a_method_are_set_side_by_side() -> None:
    base = base_folder(ModelConfig(base="tiny"))
    command = [sys.executable, str(ROOT / "benchmarks" / "methods.py"), "--base", str(base), "--rows", "8"]
    asked = ["--length", "64", "--only", "isolated-packing"]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=False)
    name, rate, ratio, peak, planned = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert name == "isolated-packing"
    assert min(float(figure.replace(",", "")) for figure in (rate, ratio, peak, planned)) > 0
