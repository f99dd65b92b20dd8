"""The whole way, from data to report: `python -m jobs.pipeline --config FILE`."""

import sys

from jobs._main import cluster_on_demand, run_job
from jobs.evaluate import evaluate
from jobs.prepare import prepare
from jobs.report import report
from jobs.search import search
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import UnscoredAdaptersError
from orchestrator.core.progress import stages
from orchestrator.run.methods import require_methods
from orchestrator.run.paths import RunDir


def pipeline(config: RunConfig, run: RunDir) -> int:
    """Prepare, search, evaluate and report; search and evaluation share one cluster.

    Raises:
        ConfigError: At once, if this machine lacks a method that the configuration names.
        AdapterNotFoundError: At once, if one that the configuration names is not there.
        UnscoredAdaptersError: After the report, if an adapter could not be scored.
    """
    require_methods(config)
    if config.eval.adapters:
        from orchestrator.models.outside import require_there

        require_there(config.eval.adapters)
    with stages("prepare", "search", "evaluate", "report"):
        prepare(config, run)
        with cluster_on_demand(config) as ensure_cluster:
            search(config, run, ensure_cluster)
            try:
                evaluate(config, run, ensure_cluster)
            except UnscoredAdaptersError:
                if any(run.root.glob("evals/*/scores.json")):
                    report(config, run)
                raise
        return report(config, run)


if __name__ == "__main__":
    sys.exit(run_job("pipeline", pipeline))
