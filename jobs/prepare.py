"""Read, check and split the data: `python -m jobs.prepare --config FILE`."""

import sys
from pathlib import Path

from jobs._main import DONE, do_stage, run_job
from orchestrator.config import RunConfig
from orchestrator.runs import RunDir, digest_of


def prepare(config: RunConfig, run: RunDir) -> int:
    """Make the splits, unless the run has them from the same data."""

    def work() -> None:
        from orchestrator.data.prepare import prepare_data

        prepare_data(config, run, base_dir=Path.cwd())

    outputs = [run.split("train"), run.split("val"), run.split("test"), run.card]
    do_stage(run, "prepare", _input_digest(config), work, outputs)
    return DONE


def _input_digest(config: RunConfig) -> str:
    # By name and content, not by folder: a submitted job finds the same files in another place each time.
    files = [Path(source.path) for source in config.data.sources if source.path != "synthetic"]
    named = [source.model_dump() | {"path": Path(source.path).name} for source in config.data.sources]
    return digest_of(config.data.model_dump(mode="json") | {"sources": named}, *files)


if __name__ == "__main__":
    sys.exit(run_job("prepare", prepare))
