"""Why a row cannot become a sample; rows set aside, and how often something was found."""

from collections import Counter
from enum import StrEnum
from typing import Any, TextIO

from orchestrator.core.files import dump_line
from orchestrator.core.records import QuarantinedRow
from orchestrator.data.card import ReasonCount
from orchestrator.notation.pythonic import parse_json_or_literal
from orchestrator.notation.strict_json import StrictJsonError, parse


class Reason(StrEnum):
    """Reason codes of `data/quarantine.jsonl`."""

    MALFORMED_JSON = "malformed_json"
    """The row is not strict JSON: broken syntax, NaN, duplicate keys, a number too long."""
    NESTED_TOO_DEEPLY = "nested_too_deeply"
    INVALID_UNICODE = "invalid_unicode"
    """A string holds half a surrogate pair."""
    LINE_TOO_LONG = "line_too_long"
    """A line of more bytes than any conversation has."""
    NOT_UTF8 = "not_utf8"
    ROW_NOT_AN_OBJECT = "row_not_an_object"
    UNKNOWN_FORMAT = "unknown_format"
    """The row is in none of the formats, or not in the one that the config asks for."""
    MALFORMED_FIELD = "malformed_field"
    """A field has the wrong type, such as a turn that is not an object or an id that is a list."""
    UNSUPPORTED_CONTENT = "unsupported_content"
    """Something that is not text, reasoning, a tool call or a tool result, such as an image."""
    EMPTY_CONVERSATION = "empty_conversation"
    EMPTY_TURN = "empty_turn"
    """A user turn without text, or an assistant turn with neither text nor calls."""
    UNKNOWN_ROLE = "unknown_role"
    NO_USER_TURN = "no_user_turn"
    """The assistant speaks first and nobody asks it for anything."""
    NO_ASSISTANT_TURN = "no_assistant_turn"
    ROLES_OUT_OF_ORDER = "roles_out_of_order"
    """Turns that no chat template can show, whatever is joined or left out at the end."""
    ENDS_WITHOUT_ASSISTANT = "ends_without_assistant"
    """The last turn is not the assistant's, so that there is nothing to learn after it."""
    CALL_IN_TEXT = "call_in_text"
    """A call is written as text in a place where this format has none."""
    CALL_NOT_JSON = "call_not_json"
    """A call that is not strict JSON in a format that writes calls as JSON."""
    CALL_NOT_PYTHONIC = "call_not_pythonic"
    """A call that is not `name(argument=literal, ...)` in a format that writes calls like Python."""
    ARGUMENTS_NOT_JSON = "arguments_not_json"
    ARGUMENTS_NOT_OBJECT = "arguments_not_object"
    ARGUMENTS_DO_NOT_FIT_SCHEMA = "arguments_do_not_fit_schema"
    UNKNOWN_TOOL = "unknown_tool"
    """A call names a tool that the row does not offer."""
    TOOLS_NOT_JSON = "tools_not_json"
    INVALID_TOOL = "invalid_tool"
    """A tool without a name, or of another type than function."""
    INVALID_TOOL_SCHEMA = "invalid_tool_schema"
    """A tool's parameters are no valid JSON Schema of an object, or refer to another document."""
    DUPLICATE_TOOL = "duplicate_tool"
    TOOL_RESULT_WITHOUT_CALL = "tool_result_without_call"
    CALL_WITHOUT_RESULT = "call_without_result"
    """Calls of which some have a result and others none, or after which the assistant answers without any."""
    UNKNOWN_KIND = "unknown_kind"
    KIND_DISAGREES = "kind_disagrees"
    """The given kind says tool_call and the last turn has none, or the reverse."""
    LABELS_CONTRADICT = "labels_contradict"
    """Kind and tags cannot both be right: harmful and answered, benign and refused, harmful and benign."""
    NO_ANSWER = "no_answer"
    """The row asks and no accepted answer to it was found, so that there is nothing to learn."""
    TO_AVOID = "to_avoid"
    """The row shows what not to say (KTO); `prefer` alone learns from it."""
    NO_RIVAL = "no_rival"
    """A pair of replies is wanted, and the row prefers none to another."""
    UNPAIRED = "unpaired"
    """A pair of replies is wanted, and the row has one, with a label that calls it good or bad."""
    MISSING_COLUMN = "missing_column"
    """The row holds nothing in a column from which the config takes a field."""
    FUNCTION_FAILED = "function_failed"
    """The function that the config names as the format raised an exception, or gave what JSON cannot hold."""
    LEFT_OUT = "left_out"
    """The function that the config names as the format gave None for the row."""
    DUPLICATE = "duplicate"
    """The same messages and tools as another sample."""
    BEGINNING = "beginning"
    """Another sample begins with the same turns and teaches all that this one does, as in logs of every request."""
    NEAR_DUPLICATE = "near_duplicate"
    """Almost the same messages as another sample (`data.near_duplicate_threshold`)."""


OFFERED_NONE = "offered: none"
"""How the refusal of a call ends in a row without tools."""
REPEATED = frozenset({Reason.DUPLICATE, Reason.BEGINNING, Reason.NEAR_DUPLICATE})
"""Reasons that say nothing against a row: it would be a good one if another did not teach the same."""
NOT_BAD = REPEATED | {Reason.LEFT_OUT, Reason.TO_AVOID}
"""Reasons that `data.max_quarantine_rate` does not count."""


class RowRejected(Exception):
    """One row cannot become a sample: the code that the quarantine counts, and what is wrong in one clause.

    Caught where rows are collected, never shown as a traceback.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


def parse_or_reject(text: str, reason: Reason, what: str) -> Any:
    """The value of a strict JSON text, or RowRejected for `reason`; `what` begins the detail, such as "`tools` is"."""
    try:
        return parse(text)
    except StrictJsonError as error:
        raise RowRejected(reason, f"{what} {error}") from None


def parse_printed_or_reject(text: str, reason: Reason, what: str) -> Any:
    """As `parse_or_reject`; the text may also be a dict or list as Python prints it, such as a cell of pandas."""
    try:
        return parse_json_or_literal(text)
    except StrictJsonError as error:
        raise RowRejected(reason, f"{what} {error}") from None


class Reasons:
    """How often something was found, with the first place of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        """Count one finding."""
        self._counts[reason] += 1
        self._examples.setdefault(reason, example)

    def add_row(self, row: QuarantinedRow) -> None:
        """Count a row of the quarantine."""
        place = row.source if row.line is None else f"{row.source}:{row.line}"
        self.add(row.reason, f"{place}: {row.detail}")

    def counts(self) -> dict[str, ReasonCount]:
        """By reason, in alphabetical order."""
        examples = self._examples
        return {code: ReasonCount(count=n, example=examples[code]) for code, n in sorted(self._counts.items())}


class Quarantine:
    """Writes refused rows as they come and counts their reasons."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.reasons = Reasons()

    def add(self, row: QuarantinedRow) -> None:
        """Set one row aside."""
        self._file.write(dump_line(row) + "\n")
        self.reasons.add_row(row)
