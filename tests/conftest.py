"""What every test shares: no hub, and a model folder that is made once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builders import write_model_folder
from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of huggingface_hub, which reads it once


# A busy machine is no failure, and the same commit passes or fails each time. To look for new examples:
# pytest --hypothesis-profile=exploring
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("exploring", deadline=None, max_examples=1000)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers with random weights and its tokenizer."""
    return write_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> "PreTrainedTokenizerBase":
    """Its tokenizer as the project loads it, with the training template."""
    from orchestrator.models.base import load_tokenizer

    return load_tokenizer(model_folder, trust_remote_code=False)
