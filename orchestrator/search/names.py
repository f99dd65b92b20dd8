"""Names of trials, and the one key of their configuration. Light: every trial's process imports it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.core.files import digest_of, write_text_atomic

HYPERPARAMETERS = "hyperparameters"
"""The one key of every trial's config; its value holds r, alpha and learning_rate."""

PREFIX = "trial-"


def number_of(name: str) -> int:
    """The number in a trial's name."""
    return int(name.removeprefix(PREFIX))


def give_name(known: Path, trial: Any) -> str:
    """The name of a Tune trial, `trial-1` for the first that was ever made. Tune calls it once a trial, in the driver.

    `known` is a file with Tune's ids of all trials of the search so far, in this order.
    """
    ids = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else []
    if trial.trial_id not in ids:
        ids.append(trial.trial_id)
        write_text_atomic(known, json.dumps(ids) + "\n")
    return f"{PREFIX}{ids.index(trial.trial_id) + 1}"


def forget_names(known: Path, in_use: Sequence[str]) -> None:
    """Take back the names that were given after the last of those `in_use`, to trials that were lost with the driver.

    They are made again, with the same numbers and so the same points.
    """
    if known.is_file():
        ids = json.loads(known.read_text(encoding="utf-8"))
        last = max((int(name.removeprefix(PREFIX)) for name in in_use), default=0)
        write_text_atomic(known, json.dumps(ids[:last]) + "\n")


def in_order(name: str) -> tuple[int, str]:
    """A sort key: `trial-9` comes before `trial-10`."""
    return len(name), name


def name_of_folder(folder: str) -> str:
    """The name of the trial that has this folder in Tune's experiment.

    Tune adds `_` and four digits if the folder exists, left by a driver that died before it recorded the trial.
    """
    return folder.partition("_")[0]


def storage_name(name: str, hyperparameters: Mapping[str, float]) -> str:
    """The name under which a trial keeps its checkpoints.

    A restored search may give the id of a trial that was lost with the driver, and so its name, to another trial, which
    must not resume from the lost one's checkpoints unless its hyperparameters are the same.
    """
    return f"{name}.{digest_of(dict(hyperparameters))[:6]}"
