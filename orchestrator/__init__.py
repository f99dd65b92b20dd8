"""Fine-tunes LoRA adapters that call tools and proves what they can do.

Read the packages in the order in which they build on each other; those beside each other know nothing of one another:

    core -> notation | refusals -> chat -> config -> run -> toy -> models -> data -> tracking | plan
    -> training | multi_lora -> search | submit | doctor | status | probe | usage -> cli -> __main__

`evals` builds on them and `jobs` on both. A later package may import an earlier one, never the other way round
(`lint-imports` checks it). The functions here are the door of the Python API, which `evals.api` holds; no module of
the packages imports them.
"""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orchestrator.run  # noqa: F401 - first, so that the name `run` here is the function below, not that package

if TYPE_CHECKING:
    from evals.api import Run

# PEFT imports it wherever it is installed, and it warns of a kernel on the hub that is neither needed nor fetched.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__all__ = ["load_run", "run"]


def load_run(place: str | os.PathLike[str]) -> "Run":
    """The run in a folder, of this name below `runs`, or of a configuration; see `evals.api`.

    Raises:
        ConfigError: If there is none, or the configuration is not valid.
    """
    from evals.api import load_run as load

    return load(place)


def run(place: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, *, stage: str = "run") -> "Run":
    """Do what the command `orchestrator run` does, or another stage, and give the run; see `evals.api`.

    Args:
        place: A configuration's file, or a run that goes on.
        settings: Values that replace those of the configuration, such as `{"train.epochs": 2}`.
        stage: `check`, `prepare`, `train`, `search`, `evaluate`, `report`, or `run` for everything.

    Raises:
        ConfigError: If there is no such stage or configuration, or a setting is not valid.
        OrchestratorError: If the stage failed.
    """
    from evals.api import run as start

    return start(place, settings, stage=stage)
