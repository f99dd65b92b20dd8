from pathlib import Path

import pytest

from evals.generate.settings import require_divisible_heads
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.models.base import load_settings


def test_heads_that_gpus_cannot_share_evenly_are_refused(model_folder: Path) -> None:
    heads = load_settings(model_folder, trust_remote_code=False).get_text_config().num_attention_heads

    def over(gpus: int) -> RunConfig:
        return RunConfig.model_validate({"model": {"base": str(model_folder)}, "eval": {"tensor_parallel": gpus}})

    require_divisible_heads(over(1))
    require_divisible_heads(over(heads))
    with pytest.raises(
        ConfigError, match=f"^eval.tensor_parallel: {heads + 1} GPUs cannot share the {heads} attention"
    ):
        require_divisible_heads(over(heads + 1))
