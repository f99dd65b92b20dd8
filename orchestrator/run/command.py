"""A job as a child process: what the command line and Python start, and what a cluster would run as well.

Light, so that the command line answers at once.
"""

import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from orchestrator.core.child import run_child


class Stage(StrEnum):
    """What can be run: one stage, or all of them."""

    CHECK = "check"
    PLAN = "plan"
    PREPARE = "prepare"
    TRAIN = "train"
    SEARCH = "search"
    PREFER = "prefer"
    EVALUATE = "evaluate"
    REPORT = "report"
    RUN = "run"

    @property
    def job(self) -> str:
        """The module in `jobs` that does it."""
        return "pipeline" if self is Stage.RUN else self.value


def run_job(
    job: str, given: Path, overrides: Sequence[str] | None = None, options: Sequence[str] = (), *, asks: bool = False
) -> int:
    """Run `python -m jobs.<job>` for a configuration or a run, and return its exit code.

    Args:
        job: Its name.
        given: A YAML file, a run's folder or a run's name.
        overrides: Settings to lay over it, `key=value`.
        options: The job's own.
        asks: Whether it reads from the terminal.

    Raises:
        ConfigError: If there is no such configuration, or it is not valid.
    """
    from orchestrator.config.load import load_config, write_resolved
    from orchestrator.run.find import find_config

    resolved = load_config(*find_config(given, overrides or ()))
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
        path = Path(folder) / "config.json"
        write_resolved(resolved, path)
        return run_child([sys.executable, "-m", f"jobs.{job}", "--config", str(path), *options], asks=asks)
