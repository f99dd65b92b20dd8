from typing import Any

import pytest

from evals.generate.placement import EngineSettings, placement, takes_requests
from orchestrator.config.schema import ModelConfig


def settings(**fields: Any) -> EngineSettings:
    usual = {"base": ModelConfig(base="tiny"), "dtype": "bfloat16", "on_gpu": True, "max_model_len": 512}
    asked = {"max_lora_rank": 16, "kv_cache_bytes": None, "max_new_tokens": 8, "temperature": 0.0, "seed": 0}
    return EngineSettings.model_validate({**usual, **asked, **fields})


def test_a_gpu_takes_adapters_as_requests() -> None:
    assert takes_requests(settings(), "bfloat16")
    requests = {"load_format": "safetensors", "enable_lora": True, "max_loras": 1, "max_lora_rank": 16}
    assert placement(settings(), "bfloat16", is_packed=False) == requests


def test_a_base_is_split_by_processes_of_vllms_own() -> None:
    split = placement(settings(tensor_parallel=2), "bfloat16", is_packed=False)
    assert (split["tensor_parallel_size"], split["distributed_executor_backend"]) == (2, "mp")
    assert split["enable_lora"]
    assert "tensor_parallel" not in settings().model_dump()  # replies of earlier evaluations stay valid


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({"on_gpu": False}, "bfloat16"),
        ({}, "float32"),
        ({"base": ModelConfig(base="tiny", quantization="int8")}, "bfloat16"),
    ],
)
def test_elsewhere_merged_matrices_are_put_in(fields: dict[str, Any], dtype: str) -> None:
    assert not takes_requests(settings(**fields), dtype)
    assert "enable_lora" not in placement(settings(**fields), dtype, is_packed=False)
