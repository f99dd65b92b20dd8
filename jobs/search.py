"""Search rank, alpha and learning rate: `python -m jobs.search --config FILE`."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

from jobs._main import cluster_on_demand, do_stage, run_job
from jobs._results import code_of_search, say_next, say_searched
from jobs.prepare import prepare
from jobs.train import training_digest
from orchestrator.config.schema import RunConfig
from orchestrator.core.progress import doing, stages
from orchestrator.run.methods import require_methods
from orchestrator.run.paths import RunDir


def search(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Search, unless the run has done so with the same samples and settings."""

    def work() -> None:
        with ThreadPoolExecutor(max_workers=1) as beside:  # the import takes as long as Ray's processes take to start
            imported = beside.submit(import_module, "evals.check.parity")
            ensure_cluster()
            imported.result()
        from evals.check.parity import require_parity
        from evals.selection.select import open_selector
        from jobs._plan import require_room
        from orchestrator.search.run import run_search

        with doing("comparing the tokens of training, evaluation and serving"):
            require_parity(config, run)
        require_room(config, run)
        with open_selector(config, run) as chooser:
            run_search(config, run, chooser)

    outputs = [run.trials, run.root / "adapters"]
    do_stage(run, "search", training_digest(config, run), work, outputs, say_result=say_searched)


def main(config: RunConfig, run: RunDir) -> int:
    """Prepare if needed, then search."""
    require_methods(config)
    with stages("prepare", "search"):
        prepare(config, run)
        with cluster_on_demand(config) as ensure_cluster:
            search(config, run, ensure_cluster)
    say_next("evaluate", run)
    return code_of_search(run)


if __name__ == "__main__":
    sys.exit(run_job("search", main))
