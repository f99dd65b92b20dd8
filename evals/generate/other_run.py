"""Another run beside this one, and its best adapter."""

from evals.generate.chosen import read_report
from evals.records import Report
from orchestrator.core.errors import RunConflictError
from orchestrator.run.other import find_other_run
from orchestrator.run.paths import RunDir


def best_adapter(report: Report) -> str | None:
    """The winner, without one the leader, without that the adapter that scores highest; None without an adapter."""
    highest = next((adapter.id for adapter in report.adapters if not adapter.is_base), None)
    return report.verdict.winner or report.verdict.leader or highest


def reported_run(name: str, run: RunDir, *, where: str) -> tuple[RunDir, Report, str]:
    """The run that `name`, given as `where`, means, its report, and the id of its best adapter.

    Raises:
        InputError: If there is no such run, or it is `run` itself.
        RunConflictError: If it has no report of an adapter.
    """
    other = find_other_run(name, run, where=where)
    report = read_report(other)
    best = best_adapter(report) if report else None
    if report is None or best is None:
        what = f"the run in {other.root} has no report of an adapter"
        raise RunConflictError(what, where=where, fix="Run evaluate and report there first")
    return other, report, best
