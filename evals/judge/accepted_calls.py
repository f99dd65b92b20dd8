"""Is a call one that the Berkeley Function Calling Leaderboard accepts?

The verdicts and their codes are those of the leaderboard's own checker (`bfcl-eval` 2026.3.23), given the same calls:
`benchmarks/bfcl_agreement.py` compares the two. What that checker does not look at is not looked at here either. It
compares texts without regard to case, spaces and the marks `,./-_*^`, and an array's items and an object's values so
at one level only; it takes whole numbers where a `float` is declared, at the top level only; it takes a value of the
type of the first accepted one whatever type is declared, and then compares without any such regard; with several
accepted calls, the first call that fits an accepted one is taken for it, though another pairing might fit all.

Where that checker breaks off with an exception, there is a verdict here: an accepted value that cannot be compared (a
number among accepted lists) is passed over, and text given for a list of objects that may be absent is not accepted.
Its code `dict_checker:unclear`, for an object where only absence is accepted, is `value_error:dict_key` here.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from evals.judge.expected_calls import ArgumentCounts, cannot_find_match, problem, shown, wrong_count
from evals.records import AcceptedCall, FailureReason, Problem
from orchestrator.core.records import JsonObject, ToolCall
from orchestrator.notation.source_literals import read_java, read_javascript

MAY_BE_ABSENT = ""
"""The accepted value that says that the parameter may be left out."""


def _types(words: Mapping[type, str]) -> dict[str, type]:
    return {word: kind for kind, names in words.items() for word in names.split()} | {"any": str}


_PYTHON = _types({str: "string", int: "integer", float: "float", bool: "boolean", list: "array tuple", dict: "dict"})
_JAVA = _types(
    {
        str: "char String",
        int: "byte short integer long",
        float: "float double",
        bool: "boolean",
        list: "Array ArrayList",
        dict: "HashMap",
    }
)
_JAVASCRIPT = _types(
    {str: "String", int: "integer Bigint", float: "float", bool: "Boolean", list: "array", dict: "dict"}
)
TYPE_WORDS: Mapping[str, Mapping[str, type]] = {"python": _PYTHON, "java": _JAVA, "javascript": _JAVASCRIPT}
"""For each language the type words that the leaderboard knows, and the type of a value of each."""

ITEM_WORDS = frozenset({"array", "tuple", "Array", "ArrayList"})
"""The type words beside which the type of the items is declared."""

_IGNORED = str.maketrans("", "", " ,./-_*^")


def match_accepted(calls: Sequence[ToolCall], accepted: Sequence[AcceptedCall], *, num_tools: int) -> Problem | None:
    """The first reason why `calls` are not the accepted ones (at least one), or None when they are, in any order.

    Calls go by the names that the tools are offered under. The leaderboard names a wrong count after `num_tools`, how
    many tools are offered.
    """
    if len(calls) != len(accepted):
        return wrong_count(len(calls), len(accepted), num_tools=num_tools)
    if len(accepted) == 1:
        return call_problem(calls[0], accepted[0])
    remaining = list(calls)
    for wanted in accepted:
        problems = [call_problem(call, wanted) for call in remaining]
        if None not in problems:
            named = [found.detail for found in problems if found and not found.reason.endswith(":wrong_func_name")]
            return cannot_find_match("; ".join(named) or f"no call of {wanted.name} is left")
        del remaining[problems.index(None)]
    return None


def call_problem(call: ToolCall, accepted: AcceptedCall) -> Problem | None:
    """The first reason why a call is not an accepted one, or None."""
    name, arguments = call.function.name, call.function.arguments
    if name != accepted.name:
        detail = f"calls {name} where {accepted.name} is expected"
        return problem("simple_function_checker:wrong_func_name", detail)
    for parameter in accepted.required:
        if parameter not in arguments:
            return problem("simple_function_checker:missing_required", f"{name}: {parameter}: nothing is given")
    for parameter, value in arguments.items():
        found = argument_problem(parameter, value, accepted)
        if found is not None:
            return found
    for parameter, values in accepted.arguments.items():
        if parameter not in arguments and MAY_BE_ABSENT not in values:
            detail = f"{name}: {parameter}: nothing where {_choices(values)} is expected"
            return problem("simple_function_checker:missing_optional", detail)
    return None


def count_accepted(call: ToolCall, accepted: AcceptedCall) -> ArgumentCounts | None:
    """The arguments of a call, counted as those of an accepted call; None for a call of another tool.

    A parameter that may be absent is expected only where it is given.
    """
    if call.function.name != accepted.name:
        return None
    given = call.function.arguments
    expected = sum(name in given or name in must_be_given(accepted) for name in accepted.arguments)
    right = sum(argument_problem(name, value, accepted) is None for name, value in given.items())
    return ArgumentCounts(expected, len(given), right)


def must_be_given(accepted: AcceptedCall) -> list[str]:
    """The parameters that may not be absent from a call."""
    needed = set(accepted.required)
    return [name for name, values in accepted.arguments.items() if name in needed or MAY_BE_ABSENT not in values]


def argument_problem(name: str, value: Any, accepted: AcceptedCall) -> Problem | None:
    """Why one argument is not an accepted one, or None."""
    where = f"{accepted.name}: {name}"
    if name not in accepted.types or name not in accepted.arguments:
        return problem("simple_function_checker:unexpected_param", f"{where}: {shown(value)} where nothing is expected")
    word, item_word, choices = accepted.types[name], accepted.item_types.get(name), accepted.arguments[name]
    words = TYPE_WORDS[accepted.language]
    kind, item_kind = words[word], None if item_word is None else words[item_word]
    if accepted.language != "python" and not isinstance(value, str):
        reason: FailureReason = "type_error:java" if accepted.language == "java" else "type_error:js"
        return problem(reason, f"{where}: {shown(value)} is not source text")
    value = _meant(value, word, item_word, accepted.language)
    first_kind = _first_kind(choices)
    mistyped = _type_reason(value, choices, kind, item_kind)
    if mistyped is not None:
        of_items = f" of {item_word}" if item_word else ""
        return problem(mistyped, f"{where}: {shown(value)} where {word}{of_items} is expected")
    if type(value) is kind and first_kind in (None, kind):
        wrong = _value_reason(value, choices, item_kind)
    else:
        wrong = None if value in choices else "value_error:others"
    return None if wrong is None else problem(wrong, f"{where}: {shown(value)} where {_choices(choices)} is expected")


def _choices(values: Sequence[Any]) -> str:
    return " or ".join(shown(value) for value in values) or "nothing"


def _meant(value: Any, word: str, item_word: str | None, language: str) -> Any:
    """The value that is compared: source text as what it stands for, a tuple as a list, a whole number as a float."""
    if language == "java":
        return read_java(value, word, item_word)
    if language == "javascript":
        return read_javascript(value, word, item_word)
    if word == "tuple" and isinstance(value, tuple):
        return list(value)
    if word == "float" and type(value) is int and value.bit_length() < sys.float_info.max_exp:
        return float(value)
    return value


def _first_kind(choices: Sequence[Any]) -> type | None:
    """The type of the first accepted value; a variable or expression as text has another than the declared one."""
    return next((type(choice) for choice in choices if choice != MAY_BE_ABSENT), None)


def _type_reason(
    value: Any, choices: Sequence[Any], kind: type[Any], item_kind: type[Any] | None
) -> FailureReason | None:
    """Why a value's type is neither the declared one nor that of the first accepted value, or None."""
    is_first_kind = type(value) is _first_kind(choices)
    if type(value) is not kind:
        return None if is_first_kind else "type_error:simple"
    if item_kind is None or any(_items_fit(value, choice, item_kind) for choice in choices):
        return None
    return "type_error:nested" if is_first_kind else "type_error:simple"


def _items_fit(items: Sequence[Any], choice: Any, item_kind: type) -> bool:
    """Whether all items have the declared type, or that of the first item of an accepted list."""
    if not isinstance(choice, list):
        return True
    first_kind = _first_kind(choice)
    return all(type(item) is item_kind or type(item) is first_kind for item in items)


def _value_reason(value: Any, choices: Sequence[Any], item_kind: type | None) -> FailureReason | None:
    """Why a value of the declared type is none of the accepted ones, or None."""
    if isinstance(value, dict):
        return _object_reason(value, choices)
    if isinstance(value, list) and item_kind is dict:
        return _objects_reason(value, choices)
    if isinstance(value, str):
        texts = [_plain(choice) for choice in choices if isinstance(choice, str)]
        return None if _plain(value) in texts else "value_error:string"
    if isinstance(value, list):
        items = _plain_items(value)
        # An accepted text among accepted lists is the list of its characters: "" is the empty list.
        lists = (choice for choice in choices if isinstance(choice, list | str))
        return None if any(items == _plain_items(choice) for choice in lists) else "value_error:list/tuple"
    return None if value in choices else "value_error:others"


def _object_reason(given: JsonObject, choices: Sequence[Any]) -> FailureReason | None:
    """Why an object is none of the accepted ones: the reason of the last of them, or None."""
    reason: FailureReason | None = "value_error:dict_key"
    for choice in choices:
        if isinstance(choice, dict):
            reason = _members_reason(given, choice)
            if reason is None:
                return None
    return reason


def _members_reason(given: JsonObject, choice: JsonObject) -> FailureReason | None:
    accepted = {key: values if isinstance(values, list | str) else [] for key, values in choice.items()}
    if any(key not in given and MAY_BE_ABSENT not in values for key, values in accepted.items()):
        return "value_error:dict_key"
    for key, value in given.items():
        if key not in accepted:
            return "value_error:dict_key"
        if _plain(value) not in _plain_items(accepted[key]):
            return "value_error:dict_value"
    return None


def _objects_reason(given: Sequence[Any], choices: Sequence[Any]) -> FailureReason | None:
    """Why a list of objects is none of the accepted ones, in their order: the reason of the last, or None."""
    reason: FailureReason | None = "value_error:list_dict_count"
    for choice in choices:
        if not isinstance(choice, list | str) or len(given) != len(choice):
            reason = "value_error:list_dict_count"
            continue
        pairs = zip(given, choice, strict=True)
        reasons = (_object_reason(a, [b]) if isinstance(a, dict) else "value_error:dict_value" for a, b in pairs)
        reason = next((found for found in reasons if found is not None), None)
        if reason is None:
            return None
    return reason


def _plain_items(values: Sequence[Any]) -> list[Any]:
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A text as it is compared: small letters, double quotes, no spaces and none of `,./-_*^`; other values as is."""
    return value.translate(_IGNORED).lower().replace("'", '"') if isinstance(value, str) else value
