"""The old and the new one: which scores stand for them, and what the report measured of the two."""

from typing import NamedTuple

from evals.generate.chosen import WINNER, choose_adapter, read_report
from evals.generate.other_run import best_adapter
from evals.records import Case, Scores
from evals.report.runs import shared_cases
from evals.stats.comparison import Pairs, pair_verdicts
from evals.stats.decision import PRIMARY
from orchestrator.core.errors import InputError, RunConflictError
from orchestrator.core.files import parse_line, read_jsonl
from orchestrator.core.records import BASE_ADAPTER_ID
from orchestrator.run.other import find_other_run
from orchestrator.run.paths import RunDir


class Side(NamedTuple):
    """One of the two: what it is called here, its run, and its scores there."""

    label: str
    run: RunDir
    scores: Scores


def find_side(run: RunDir, name: str, option: str) -> Side:
    """What `name`, given as `option`, means: an adapter, `winner`, `base`, or another run and its best adapter.

    Raises:
        InputError: If it is none of these.
        RunConflictError: If it has not been scored.
    """
    if name in (WINNER, BASE_ADAPTER_ID) or run.adapter(name).is_dir():
        adapter_id = name if name == BASE_ADAPTER_ID else choose_adapter(run, name, option=option)
        return Side(adapter_id, run, _scores(run, adapter_id))
    try:
        other = find_other_run(name, run, where=option)
    except InputError as error:
        adapters = ", ".join([WINNER, BASE_ADAPTER_ID, *sorted(path.name for path in run.root.glob("adapters/[!.]*"))])
        what = f"there is neither an adapter nor another run called {name!r}"
        raise InputError(what, where=option, allowed=f"{adapters}, or {error.allowed}") from None
    report = read_report(other)
    best = best_adapter(report) if report else None
    if best is None:
        fix = "Run evaluate and report there first"
        raise RunConflictError("this run has no report of an adapter", where=str(other.root), fix=fix)
    return Side(f"{other.root.name}/{best}", other, _scores(other, best))


def _scores(run: RunDir, adapter_id: str) -> Scores:
    path = run.scores(adapter_id)
    if not path.is_file():
        raise RunConflictError(f"{adapter_id} has not been scored", where=str(run.root), fix="Run evaluate first")
    return parse_line(path.read_text(encoding="utf-8"), Scores, where=str(path))


def paired(old: Side, new: Side) -> Pairs:
    """What the new one (left) and the old one did on the cases that both answered, of which there may be none.

    Raises:
        InputError: If the two are the same.
    """
    if (old.run.root, old.scores.adapter_id) == (new.run.root, new.scores.adapter_id):
        raise InputError(f"both are {new.label}", where="--old and --new", fix="Name two that differ")
    shared = shared_cases(_cases(new.run), _cases(old.run))
    left, right = (
        side.scores.model_copy(update={"verdicts": tuple(v for v in side.scores.verdicts if v.case_id in shared)})
        for side in (new, old)
    )
    return pair_verdicts(left, right, PRIMARY)


def _cases(run: RunDir) -> dict[str, Case]:
    return {case.id: case for case in read_jsonl(run.cases, Case)}
