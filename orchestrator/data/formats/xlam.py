"""xLAM function calling 60k: `query`, `tools` and `answers`, the latter two as JSON text or as lists.

Parameters are described without a schema around them, by Python types (see `loose_schema`). Argument values are left
as they are: a number written as text for a parameter of type `int` is for the schema check to refuse.
"""

from orchestrator.core.records import JsonObject, Message
from orchestrator.data.formats.common import COMMON_FIELDS, Draft, Format, by_fields, short
from orchestrator.data.formats.loose_schema import declared_call, offered_tools, read_tools
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject


def read_xlam(row: JsonObject) -> Draft:
    """The question of an xLAM row and the calls that answer it. A row without a call is refused as NO_ANSWER."""
    query = row.get("query")
    if not isinstance(query, str):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`query` is {short(query)}, not text")
    offered = offered_tools(read_tools(row))
    answers = row.get("answers")
    if isinstance(answers, str) and answers.strip():
        answers = parse_or_reject(answers, Reason.CALL_NOT_JSON, "`answers` is")
    if answers is None or answers in ("", []):
        raise RowRejected(Reason.NO_ANSWER, "`answers` holds no call to learn; in a suite, such a row is a case")
    if not isinstance(answers, (list, dict)):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`answers` is {short(answers)}, not a list of calls")
    given = [answers] if isinstance(answers, dict) else answers
    calls = tuple(declared_call(call, offered, f"answer {number}") for number, call in enumerate(given, start=1))
    messages = [Message(role="user", content=query), Message(role="assistant", tool_calls=calls)]
    return Draft(messages=messages, tools=offered.specs, original_names=offered.original_names)


FORMAT = Format(
    read_xlam,
    COMMON_FIELDS | {"query", "answers"},
    hint=("query", "answers", "tools"),
    recognise=by_fields("query", "answers"),
    precedence=3,
)
