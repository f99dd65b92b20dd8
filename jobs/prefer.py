"""Have an adapter learn preferences: `python -m jobs.prefer --config FILE [--adapter ID]`."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from jobs._main import cluster_on_demand, do_stage, engines_on_demand, run_job
from jobs._results import say_next, say_pairs, say_preferred
from jobs.prepare import prepare
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.progress import stages
from orchestrator.run.paths import RunDir, preferred_id


def prefer(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None], *, adapter: str | None = None) -> None:
    """Make the pairs and train on them, unless the run has done so from the same adapter, samples and settings.

    Raises:
        TooFewPairsError: If there is too little to learn from.
    """
    from evals.preferences.pairs import make_pairs, pairs_digest
    from evals.preferences.start import adapter_to_prefer

    record, engines = adapter_to_prefer(config, run, adapter), partial(engines_on_demand, config, ensure_cluster)

    def work() -> None:
        from orchestrator.training.prefer import train_preferences

        say_pairs(make_pairs(config, run, record.id, engines, Path.cwd()), run)
        ensure_cluster()
        train_preferences(config, run, record)

    outputs = [run.adapter(preferred_id(record.id)), run.preferences(record.id).trials]
    digest, say_result = pairs_digest(config, run, record, Path.cwd()), partial(say_preferred, adapter_id=record.id)
    do_stage(run, "prefer", digest, work, outputs, say_result=say_result)


def main(config: RunConfig, run: RunDir, *, adapter: str | None = None) -> int:
    """Prepare if needed, then learn preferences."""
    with stages("prepare", "prefer"):
        prepare(config, run)
        with cluster_on_demand(config) as ensure_cluster:
            prefer(config, run, ensure_cluster, adapter=adapter)
    say_next("evaluate", run)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", metavar="ID", help="an adapter, or winner; else that of the lowest eval loss")


if __name__ == "__main__":
    sys.exit(run_job("prefer", main, add_options=_add_options))
