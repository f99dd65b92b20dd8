"""Search rank, alpha and learning rate: `python -m jobs.search --config FILE`."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from jobs._main import cluster_on_demand, do_stage, run_job
from jobs.prepare import prepare
from jobs.train import training_digest
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.run.paths import RunDir


def search(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Search, unless the run has done so with the same samples and settings."""

    def work() -> None:
        with ThreadPoolExecutor(max_workers=1) as beside:  # the import takes as long as Ray's processes take to start
            imported = beside.submit(import_module, "evals.check.parity")
            ensure_cluster()
            imported.result()
        from evals.check.parity import require_parity
        from orchestrator.search.run import run_search

        require_parity(config, run)
        run_search(config, run)

    do_stage(run, "search", training_digest(config, run), work, [run.trials, run.root / "adapters"])


def main(config: RunConfig, run: RunDir) -> int:
    """Prepare if needed, then search."""
    prepare(config, run)
    with cluster_on_demand(config) as ensure_cluster:
        search(config, run, ensure_cluster)
    return DONE


if __name__ == "__main__":
    sys.exit(run_job("search", main))
