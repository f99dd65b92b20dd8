"""Write the report of what the run has and print its gist: `python -m jobs.report --config FILE [--compare RUN]`."""

import sys
import uuid
from argparse import ArgumentParser
from collections.abc import Sequence

from evals.records import Report
from jobs._main import do_stage, run_job
from jobs._results import share_text
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET
from orchestrator.core.progress import say, show_table, width
from orchestrator.run.paths import RunDir
from orchestrator.tracking.follow import publish


def report(config: RunConfig, run: RunDir, *, compare: str | None = None) -> int:
    """Write the report; the exit code says whether the gates of the configuration are met.

    `compare` is another run to set beside this one: its folder, or its name if it lies beside.

    Raises:
        InputError: If there is no such other run.
    """
    from evals.report.render import gist_lines, gist_table, verdict_lines
    from evals.report.tracked import report_events
    from evals.report.write import write_report
    from orchestrator.run.other import find_other_run

    other = find_other_run(compare, run) if compare is not None else None
    written: list[Report] = []
    # Its input is every file of the run and it is cheap: a digest that never repeats has it rebuilt each time.
    do_stage(run, "report", uuid.uuid4().hex, lambda: written.append(write_report(config, run, other)))
    made = written[0]
    publish(run, config.tracking, report_events(made, run))
    head, *rows = gist_table(made, width())
    show_table(f"Run {config.name}", head, rows)
    for line in (*verdict_lines(made, width()), *gist_lines(made)):
        say(line)
    chosen = made.verdict.leader
    if chosen is not None and (share := share_text(run, chosen)):
        say(f"{chosen}: {share}")
    say(f"Report: {run.report / 'report.html'}")
    is_met = made.selection is None or made.selection["is_met"] is not False
    return DONE if is_met and all(gate.passed for gate in made.gates) else GATE_NOT_MET


def _add_options(parser: ArgumentParser) -> None:
    help_text = "set another run beside this one: its folder, or its name if it lies beside"
    parser.add_argument("--compare", metavar="OTHER_RUN", help=help_text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line and return its exit code."""
    return run_job("report", report, arguments, add_options=_add_options)


if __name__ == "__main__":
    sys.exit(main())
