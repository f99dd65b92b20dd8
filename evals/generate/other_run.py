"""Another run beside this one, and its best adapter."""

from pathlib import Path

from evals.generate.chosen import read_report
from evals.records import Report
from orchestrator.core.errors import InputError, RunConflictError
from orchestrator.run.paths import RunDir


def best_adapter(report: Report) -> str | None:
    """The winner, without one the leader, without that the adapter that scores highest; None without an adapter."""
    highest = next((adapter.id for adapter in report.adapters if not adapter.is_base), None)
    return report.verdict.winner or report.verdict.leader or highest


def find_other_run(text: str, run: RunDir, *, where: str = "--compare") -> RunDir:
    """The run that `text`, given as `where`, means: a folder, or the name of a run beside `run`.

    Raises:
        InputError: If there is no such folder, or it is `run` itself.
    """
    places = (Path(text), run.root.parent / text)
    folder = next((path for path in places if _is_run(path)), None)
    if folder is None:
        raise InputError(
            f"no run is in the folder {text!r}, and none of that name lies beside this one",
            where=where,
            allowed=f"the folder of a run, or the name of one in {run.root.parent}",
        )
    if folder.resolve() == run.root.resolve():
        raise InputError("a run cannot be compared with itself", where=where, fix="Name another run")
    return RunDir(folder.resolve())


def _is_run(folder: Path) -> bool:
    try:
        return RunDir(folder).config.is_file()
    except OSError:  # a name that no file system takes
        return False


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
