"""Score the base and the adapters on held-out cases: `python -m jobs.evaluate --config FILE [--rescore]`."""

import argparse
import sys
from collections.abc import Callable

from jobs._main import DONE, cluster_on_demand, do_stage, run_job
from orchestrator.config import RunConfig
from orchestrator.errors import RunConflictError
from orchestrator.progress import stage
from orchestrator.records import BASE_ADAPTER_ID
from orchestrator.runs import RunDir, digest_of


def evaluate(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Score, unless the run has the scores of the same adapters on the same cases.

    Raises:
        RunConflictError: If the run has no adapter or no held-out samples.
    """
    from evals.suites.read import suite_files

    adapters = sorted(run.root.glob("adapters/[!.]*"))
    if not adapters or not run.split("test").is_file():
        missing = "no held-out samples" if adapters else "no adapter"
        raise RunConflictError(f"the run has {missing}", where=str(run.root), fix="Run search or train first")

    def work() -> None:
        from evals.engines import open_engines

        ensure_cluster()
        with open_engines(config) as engines:
            from evals.fanout import evaluate_run  # takes seconds, while the engines load vLLM

            evaluate_run(config, run, engines)

    outputs = [run.scores(adapter) for adapter in (BASE_ADAPTER_ID, *(folder.name for folder in adapters))]
    files = [path for folder in adapters for path in sorted(folder.iterdir())] + suite_files(config.eval.suites)
    do_stage(run, "evaluate", digest_of(run.split("test"), config.eval, config.model, *files), work, outputs)


def main(config: RunConfig, run: RunDir, *, rescore: bool = False) -> int:
    """Score the adapters that the run has, or only judge its replies once more."""
    if rescore:
        from evals.rescore import rescore_run

        with stage("evaluate again"):
            rescore_run(config, run)
        return DONE
    with cluster_on_demand(config) as ensure_cluster:
        evaluate(config, run, ensure_cluster)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rescore", action="store_true", help="judge the replies that are there once more")


if __name__ == "__main__":
    sys.exit(run_job("evaluate", main, add_options=_add_options))
