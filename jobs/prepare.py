"""Read, check and split the data: `python -m jobs.prepare --config FILE`."""

import sys
from pathlib import Path

from jobs._main import do_stage, run_job
from jobs._results import say_next, say_prepared
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.run.folder import check_dir
from orchestrator.run.paths import RunDir


def prepare(config: RunConfig, run: RunDir) -> None:
    """Make the splits, unless the run has them, or a check has made them, from the same data."""
    from orchestrator.data.prepare.prepare import data_digest, prepare_data

    digest = data_digest(config.data, base_dir=Path.cwd())

    def work() -> None:
        from evals.check.check import take_over_check

        if not take_over_check(check_dir(config), run, digest):
            prepare_data(config, run, base_dir=Path.cwd())

    outputs = [run.split("train"), run.split("val"), run.split("test"), run.card]
    do_stage(run, "prepare", digest, work, outputs, say_result=say_prepared)


def main(config: RunConfig, run: RunDir) -> int:
    """Only make the splits."""
    prepare(config, run)
    say_next("search", run)
    return DONE


if __name__ == "__main__":
    sys.exit(run_job("prepare", main))
