"""Are the calls of a reply valid, and are they the expected calls?

What neither question covers: whether a free-text argument means the same as the expected one ("NYC" and "New York"
differ), whether leaving out an optional argument that has a default comes to the same, and `format` keywords of a
schema, which JSON Schema treats as remarks. A regular expression that cannot be searched for in bounded time makes its
schema invalid here, as it does in the data.
"""

import json
from collections import Counter
from collections.abc import Sequence

from evals.records import FailureReason, ParsedReply, Problem
from orchestrator.data.quality import schema_validator
from orchestrator.records import JsonObject, ToolCall, ToolSpec

_DETAIL_CHARS = 300


def check_calls(reply: ParsedReply, tools: Sequence[ToolSpec]) -> Problem | None:
    """The first reason why the calls of `reply` are not valid, or None when all are.

    The ladder: there is a call; every attempt at a call parsed; every call names an offered tool; every call's
    arguments fit that tool's `parameters`, by the same validator that checked the data (`schema_validator`: the dialect
    that `$schema` names, else Draft 2020-12; `1.0` is an integer; nothing is ever fetched). A tool whose own schema
    cannot be used gives `tool_schema_is_invalid`, never an error. Where two tools have one name, the first counts.
    """
    if reply.problems:
        return reply.problems[0]
    if not reply.calls:
        return _problem("no_call", f"the reply makes no call: {reply.prose!r}" if reply.prose else "the reply is empty")
    parameters = {tool.function.name: tool.function.parameters for tool in reversed(tools)}
    for call in reply.calls:
        problem = _check_call(call, parameters)
        if problem is not None:
            return problem
    return None


def match_calls(calls: Sequence[ToolCall], expected: Sequence[ToolCall]) -> Problem | None:
    """The first difference between `calls` and `expected`, or None when they are the same calls in any order.

    Calls are the same when their names are equal and their arguments are equal as JSON values: objects without regard
    to the order of keys, arrays in order, numbers by value (`1` equals `1.0`), strings exactly; `true` is not `1`. A
    call made twice must be expected twice. Call ids do not count.
    """
    if len(calls) != len(expected):
        return _problem("wrong_number_of_calls", f"{len(calls)} calls where {len(expected)} are expected")
    names = Counter(call.function.name for call in calls)
    expected_names = Counter(call.function.name for call in expected)
    if names != expected_names:
        surplus = ", ".join(sorted((names - expected_names).elements()))
        missing = ", ".join(sorted((expected_names - names).elements()))
        return _problem("wrong_tool", f"calls {surplus} where {missing} is expected")
    # Equality of JSON values is transitive, so if there is a pairing, taking the first equal call finds one.
    unmatched = list(expected)
    for call in calls:
        twin = next((position for position, other in enumerate(unmatched) if _is_same_call(call, other)), None)
        if twin is None:
            return _wrong_arguments(call, unmatched)
        del unmatched[twin]
    return None


def json_equal(left: object, right: object) -> bool:
    """Whether two JSON values are equal: numbers by value, booleans apart from numbers, objects without order."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(json_equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(json_equal(a, b) for a, b in zip(left, right, strict=True))
    return left == right


def _is_same_call(left: ToolCall, right: ToolCall) -> bool:
    same_name = left.function.name == right.function.name
    return same_name and json_equal(left.function.arguments, right.function.arguments)


def _wrong_arguments(call: ToolCall, unmatched: Sequence[ToolCall]) -> Problem:
    name, arguments = call.function.name, call.function.arguments
    wanted: JsonObject = next((other.function.arguments for other in unmatched if other.function.name == name), {})
    differing = sorted(
        key
        for key in arguments.keys() | wanted.keys()
        if key not in arguments or key not in wanted or not json_equal(arguments[key], wanted[key])
    )
    differences = "; ".join(
        f"{key}: {_shown(arguments, key)} where {_shown(wanted, key)} is expected" for key in differing
    )
    return _problem("wrong_arguments", f"{name}: {differences or 'called more often than expected'}")


def _shown(arguments: JsonObject, key: str) -> str:
    return json.dumps(arguments[key], ensure_ascii=False) if key in arguments else "nothing"


def _check_call(call: ToolCall, parameters: dict[str, JsonObject]) -> Problem | None:
    name = call.function.name
    if name not in parameters:
        offered = ", ".join(sorted(parameters)) or "none"
        return _problem("unknown_tool", f"{name!r} is not offered; offered: {offered}")
    validator = schema_validator(json.dumps(parameters[name], sort_keys=True))
    if isinstance(validator, str):
        return _problem("tool_schema_is_invalid", f"{name}: {validator}")
    # A schema is foreign data, and a reference in it can lead the validator anywhere (a loop, a non-schema): whatever
    # it raises says that this schema cannot be used, and must not end the evaluation of the other cases.
    try:
        error = validator.error(call.function.arguments)
    except Exception as invalid:  # noqa: BLE001 - foreign schemas, see above
        return _problem("tool_schema_is_invalid", f"{name}: {type(invalid).__name__}: {invalid}")
    if error is None:
        return None
    return _problem("arguments_do_not_fit_schema", f"{name}{error.json_path[1:]}: {error.message}")


def _problem(reason: FailureReason, detail: str) -> Problem:
    return Problem(reason=reason, detail=detail if len(detail) <= _DETAIL_CHARS else detail[:_DETAIL_CHARS] + "...")
