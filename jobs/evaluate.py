"""Score the base and the adapters: `python -m jobs.evaluate --config FILE [--rescore]`."""

import argparse
import sys
import uuid
from collections.abc import Callable

from jobs._main import cluster_on_demand, do_stage, run_job
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, RunConflictError
from orchestrator.run.paths import RunDir


def evaluate(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Score, unless the run has the scores of the same adapters on the same cases.

    Raises:
        RunConflictError: If the run has no adapter or no held-out samples.
    """
    from evals.evaluate.rescore import adapter_folders, stage_digest, stage_outputs

    if not adapter_folders(run) or not run.split("test").is_file():
        missing = "no held-out samples" if adapter_folders(run) else "no adapter"
        raise RunConflictError(f"the run has {missing}", where=str(run.root), fix="Run search or train first")

    def work() -> None:
        ensure_cluster()
        from evals.generate.engines import open_engines

        with open_engines(config) as engines:
            from evals.evaluate.fanout import evaluate_run  # takes seconds, while the engines load vLLM

            evaluate_run(config, run, engines)

    do_stage(run, "evaluate", stage_digest(config, run), work, stage_outputs(run))


def main(config: RunConfig, run: RunDir, *, rescore: bool = False) -> int:
    """Score the adapters that the run has, or only judge its replies again."""
    if rescore:
        from evals.evaluate.rescore import rescore_run

        # A digest that never repeats: the next evaluation checks again whether these scores belong to its settings.
        do_stage(run, "evaluate", uuid.uuid4().hex, lambda: rescore_run(config, run))
        return DONE
    with cluster_on_demand(config) as ensure_cluster:
        evaluate(config, run, ensure_cluster)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rescore", action="store_true", help="judge the stored replies again")


if __name__ == "__main__":
    sys.exit(run_job("evaluate", main, add_options=_add_options))
