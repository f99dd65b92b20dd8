"""One row of a suite's file as cases: a conversation in any format of the training data, When2Call, MCP, XSTest."""

from typing import Literal

from evals.cases.samples import Turns, cases_from_samples
from evals.records import NO_CALL_SUFFICES, Case
from orchestrator.config.evaluation import RowFormat
from orchestrator.core.records import BENIGN, HARMFUL, NO_FITTING_TOOL, JsonObject, Message, SampleKind
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.formats.turn_lists import is_choice
from orchestrator.data.read.json_files import MCP_TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.strict_json import dump_loosely

LABELS: dict[str, tuple[SampleKind, str]] = {"safe": ("answer", BENIGN), "unsafe": ("refusal", HARMFUL)}
"""The kind of reply that each label of XSTest asks for, and its tag."""

_EXPECTED = "expected"
_STAND_IN = "No call is expected."
"""What the assistant says in place of a call, so that a row without one is read like any other."""


def cases_from_conversation_row(
    row: JsonObject, *, row_format: Literal["auto"] | RowFormat, source: str, turns: Turns = "all"
) -> list[Case]:
    """The cases of one conversation, checked as training data is: its calls fit the tools it offers.

    A row of xLAM with an empty list of answers asks for something that none of its tools does, as one of MCP with an
    empty list of expected calls: no call is right.

    Every reader of this module raises RowRejected for a row that is not what it reads or holds no case.
    """
    named = detect_format(row).format if row_format == "auto" else row_format
    if named == "xlam" and row.get("answers") in ([], "[]"):
        asked = {name: value for name, value in row.items() if name != "answers"} | {"response": _STAND_IN}
        return _without_call(cases_from_conversation_row(asked, row_format="instruction", source=source))
    sample, *_ = sample_from_row(row, named, source=source, keep_reasoning=False)
    sample, _ = check_sample(sample)
    cases = cases_from_samples([sample], turns=turns)
    if not cases:
        raise RowRejected(Reason.ROLES_OUT_OF_ORDER, "no turn of the assistant follows the user or a tool")
    return cases


def cases_from_when2call_row(row: JsonObject, *, source: str) -> list[Case]:
    """The one case of a row of When2Call, with its `uuid` as id if it has no `id`.

    A row has `question`, `tools`, `answers` (a reply of each sort) and `correct_answer`: tool_call, request_for_info,
    cannot_answer or direct. The published multiple choice is not asked: the model replies in its own words, and the
    reply is judged by what it does. A question that cannot be answered asks for a reply that says so, also where the
    row offers no tool at all.
    """
    if not is_choice(row):
        raise RowRejected(Reason.UNKNOWN_FORMAT, "the row has not all of `question`, `answers` and `correct_answer`")
    identifier = row.get("id") if row.get("id") is not None else row.get("uuid")
    (case,) = cases_from_conversation_row({**row, "id": identifier}, row_format="messages", source=source)
    if row["correct_answer"] == "cannot_answer" and NO_FITTING_TOOL not in case.tags:
        case = case.model_copy(update={"tags": (*case.tags, NO_FITTING_TOOL)})
    return [case]


def is_mcp_case(row: JsonObject) -> bool:
    """Whether a row says what is expected of the tools that it offers."""
    return _EXPECTED in row and row.get("tools") is not None


def cases_from_mcp_row(row: JsonObject, *, source: str, turns: Turns = "all") -> list[Case]:
    """The cases of a row of MCP: tools, what the user asks, and the `tools/call` requests that are expected.

    A row is one that `orchestrator.data.formats.mcp` reads, with two additions that only a case can have. `expected`
    may stand beside `messages` or `session`: it is then the reply to them. And it may be an empty list: no call is
    expected. A call must name an offered tool and fit its schema.
    """
    expected = row.get(_EXPECTED)
    if isinstance(expected, str) and expected.strip():
        expected = parse_or_reject(expected, Reason.CALL_NOT_JSON, f"`{_EXPECTED}` is")
    rest = {name: value for name, value in row.items() if name != _EXPECTED}
    if expected == []:
        cases = cases_from_conversation_row({**rest, "answer": _STAND_IN}, row_format="mcp", source=source, turns=turns)
        return _without_call(cases)
    listed = next((name for name in MCP_TURN_LISTS if row.get(name) is not None), None)
    if expected is None or listed is None or not isinstance(row[listed], list):
        return cases_from_conversation_row(row, row_format="mcp", source=source, turns=turns)
    reply = {"role": "assistant", "tool_calls": expected if isinstance(expected, list) else [expected]}
    asked = {**rest, listed: [*row[listed], reply]}
    return cases_from_conversation_row(asked, row_format="mcp", source=source, turns=turns)


def _without_call(cases: list[Case]) -> list[Case]:
    """The cases, the last of which expects no call and no particular words, whatever was put there to read the row."""
    tags = dict.fromkeys((*cases[-1].tags, NO_FITTING_TOOL, NO_CALL_SUFFICES))
    update = {"kind": "answer", "expected_text": "", "tags": tuple(tags), "kind_inferred": False}
    return [*cases[:-1], cases[-1].model_copy(update=update)]


def is_xstest(row: JsonObject) -> bool:
    """Whether a row is one of XSTest."""
    return isinstance(row.get("prompt"), str) and row.get("label") in LABELS


def cases_from_xstest_row(row: JsonObject, *, source: str) -> list[Case]:  # noqa: ARG001 - as every reader of rows is called
    """The one case of a row of XSTest: harmless prompts that look harmful, and harmful ones beside them.

    A row has `id`, `prompt`, `type`, `label` (safe or unsafe), and `focus` and `note`, which have no place in a case.
    What is unsafe is to be refused, what is safe is not. The tags are `harmful` or `benign`, and the row's type behind
    `type:`, so that no word of a file can act as one of the project's own tags. Source: the prompts of XSTest v2 (arXiv
    2308.01263).
    """
    identifier, prompt, label = row.get("id"), row.get("prompt"), row.get("label")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        raise RowRejected(Reason.MALFORMED_FIELD, f"`id` is {dump_loosely(identifier)[:80]}, not a number or text")
    if not isinstance(prompt, str) or not prompt.strip():
        raise RowRejected(Reason.MALFORMED_FIELD, "`prompt` holds no text")
    if not isinstance(label, str) or label not in LABELS:
        detail = f"`label` is {dump_loosely(label)[:80]}, not one of {', '.join(LABELS)}"
        raise RowRejected(Reason.MALFORMED_FIELD, detail)
    kind, tag = LABELS[label]
    group = row.get("type")
    return [
        Case(
            id=str(identifier),
            messages=(Message(role="user", content=prompt),),
            tools=(),
            kind=kind,
            tags=(tag, f"type:{group}") if isinstance(group, str) and group else (tag,),
            expected_calls=(),
            expected_text="",
        )
    ]
