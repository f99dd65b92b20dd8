"""MCP: a tools/list result, what the user asks, and the `tools/call` requests that are expected.

A row is one that `orchestrator.data.formats.mcp` reads, with two additions that only a case can have. `expected` may
stand beside `messages` or `session`: it is then the reply to them. And it may be an empty list: no call is expected.
"""

from typing import Any

from evals.cases.conversations import read_row as read_conversation
from evals.cases.samples import Turns
from evals.records import NO_CALL_SUFFICES, Case
from orchestrator.core.records import NO_FITTING_TOOL, JsonObject
from orchestrator.data.formats.mcp import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import StrictJsonError, parse

_EXPECTED = "expected"
_STAND_IN = "No call is expected."
"""What the assistant says in place of a call, so that a row without one is read like any other."""


def is_mcp_case(row: JsonObject) -> bool:
    """Whether a row says what is expected of the tools that it offers."""
    return _EXPECTED in row and row.get("tools") is not None


def read_row(row: JsonObject, *, source: str, turns: Turns = "all") -> list[Case]:
    """The cases of a row.

    Raises:
        RowRejected: If it is no such row, or a call in it names no offered tool or does not fit its schema.
    """
    expected = _parsed(row.get(_EXPECTED))
    rest = {name: value for name, value in row.items() if name != _EXPECTED}
    if expected == []:
        cases = read_conversation({**rest, "answer": _STAND_IN}, row_format="mcp", source=source, turns=turns)
        tags = dict.fromkeys((*cases[-1].tags, NO_FITTING_TOOL, NO_CALL_SUFFICES))
        last = cases[-1].model_copy(update={"kind": "answer", "expected_text": "", "tags": tuple(tags)})
        return [*cases[:-1], last]
    listed = next((name for name in TURN_LISTS if row.get(name) is not None), None)
    if expected is None or listed is None or not isinstance(row[listed], list):
        return read_conversation(row, row_format="mcp", source=source, turns=turns)
    reply = {"role": "assistant", "tool_calls": expected if isinstance(expected, list) else [expected]}
    return read_conversation({**rest, listed: [*row[listed], reply]}, row_format="mcp", source=source, turns=turns)


def _parsed(expected: Any) -> Any:
    if not isinstance(expected, str) or not expected.strip():
        return expected
    try:
        return parse(expected)
    except StrictJsonError as error:
        raise RowRejected(Reason.CALL_NOT_JSON, f"`{_EXPECTED}` is {error}") from None
