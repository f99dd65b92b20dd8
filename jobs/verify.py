"""Hold an export against what was scored: `python -m jobs.verify --config FILE --folder DIR [--adapter ID]`."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from jobs._main import READ, cluster_on_demand, run_job
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET
from orchestrator.core.progress import say
from orchestrator.run.paths import RunDir


def verify(config: RunConfig, run: RunDir, *, folder: str, adapter: str, cases: int) -> int:
    """Have what is in the folder answer cases of the run; exits 2 if it does not reply as what was scored."""
    from evals.generate.chosen import choose_adapter

    return say_verified(config, run, Path(folder).absolute(), choose_adapter(run, adapter), num_cases=cases)


def say_verified(config: RunConfig, run: RunDir, folder: Path, adapter_id: str, *, num_cases: int) -> int:
    """Verify, and say in sentences what came of it."""
    with cluster_on_demand(config) as ensure_cluster:
        ensure_cluster()
        from evals.generate.engines import open_engines

        with open_engines(config) as engines:
            from evals.export.verify import verification_lines, verify_export

            found = verify_export(config, run, folder, adapter_id, engines, num_cases=num_cases)
    for each in found:
        for line in verification_lines(each):
            say(line)
    return GATE_NOT_MET if any(each.outcome == "differs" for each in found) else DONE


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--folder", required=True, metavar="DIR", help="what export wrote")
    add_question_options(parser)


def add_question_options(parser: ArgumentParser) -> None:
    """Which adapter of the run it is about, and how many cases it is asked."""
    parser.add_argument("--adapter", default="winner", metavar="ID", help="which one; the report's winner by default")
    parser.add_argument("--cases", type=int, default=50, metavar="N", help="held-out cases that it is asked (50)")


if __name__ == "__main__":
    sys.exit(run_job("verify", verify, add_options=_add_options, scene=READ))
