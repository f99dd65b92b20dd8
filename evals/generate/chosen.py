"""Which adapter leaves the run: by its name, or the one that the report recommends."""

from pathlib import Path

from evals.records import Report
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, RunConflictError
from orchestrator.core.files import parse_line
from orchestrator.core.records import AdapterRecord
from orchestrator.run.paths import RunDir

WINNER = "winner"


def read_report(run: RunDir) -> Report | None:
    """The run's report, None where none was written."""
    path = run.report / "report.json"
    return parse_line(path.read_text(encoding="utf-8"), Report, where=str(path)) if path.is_file() else None


def choose_adapter(run: RunDir, name: str, *, option: str = "--adapter") -> str:
    """The id of the adapter called `name`, where `winner` is the winner or else the leader of the report.

    Raises:
        RunConflictError: If the run has no such adapter, or nothing says which one is best.
    """
    there = sorted(path.name for path in run.root.glob("adapters/[!.]*"))
    allowed = ", ".join([WINNER, *there])
    if not there:
        raise RunConflictError("the run has no adapter", where=str(run.root), fix="Run search or train first")
    if name != WINNER:
        if name not in there:
            raise RunConflictError(f"the run has no adapter {name!r}", where=str(run.root), allowed=allowed)
        return name
    if len(there) == 1:
        return there[0]
    report = read_report(run)
    leader = report.verdict.leader if report is not None else None
    if leader not in there:
        what = "the run has no report" if report is None else "the report recommends no adapter of the run"
        fix = f"Run evaluate and report first, or name one with {option}"
        raise RunConflictError(f"{what}, so none is the best", where=str(run.root), allowed=allowed, fix=fix)
    return leader


def require_own_base(record: AdapterRecord, folder: Path, config: RunConfig) -> None:
    """Refuse an adapter of the run that was trained on another base; those made elsewhere name theirs as they like.

    Raises:
        AdapterError: If it was.
    """
    if record.source is None and record.base != config.model.base:
        what = f"the adapter was trained on {record.base!r} and the run's base is {config.model.base!r}"
        raise AdapterError(what, where=str(folder), fix="Use it in a run of its own base")
