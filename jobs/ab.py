"""Two adapters in live traffic: `python -m jobs.ab --config FILE [--old NAME] [--new NAME] [--log FILE]`."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from jobs._main import READ, run_job
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET, InputError
from orchestrator.core.progress import say, show_table
from orchestrator.run.paths import RunDir


def ab(config: RunConfig, run: RunDir, *, old: str, new: str, log: Sequence[str], margin: float) -> int:  # noqa: ARG001 - a job is given it
    """Say how many live cases are needed and, with logged outcomes, what they say; exits 2 if the new one is worse.

    Raises:
        InputError: If one of the two is not there or not scored, the margin is no share, or a log cannot be read.
    """
    from evals.rollout.outcomes import read_log
    from evals.rollout.plan import harm_rows, plan_lines, plan_rollout
    from evals.rollout.sides import find_side
    from evals.rollout.verdict import TABLE_HEAD, judge_log, verdict_lines, verdict_rows

    if not 0 < margin < 1:
        raise InputError(f"it is {margin:g}", where="--margin", allowed="a share above 0 and below 1, such as 0.02")
    plan = plan_rollout(find_side(run, old, "--old"), find_side(run, new, "--new"), margin)
    for line in plan_lines(plan):
        say(line)
    if not log:
        show_table("So many cases would show as well:", ("metric", plan.old, "if it is"), harm_rows(plan))
        return DONE
    found = judge_log(read_log([Path(name) for name in log]), plan)
    show_table("Logged:", TABLE_HEAD, verdict_rows(found))
    for line in verdict_lines(found, plan):
        say(line)
    return GATE_NOT_MET if found.state == "worse" else DONE


def _add_options(parser: ArgumentParser) -> None:
    from evals.rollout.plan import MARGIN

    names = "an adapter, winner, base, or another run"
    parser.add_argument("--old", default="base", metavar="NAME", help=f"what is live: {names} (base)")
    parser.add_argument("--new", default="winner", metavar="NAME", help=f"what may replace it: {names} (winner)")
    parser.add_argument("--log", action="append", default=[], metavar="FILE", help="logged outcomes; repeatable")
    help_text = f"the smallest difference of the share answered as asked that matters ({MARGIN:g})"
    parser.add_argument("--margin", type=float, default=MARGIN, metavar="SHARE", help=help_text)


if __name__ == "__main__":
    sys.exit(run_job("ab", ab, add_options=_add_options, scene=READ))
