"""What trackers call the project, and a configuration as they show it."""

import json
from collections.abc import Iterator
from typing import Any

from orchestrator.core.records import JsonObject

PROJECT = "tool-lora-orchestrator"
"""MLflow's experiment and the project of W&B and trackio, unless the tracker's own variable names another."""


def flat(config: JsonObject) -> dict[str, str]:
    """Dotted key -> value as text, `train.learning_rate` -> `0.0002`; values that are not set are left out."""
    return dict(_leaves(config, ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif value is not None:
        yield key, value if isinstance(value, str) else json.dumps(value)
