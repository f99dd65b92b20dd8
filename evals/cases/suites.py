"""A suite of the configuration, or any file of questions, as cases: which reader reads it, and what is refused."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from evals.cases.bfcl import case_from_bfcl_row
from evals.cases.rows import (
    cases_from_conversation_row,
    cases_from_mcp_row,
    cases_from_when2call_row,
    cases_from_xstest_row,
    is_mcp_case,
    is_xstest,
)
from evals.cases.samples import Turns, case_from_row, refuse_repeated_ids
from evals.records import NO_CALL_SUFFICES, Case
from orchestrator.config.evaluation import PATHS_START, SuiteConfig, SuiteFormat
from orchestrator.config.schema import SourceConfig
from orchestrator.core.errors import DataError
from orchestrator.core.progress import say
from orchestrator.core.records import NO_FITTING_TOOL, JsonObject, QuarantinedRow
from orchestrator.core.text import visible
from orchestrator.data.formats.bfcl import answers_path, load_answers, with_answer
from orchestrator.data.formats.common import short
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.formats.turn_lists import is_choice
from orchestrator.data.read.sources import RawRow, parse_row, read_source
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.run.copies import local_path

MAX_REFUSED_SHARE = 0.05
"""A suite is refused if more of its rows than this cannot be cases: its figures would be those of another suite. The
share is the default of `data.max_quarantine_rate`."""
_HOLDS_NOTHING = ("the file is empty", "it holds no rows")


class RowReader(Protocol):
    """Gives the cases of a row, or raises RowRejected."""

    def __call__(self, row: JsonObject, /, *, source: str) -> list[Case]:
        """`source` is the row's `file:line`."""


def read_suite(suite: SuiteConfig, *, turns: Turns = "all") -> list[Case]:
    """The cases of one suite of the configuration, their ids `<suite>/<id>`; raises as `cases_from_file`."""
    path, answers = local_path(suite.path), None if suite.answers is None else local_path(suite.answers)
    cases = cases_from_file(path, suite.format, suite=suite.name, answers=answers, limit=suite.limit, turns=turns)
    return [case.model_copy(update={"id": f"{suite.name}/{case.id}"}) for case in cases]


def suite_files(suites: Iterable[SuiteConfig]) -> list[Path]:
    """The files that decide the cases of suites, those of accepted answers included."""
    files: list[Path] = []
    for suite in suites:
        path = local_path(suite.path)
        answers = local_path(suite.answers) if suite.answers is not None else answers_path(path)
        files += [path] if answers is None else [path, answers]
    return files


def cases_from_file(
    path: Path,
    written: SuiteFormat,
    *,
    suite: str,
    answers: Path | None = None,
    limit: int | None = None,
    turns: Turns = "all",
) -> list[Case]:
    """The cases in the first `limit` rows of a file, with the ids that the file gives.

    At most MAX_REFUSED_SHARE of the rows may be unfit, which is then said; rows of `cases` and `bfcl` all must fit. A
    row that repeats an earlier one is left out, which is said too.

    Args:
        path: The file.
        written: How its rows are written; `auto` looks at the first for a suite's own format, else at each.
        suite: What the cases are called together.
        answers: For `bfcl`, the accepted answers; None looks beside the questions.
        limit: How many rows; None takes all.
        turns: Which turns of a conversation.

    Raises:
        DataError: If the file is missing, cannot be read, or holds too many rows that cannot be cases.
    """
    for file in (path, answers):
        if file is not None:
            refuse_no_file(file, f"suite {suite}")
    absolute = path.absolute()
    name = _format_of(absolute) if written == "auto" else written
    if answers is not None and name != "bfcl":
        raise DataError(f"suite {suite}: answers belong to format bfcl, not {name}", where=str(path))
    match name:
        case "bfcl":
            cases = _bfcl_cases(absolute, answers, suite=suite, limit=limit)
        case "cases":
            cases = _written_cases(absolute, limit=limit)
        case "xstest":
            cases = _cases_of_rows(absolute, cases_from_xstest_row, suite=suite, limit=limit)
        case "when2call":
            cases = _cases_of_rows(absolute, cases_from_when2call_row, suite=suite, limit=limit)
        case "mcp":
            cases = _cases_of_rows(absolute, partial(cases_from_mcp_row, turns=turns), suite=suite, limit=limit)
        case _:
            row_format = "messages" if name == "canonical" else name
            read_row = partial(cases_from_conversation_row, row_format=row_format, turns=turns)
            cases = _cases_of_rows(absolute, read_row, suite=suite, limit=limit)
    if not cases:
        raise DataError(f"suite {suite}: the file holds no case", where=str(path))
    refuse_repeated_ids(cases)
    return [case.model_copy(update={"suite": suite}) for case in cases]


def _bfcl_cases(path: Path, answers: Path | None, *, suite: str, limit: int | None) -> list[Case]:
    cases = cases_from_bfcl_file(path, answers, suite=suite, limit=limit)
    # The leaderboard's own check of irrelevance asks for no words.
    return [
        case.model_copy(update={"tags": (*case.tags, NO_CALL_SUFFICES)}) if NO_FITTING_TOOL in case.tags else case
        for case in cases
    ]


def cases_from_bfcl_file(questions: Path, answers: Path | None, *, suite: str, limit: int | None) -> list[Case]:
    """The questions of a file of the Berkeley Function Calling Leaderboard as cases, in the order of the file.

    `questions` holds rows of `id`, `question` and `function`, `answers` JSON lines or a JSON array of `id` and
    `ground_truth`; None looks for them beside the questions (`answers_path`).

    Raises:
        DataError: If a file cannot be read, two questions have one id, or a question cannot be a case: how many
            cannot, and the first of them with `file:line`.
    """
    refuse_no_file(questions, f"suite {suite}")
    found = answers_path(questions) if answers is None else answers
    accepted = {} if found is None else load_answers(found)
    cases: dict[str, Case] = {}
    refused: list[tuple[str, str]] = []
    num_rows = 0
    for row in suite_rows(questions, limit=limit):
        num_rows += 1
        where = f"{questions}:{row.line}"
        question = with_answer(_bfcl_question(row, where), accepted)
        try:
            case = case_from_bfcl_row(question, suite=suite, file_name=questions.name)
        except RowRejected as error:
            refused.append((where, f"{error.reason}: {error.detail}"))
            continue
        if case.id in cases:
            raise DataError(f"the id {short(case.id)} occurs twice", where=where, fix="Give each row its own id")
        cases[case.id] = case
    if refused:
        where, detail = refused[0]
        what = f"{len(refused)} of {num_rows} questions cannot be cases, first: {detail}"
        raise DataError(what, where=where, fix="Correct these rows or take them out of the file")
    return list(cases.values())


def _bfcl_question(row: RawRow | QuarantinedRow, where: str) -> JsonObject:
    if isinstance(row, QuarantinedRow):
        raise DataError(row.detail, where=where)
    try:
        fields = parse_row(row)
    except RowRejected as rejected:
        raise DataError(f"the question cannot be read: {rejected.detail}", where=where) from None
    if not isinstance(fields.get("id"), str) or not fields["id"]:
        raise DataError("the question has no `id`", where=where, allowed='{"id": "simple_python_0", ...} on each line')
    return fields


def _written_cases(path: Path, *, limit: int | None) -> list[Case]:
    cases: list[Case] = []
    for row in suite_rows(path, limit=limit):
        where = f"{row.source}:{row.line}"
        try:
            cases.append(case_from_row(_fields(row), where=where))
        except RowRejected as rejected:
            raise DataError(rejected.detail, where=where) from None
    return cases


def _format_of(path: Path) -> SuiteFormat:
    """The suite's own format that the first row is in; `auto` for conversations, of which each row is looked at."""
    try:
        row = _fields(next(suite_rows(path)))
        if {"messages", "kind", "expected_calls", "expected_text"} <= row.keys():
            return "cases"
        if is_xstest(row):
            return "xstest"
        if is_choice(row):
            return "when2call"
        if is_mcp_case(row):
            return "mcp"
        return "bfcl" if detect_format(row).format == "bfcl" else "auto"
    except RowRejected:
        return "auto"


def _cases_of_rows(path: Path, read_row: RowReader, *, suite: str, limit: int | None) -> list[Case]:
    cases: dict[str, Case] = {}
    refused: list[str] = []
    num_rows = num_repeated = 0
    for row in suite_rows(path, limit=limit):
        num_rows += 1
        where = f"{row.source}:{row.line}"
        try:
            found = read_row(_fields(row), source=where)
        except RowRejected as rejected:
            refused.append(f"{where}: {rejected.detail}")
            continue
        if all(cases.get(case.id) == case for case in found):
            num_repeated += 1
        elif taken := [case.id for case in found if case.id in cases]:
            refused.append(f"{where}: an earlier row has the id {taken[0]!r} and another content")
        else:
            cases |= {case.id: case for case in found}
    _refuse_unfit(suite, refused, num_rows)
    if num_repeated:
        say(f"Left out of suite {suite}: {num_repeated} of {num_rows} rows that repeat an earlier one.")
    return list(cases.values())


def _fields(row: RawRow | QuarantinedRow) -> JsonObject:
    if isinstance(row, QuarantinedRow):
        raise RowRejected(Reason(row.reason), row.detail)
    return parse_row(row)


def _refuse_unfit(suite: str, refused: list[str], num_rows: int) -> None:
    if not refused:
        return
    first = visible(" ".join(refused[0].split()))
    what = f"suite {suite}: {len(refused)} of {num_rows} rows cannot be cases; the first is {first}"
    if len(refused) > MAX_REFUSED_SHARE * num_rows:
        fix = "Correct these rows, or take them out and call the suite by another name"
        raise DataError(what, allowed=f"{MAX_REFUSED_SHARE:.0%} of the rows", fix=fix)
    say(f"Left out of {what}.")


def suite_rows(path: Path, *, limit: int | None = None) -> Iterator[RawRow | QuarantinedRow]:
    """The first `limit` rows of a file, as `orchestrator.data.read.sources.read_source` gives them.

    Raises:
        DataError: As there; an empty file is reported in the words of a suite, for which one row is enough.
    """
    absolute = path.absolute()
    try:
        yield from read_source(SourceConfig(path=str(absolute), limit=limit), base_dir=absolute.parent)
    except DataError as error:
        if error.what not in _HOLDS_NOTHING:
            raise
        raise DataError("the file holds no row", where=str(path), fix="Give a file with at least one") from None


def refuse_no_file(path: Path, what: str) -> None:
    """DataError for a path that is no regular file; its message begins with `what`, such as `suite xstest`."""
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{what}: this is a folder, not a file", where=str(path), fix="Name a file in it")
    if path.exists():
        fix = "Save the rows as a file first"
        raise DataError(f"{what}: this is a device or pipe, not a file", where=str(path), fix=fix)
    fix = f"Correct the path: {PATHS_START}"
    raise DataError(f"{what}: there is no such file", where=str(path), fix=fix)
