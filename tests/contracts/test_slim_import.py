"""The command line and the configuration answer at once because they load nothing heavy."""

import subprocess
import sys
from functools import cache

import pytest

HEAVY = ("torch", "ray", "transformers", "trl", "peft", "vllm", "datasets")


@cache
def _loaded_by(module: str) -> frozenset[str]:
    script = f"import {module}, sys; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return frozenset(result.stdout.split())


@pytest.mark.parametrize("module", ["orchestrator.cli", "orchestrator.config.load", "orchestrator.run.folder"])
def test_nothing_heavy_is_loaded(module: str) -> None:
    loaded = _loaded_by(module)
    assert module in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_command_line_does_without_pydantic_too() -> None:
    assert "pydantic" not in _loaded_by("orchestrator.cli")


@pytest.mark.parametrize("module", ["orchestrator.search.slot_trial", "orchestrator.multi_lora.actor"])
def test_a_trial_in_a_slot_loads_no_model_code(module: str) -> None:
    # The second is loaded by whoever is handed an engine's handle.
    assert _loaded_by(module).isdisjoint({"torch", "transformers", "trl", "peft", "vllm", "datasets"})


def test_the_multi_lora_engine_runs_without_ray_and_the_rest() -> None:
    blocked = ("pydantic", "pydantic_core", "ray", "trl", "datasets", "vllm")
    script = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); import orchestrator.multi_lora.engine"
    subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
