"""Environment variables that every process of a run starts with.

They must be set before the libraries that read them are imported, so this module imports nothing heavy.
"""

import os
from collections.abc import Mapping
from types import MappingProxyType

ENVIRONMENT_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        # Nobody is told what is trained here.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Tokenizer threads deadlock in processes that fork afterwards, as data loaders do.
        "TOKENIZERS_PARALLELISM": "false",
        # Progress is shown once, by this project.
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        # Samples that are too long are counted and listed; transformers warns of the first one only.
        "TRANSFORMERS_VERBOSITY": "error",
        # Ray Train otherwise moves each worker to a folder of its own and relative paths break.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
)
"""Holds no secrets: Ray shows the environment of a job to everyone who can reach its dashboard."""


def set_environment_defaults() -> None:
    """Set each default that the user has not set."""
    for name, value in ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
