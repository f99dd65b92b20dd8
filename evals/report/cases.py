"""Every failing reply of a run, for cases.html: a table to filter, and pages with each case in full.

Nothing here needs a script: the filters are style rules, one for each value that can be chosen.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evals.records import Case, FailureReason, Verdict
from evals.report.blocks import Scene, Text
from evals.report.case_texts import expected_text, known_case, reply_text, scene_of, summary_text, why_text
from evals.report.text import REASONS, shorten
from evals.report.view import View
from orchestrator.core.text import counted

MAX_ROWS, CASES_A_PAGE = 6000, 50
"""Failing replies that the table lists, and cases on one page of full texts."""
MAX_CASE_CHARS = 4000
"""Longest text of a case on those pages."""
MAX_TAGS = 30
"""Tags that can be chosen, the most frequent ones."""
_NAMES = ("Adapter", "Beside the base", "Kind", "Reason", "Suite", "Tag")
LOST, NOT_LOST = "the base is right", "the base fails too"


class Choice(NamedTuple):
    """A value that the table can be filtered by: its code in the page, its words, and how many rows have it."""

    code: str
    label: str
    num_rows: int


class Filter(NamedTuple):
    """One way to filter the table."""

    name: str
    choices: Sequence[Choice]


class CaseRow(NamedTuple):
    """One failing reply. `codes` are those of the choices that it belongs to."""

    link: str
    case_id: str
    summary: str
    kind: str
    tags: Sequence[str]
    adapter_id: str
    verdict: str
    reason: str
    is_lost: bool
    codes: Sequence[str]


class Answer(NamedTuple):
    """One adapter's reply to a case."""

    adapter_id: str
    verdict: str
    is_right: bool
    why: str
    text: Text


class WholeCase(NamedTuple):
    """A case with the replies of everyone; `number` is its anchor."""

    number: int
    case_id: str
    about: str
    scene: Scene
    expected: Text
    answers: Sequence[Answer]


@dataclass(frozen=True)
class CaseBook:
    """What cases.html and its pages show; `left_out` says in words what they do not."""

    num_failing: int
    filters: tuple[Filter, ...]
    rows: tuple[CaseRow, ...]
    pages: tuple[tuple[WholeCase, ...], ...]
    left_out: tuple[str, ...]


class _Failing(NamedTuple):
    """A reply that is not right, with what is needed to describe it."""

    case: Case
    number: int
    verdict: Verdict
    adapter_id: str
    base_is_right: bool | None


def case_book(view: View) -> CaseBook:
    """Collect the failing replies of all adapters, in the order of the cases.

    Raises:
        RunConflictError: If a verdict belongs to no known case.
    """
    verdicts = _verdicts(view)
    failing, numbers = _failing(view, verdicts)
    listed = failing[:MAX_ROWS]
    shown = list(dict.fromkeys(entry.case.id for entry in listed))
    filters = tuple(_filters(view, listed))
    codes = {(one.name, choice.label): choice.code for one in filters for choice in one.choices}
    whole = [_whole(view, numbers[case_id], case_id, verdicts) for case_id in shown]
    return CaseBook(
        num_failing=len(failing),
        filters=filters,
        rows=tuple(_row(entry, codes) for entry in listed),
        pages=tuple(tuple(whole[start : start + CASES_A_PAGE]) for start in range(0, len(whole), CASES_A_PAGE)),
        left_out=tuple(_left_out(view, len(failing), len(listed))),
    )


def page_name(number: int) -> str:
    """The file of the page that holds the case with this number, below the report's folder."""
    return f"cases/{(number - 1) // CASES_A_PAGE + 1}.html"


def _verdicts(view: View) -> dict[str, dict[str, Verdict]]:
    """Adapter id -> case id -> verdict, in the report's order of adapters."""
    scored = {entry.scores.adapter_id: entry.scores.verdicts for entry in view.inputs.scored}
    return {adapter.id: {one.case_id: one for one in scored[adapter.id]} for adapter in view.report.adapters}


def _failing(view: View, verdicts: Mapping[str, Mapping[str, Verdict]]) -> tuple[list[_Failing], dict[str, int]]:
    cases, base = view.inputs.cases, verdicts.get(view.base.id, {}) if view.base else {}
    found, numbers = [], dict[str, int]()
    order = [*cases, *(case_id for by_id in verdicts.values() for case_id in by_id if case_id not in cases)]
    for case_id in dict.fromkeys(order):
        for adapter_id, by_id in verdicts.items():
            verdict = by_id.get(case_id)
            if verdict is None or verdict.correct is True:
                continue
            case = known_case(verdict, adapter_id, cases)
            number = numbers.setdefault(case_id, len(numbers) + 1)
            is_base = view.base is not None and adapter_id == view.base.id
            theirs = None if is_base or case_id not in base else base[case_id].correct is True
            found.append(_Failing(case, number, verdict, adapter_id, theirs))
    return found, numbers


def _words(entry: _Failing) -> Iterator[tuple[str, str]]:
    """Every value of a row that can be chosen: the name of the filter, and the value."""
    yield "Adapter", entry.adapter_id
    if entry.base_is_right is not None:
        yield "Beside the base", LOST if entry.base_is_right else NOT_LOST
    yield "Kind", entry.verdict.kind.replace("_", " ")
    yield "Reason", _reason(entry.verdict.reason)
    yield "Suite", entry.verdict.suite
    yield from (("Tag", tag) for tag in entry.verdict.tags)


def _reason(reason: FailureReason | None) -> str:
    return REASONS[reason] if reason else "right"


def _filters(view: View, failing: Iterable[_Failing]) -> Iterator[Filter]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in _NAMES}
    for entry in failing:
        for name, label in _words(entry):
            counts[name][label] += 1
    counts["Adapter"] = Counter(
        {a.id: counts["Adapter"][a.id] for a in view.report.adapters if counts["Adapter"][a.id]}
    )
    for name, numbers in counts.items():
        ranked = list(numbers.items()) if name == "Adapter" else numbers.most_common(MAX_TAGS)
        if len(ranked) > 1:
            code = name.split()[0].lower()
            yield Filter(name, [Choice(f"{code}-{place}", *pair) for place, pair in enumerate(ranked, start=1)])


def _row(entry: _Failing, codes: Mapping[tuple[str, str], str]) -> CaseRow:
    verdict = entry.verdict
    return CaseRow(
        link=f"{page_name(entry.number)}#case-{entry.number}",
        case_id=shorten(entry.case.id, 60).text,
        summary=summary_text(entry.case),
        kind=verdict.kind.replace("_", " "),
        tags=[shorten(tag, 40).text for tag in verdict.tags][:8],
        adapter_id=entry.adapter_id,
        verdict="not scored" if verdict.correct is None else "wrong",
        reason=_reason(verdict.reason),
        is_lost=entry.base_is_right is True,
        codes=[codes[pair] for pair in _words(entry) if pair in codes],
    )


def _whole(view: View, number: int, case_id: str, verdicts: Mapping[str, Mapping[str, Verdict]]) -> WholeCase:
    case = view.inputs.cases[case_id]
    about = [case.kind.replace("_", " "), f"suite {shorten(case.suite, 60).text}"]
    tags = ", ".join(shorten(tag, 40).text for tag in case.tags)
    return WholeCase(
        number=number,
        case_id=shorten(case_id, 100).text,
        about="; ".join([*about, *([f"tags {tags}"] if tags else [])]),
        scene=scene_of(case, MAX_CASE_CHARS),
        expected=Text("Expected", shorten(expected_text(case), MAX_CASE_CHARS)),
        answers=list(_answers(view, case_id, verdicts)),
    )


def _answers(view: View, case_id: str, verdicts: Mapping[str, Mapping[str, Verdict]]) -> Iterator[Answer]:
    replies = {entry.scores.adapter_id: entry.generations for entry in view.inputs.scored}
    for adapter_id, by_id in verdicts.items():
        verdict = by_id.get(case_id)
        if verdict is not None:
            word = "not scored" if verdict.correct is None else "right" if verdict.correct else "wrong"
            text = Text("Reply", shorten(reply_text(replies[adapter_id].get(case_id)), MAX_CASE_CHARS))
            yield Answer(adapter_id, word, verdict.correct is True, why_text(verdict), text)


def _left_out(view: View, num_failing: int, num_listed: int) -> Iterator[str]:
    if num_failing > num_listed:
        rest = counted(num_failing - num_listed, "more failing reply", "more failing replies")
        yield f"{rest} not listed; all are in evals/<adapter>/scores.json."
    num_right = sum(verdict.correct is True for entry in view.inputs.scored for verdict in entry.scores.verdicts)
    if num_right:
        yield f"{counted(num_right, 'right reply', 'right replies')} not listed; evals/<adapter>/scores.json has them."
