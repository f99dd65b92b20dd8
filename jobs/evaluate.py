"""Score the base and the adapters: `python -m jobs.evaluate --config FILE [--adapter DIR] [--rescore]`."""

import argparse
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs._main import cluster_on_demand, do_stage, run_job
from jobs._results import say_evaluated, say_next
from orchestrator.config.load import adapter_place
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.run.methods import require_methods
from orchestrator.run.paths import RunDir


def evaluate(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Score, unless that is done; raises a RunConflictError if there is no adapter or no held-out sample."""
    require_methods(config)
    from evals.evaluate.rescore import gather_adapters, stage_digest, stage_outputs

    left_out = gather_adapters(config, run)

    def work() -> None:
        ensure_cluster()
        from evals.generate.engines import open_engines

        with open_engines(config) as engines:
            from evals.evaluate.fanout import evaluate_run  # takes seconds, while the engines load vLLM

            evaluate_run(config, run, engines, left_out)

    do_stage(run, "evaluate", stage_digest(config, run), work, stage_outputs(run), say_result=say_evaluated)


def main(config: RunConfig, run: RunDir, *, rescore: bool = False, adapter: Sequence[str] = ()) -> int:
    """Score the adapters that the run has and those named, or only judge its replies again."""
    named = (*config.eval.adapters, *(adapter_place(name, Path.cwd()) for name in adapter))
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"adapters": named})})
    if rescore:
        from evals.evaluate.rescore import rescore_run

        # A digest that never repeats: the next evaluation checks again whether these scores belong to its settings.
        do_stage(run, "evaluate", uuid.uuid4().hex, lambda: rescore_run(config, run), say_result=say_evaluated)
    else:
        with cluster_on_demand(config) as ensure_cluster:
            evaluate(config, run, ensure_cluster)
    say_next("report", run)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rescore", action="store_true", help="judge the stored replies again")
    parser.add_argument("--adapter", action="append", default=[], metavar="DIR", help="score this one too; repeatable")


if __name__ == "__main__":
    sys.exit(run_job("evaluate", main, add_options=_add_options))
