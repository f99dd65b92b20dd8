"""The whole way, from data to report: `python -m jobs.pipeline --config FILE`."""

import sys
from functools import partial

from jobs._main import attempted, cluster_on_demand, run_job
from jobs.evaluate import evaluate
from jobs.prefer import prefer
from jobs.prepare import prepare
from jobs.report import report
from jobs.search import search
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import TooFewPairsError, UnscoredAdaptersError
from orchestrator.core.progress import stages
from orchestrator.run.methods import require_methods
from orchestrator.run.paths import RunDir


def pipeline(config: RunConfig, run: RunDir) -> int:
    """Prepare, search, learn preferences if `stages` says so, evaluate and report; all on one cluster.

    Raises:
        ConfigError: At once, if this machine lacks a method that the configuration names.
        AdapterNotFoundError: At once, if one that the configuration names is not there.
        UnscoredAdaptersError, TooFewPairsError: After the report, if an adapter or preferences are missing in it.
    """
    require_methods(config)
    if config.eval.adapters:
        from orchestrator.models.outside import require_there

        require_there(config.eval.adapters)
    prefers = "prefer" in config.stages
    with stages("prepare", "search", *(["prefer"] if prefers else []), "evaluate", "report"):
        prepare(config, run)
        with cluster_on_demand(config) as ensure_cluster:
            search(config, run, ensure_cluster)
            learn = partial(prefer, config, run, ensure_cluster)
            lacking = attempted(learn, TooFewPairsError) if prefers else None
            try:
                evaluate(config, run, ensure_cluster)
            except UnscoredAdaptersError:
                if any(run.root.glob("evals/*/scores.json")):
                    report(config, run)
                raise
        code = report(config, run)
    if lacking is not None:
        raise lacking
    return code


if __name__ == "__main__":
    sys.exit(run_job("pipeline", pipeline))
