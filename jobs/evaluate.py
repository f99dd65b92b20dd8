"""Score the base and the adapters on held-out cases: `python -m jobs.evaluate --config FILE`."""

import sys
from collections.abc import Callable

from jobs._main import DONE, cluster_on_demand, do_stage, run_job
from orchestrator.config import RunConfig
from orchestrator.errors import RunConflictError
from orchestrator.records import BASE_ADAPTER_ID
from orchestrator.runs import RunDir, digest_of


def evaluate(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Score, unless the run has the scores of the same adapters on the same cases.

    Raises:
        RunConflictError: If the run has no adapter or no held-out samples.
    """
    adapters = sorted(folder.name for folder in run.root.glob("adapters/*") if (folder / "adapter.json").is_file())
    if not adapters or not run.split("test").is_file():
        missing = "no adapter" if not adapters else "no held-out samples"
        raise RunConflictError(f"the run has {missing}", where=str(run.root), fix="Run search or train first")

    def work() -> None:
        from evals.fanout import evaluate_run

        ensure_cluster()
        evaluate_run(config, run)

    outputs = [run.scores(adapter) for adapter in (BASE_ADAPTER_ID, *adapters)]
    do_stage(run, "evaluate", digest_of(run.split("test"), config.eval, config.model, adapters), work, outputs)


def main(config: RunConfig, run: RunDir) -> int:
    """Score the adapters that the run has."""
    with cluster_on_demand(config) as ensure_cluster:
        evaluate(config, run, ensure_cluster)
    return DONE


if __name__ == "__main__":
    sys.exit(run_job("evaluate", main))
