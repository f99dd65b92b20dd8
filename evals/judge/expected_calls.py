"""Are the calls of a reply the calls that the data expects, and how many arguments are right?

Two calls are the same when their names are equal and their arguments are equal as JSON values (`values_match`). An
argument that the tool does not require, and whose schema gives a `default`, may be left out or given where the default
is expected. Not covered: whether a text means the same as another ("NYC" and "New York" differ), defaults inside an
argument or behind a `$ref`, and that `[1]` may mean the same as `1`.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from evals.records import FailureReason, Problem
from orchestrator.core.records import JsonObject, ToolCall
from orchestrator.notation.strict_json import json_equal

RELATIVE_TOLERANCE = 1e-9
"""By how much two numbers may differ, relative to the larger, if one of them is not whole: more than printing a double
with 10 digits and reading it again changes it, less than any difference that a user means."""

_DETAIL_CHARS = 300
_NO_VALUE = object()


class ArgumentCounts(NamedTuple):
    """How many arguments are expected, how many are given, and how many of these are right."""

    expected: int = 0
    given: int = 0
    right: int = 0

    def plus(self, other: "ArgumentCounts") -> "ArgumentCounts":
        """The counts of both together."""
        return ArgumentCounts(self.expected + other.expected, self.given + other.given, self.right + other.right)


def best_pairs(worth: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The pairs (row, column), each row and column in one at most, that are worth most together.

    `worth` has a row for each given call and a column for each wanted call; 0 for two that are no pair.
    """
    if len(worth) == 1 and len(worth[0]) == 1:
        return [(0, 0)] if worth[0][0] else []
    rows, columns = linear_sum_assignment(np.array(worth, dtype=float), maximize=True)
    return [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if worth[row][column]]


def count_arguments(
    given: Sequence[int], expected: Sequence[int], pairs: Sequence[Sequence[ArgumentCounts | None]]
) -> ArgumentCounts:
    """The counts over all calls, paired so that as many arguments as possible are right.

    Among pairings with equally many right arguments the one with more pairs counts, then the one that expects and gives
    fewer, so that the counts do not depend on the order of the calls.

    Args:
        given: For each given call its number of arguments, as they count where the call stands for no wanted one.
        expected: For each wanted call the number of arguments that it must have.
        pairs: `pairs[i][j]` counts given call `i` as wanted call `j`; None where they are calls of different tools.
    """
    if not given or not expected:
        return ArgumentCounts(sum(expected), sum(given), 0)
    base = 1 + sum(given) + sum(expected)
    worth = [
        [_worth(pair, ArgumentCounts(wanted, alone), base) for wanted, pair in zip(expected, row, strict=True)]
        for alone, row in zip(given, pairs, strict=True)
    ]
    total, unpaired_given, unpaired_expected = ArgumentCounts(), dict(enumerate(given)), dict(enumerate(expected))
    for row, column in best_pairs(worth):
        pair = pairs[row][column]
        assert pair is not None, "only calls of one tool are worth a pair"
        total = total.plus(pair)
        del unpaired_given[row], unpaired_expected[column]
    return total.plus(ArgumentCounts(sum(unpaired_expected.values()), sum(unpaired_given.values())))


def _worth(pair: ArgumentCounts | None, apart: ArgumentCounts, base: int) -> int:
    """What a pair is worth: first the right arguments, then that it is one, then how little it expects and gives."""
    if pair is None:
        return 0
    return pair.right * base**3 + base**2 - (pair.expected - apart.expected) * base - (pair.given - apart.given)


def match_expected(
    calls: Sequence[ToolCall], expected: Sequence[ToolCall], schemas: dict[str, JsonObject]
) -> Problem | None:
    """The first difference between `calls` and `expected`, or None when they are the same calls in any order.

    A call made twice must be expected twice; call ids do not count. The reasons are those that the Berkeley Function
    Calling Leaderboard gives for the like: with one expected call what is wrong with the given one, with several that
    no call matches. `schemas` has the parameters of each offered tool.
    """
    if len(calls) != len(expected):
        return wrong_count(len(calls), len(expected), num_tools=len(schemas))
    if len(expected) == 1:
        return _difference(calls[0], expected[0], schemas)
    same = [[_difference(call, other, schemas) is None for other in expected] for call in calls]
    if not expected or len(best_pairs(same)) == len(expected):
        return None
    return cannot_find_match(_first_difference(calls, expected, schemas))


def wrong_count(num_calls: int, num_expected: int, *, num_tools: int) -> Problem:
    """That there are too many or too few calls."""
    detail = f"{num_calls} calls where {num_expected} are expected"
    if num_expected > 1:
        return problem("parallel_function_checker_no_order:wrong_count", detail)
    if num_tools > 1:
        return problem("multiple_function_checker:wrong_count", detail)
    return problem("simple_function_checker:wrong_count", detail)


def cannot_find_match(detail: str) -> Problem:
    """That one of several expected calls is not among the given ones."""
    return problem("parallel_function_checker_no_order:cannot_find_match", detail)


def problem(reason: FailureReason, detail: str) -> Problem:
    """A problem whose detail is cut to what a report can show."""
    return Problem(reason=reason, detail=detail if len(detail) <= _DETAIL_CHARS else detail[:_DETAIL_CHARS] + "...")


def shown(value: object) -> str:
    """A value of a call, as JSON where it is JSON."""
    return json.dumps(value, ensure_ascii=False, default=repr)


def values_match(left: object, right: object) -> bool:
    """Whether two JSON values are equal, numbers up to `RELATIVE_TOLERANCE` unless both are whole."""
    return json_equal(left, right, relative_tolerance=RELATIVE_TOLERANCE)


def count_expected(call: ToolCall, expected: ToolCall, schemas: dict[str, JsonObject]) -> ArgumentCounts | None:
    """The arguments of a call, counted as those of an expected call; None for a call of another tool.

    An argument that is given or expected on one side alone and equals its default is not counted.
    """
    if call.function.name != expected.function.name:
        return None
    given, wanted = call.function.arguments, expected.function.arguments
    defaults = _defaults(schemas.get(call.function.name, {}))
    missing = [name for name in wanted if name not in given and not _is_default(name, wanted, defaults)]
    surplus = [name for name in given if name not in wanted and not _is_default(name, given, defaults)]
    both = [name for name in wanted if name in given]
    right = sum(values_match(given[name], wanted[name]) for name in both)
    return ArgumentCounts(len(both) + len(missing), len(both) + len(surplus), right)


def _difference(call: ToolCall, expected: ToolCall, schemas: dict[str, JsonObject]) -> Problem | None:
    """What keeps a call from being the expected one."""
    name, given, wanted = call.function.name, call.function.arguments, expected.function.arguments
    if name != expected.function.name:
        detail = f"calls {name} where {expected.function.name} is expected"
        return problem("simple_function_checker:wrong_func_name", detail)
    schema = schemas.get(name, {})
    required, defaults = _required(schema), _defaults(schema)
    absent = [key for key in wanted if key not in given and not _is_default(key, wanted, defaults)]
    for key in absent:
        if key in required:
            return _absent("simple_function_checker:missing_required", name, key, wanted)
    for key, value in given.items():
        if key not in wanted and not _is_default(key, given, defaults):
            detail = f"{name}: {key}: {shown(value)} where nothing is expected"
            return problem("simple_function_checker:unexpected_param", detail)
        if key in wanted and not values_match(value, wanted[key]):
            detail = f"{name}: {key}: {shown(value)} where {shown(wanted[key])} is expected"
            return problem(_reason(value, wanted[key]), detail)
    return _absent("simple_function_checker:missing_optional", name, absent[0], wanted) if absent else None


def _absent(reason: FailureReason, name: str, key: str, wanted: JsonObject) -> Problem:
    return problem(reason, f"{name}: {key}: nothing where {shown(wanted[key])} is expected")


def _reason(given: object, wanted: object) -> FailureReason:
    """The name of the difference between two values that are not equal."""
    kind = _kind(wanted)
    if _kind(given) != kind:
        return "type_error:simple"
    if isinstance(wanted, dict) and isinstance(given, dict):
        return "value_error:dict_key" if given.keys() != wanted.keys() else "value_error:dict_value"
    if isinstance(wanted, list | tuple) and isinstance(given, list | tuple):
        if any(_kind(a) != _kind(b) for a, b in zip(given, wanted, strict=False)):
            return "type_error:nested"
        of_objects = bool(wanted) and all(isinstance(item, dict) for item in wanted)
        return "value_error:list_dict_count" if of_objects and len(given) != len(wanted) else "value_error:list/tuple"
    return "value_error:string" if kind == "string" else "value_error:others"


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list | tuple):
        return "array"
    return "string" if isinstance(value, str) else "object" if isinstance(value, dict) else "null"


def _first_difference(calls: Sequence[ToolCall], expected: Sequence[ToolCall], schemas: dict[str, JsonObject]) -> str:
    names, expected_names = (Counter(call.function.name for call in side) for side in (calls, expected))
    if names != expected_names:
        surplus = ", ".join(sorted((names - expected_names).elements()))
        missing = ", ".join(sorted((expected_names - names).elements()))
        return f"calls {surplus} where {missing} is expected"
    for wanted in expected:
        differences = [_difference(call, wanted, schemas) for call in calls]
        named = [
            found for found, call in zip(differences, calls, strict=True) if call.function.name == wanted.function.name
        ]
        if all(named):
            return "; ".join(found.detail for found in named if found)
    return "a call is made more often than expected"


def _required(schema: JsonObject) -> Sequence[str]:
    required = schema.get("required")
    return required if isinstance(required, list) else ()


def _defaults(schema: JsonObject) -> JsonObject:
    """The defaults of the parameters that may be left out."""
    properties, required = schema.get("properties"), _required(schema)
    if not isinstance(properties, dict):
        return {}
    return {
        name: part["default"]
        for name, part in properties.items()
        if isinstance(part, dict) and "default" in part and name not in required
    }


def _is_default(name: str, arguments: JsonObject, defaults: JsonObject) -> bool:
    return values_match(arguments[name], defaults.get(name, _NO_VALUE))
