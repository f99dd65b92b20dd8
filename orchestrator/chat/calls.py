"""What the formats share: strict JSON inside a reply, and the call that an object stands for."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from orchestrator.chat.reply import ParseFault, ParseProblem
from orchestrator.core.records import FunctionCall, ToolCall
from orchestrator.notation.strict_json import MAX_DEPTH, StrictJsonError, first_fault, parse_marked_prefix

MAX_NESTING = MAX_DEPTH
"""Levels of arrays and objects a call may have (RFC 8259 section 9 allows a limit): no tool needs more, and everything
that later walks the arguments stays far from Python's recursion limit."""

JSON_SPACE = " \t\n\r"
_JSON_SPACES = re.compile(f"[{JSON_SPACE}]*+")
_DETAIL_CHARS = 120


class Found(NamedTuple):
    """What one format finds in a reply without its think block."""

    calls: tuple[ToolCall, ...] = ()
    problems: tuple[ParseProblem, ...] = ()
    prose: str = ""


class Decoded(NamedTuple):
    """The JSON value at a place of a reply.

    `end` is the place after it. With broken syntax there is no value, `is_read` is False and `end` is where it should
    have begun. A value with another fault may hold marks in place of what is not JSON.
    """

    value: Any
    end: int
    fault: ParseProblem | None
    is_read: bool = True


def decode_value(text: str, start: int, marks: re.Pattern[str] | None = None) -> Decoded:
    """Decode the JSON value at `start`, white space passed over.

    `marks` are where the next call may begin or this one end. No text after the next mark is looked at, unless that
    mark lies in a string of the value: so that a reply of many broken calls is read in linear time.
    """
    begin = skip_space(text, start)
    stop = _next_mark(text, begin, marks)
    while True:
        try:
            value, length = parse_marked_prefix(text[begin:stop])
        except StrictJsonError as error:
            if error.ends_in_string and stop < len(text):
                # At least twice as far each time, so that what is read again adds up to no more than a constant factor.
                stop = _next_mark(text, begin + 2 * (stop - begin), marks)
                continue
            reason: ParseFault = "not_strict_json" if error.fault.code == "too_deep" else "not_json"
            return Decoded(None, begin, problem(reason, error.fault.detail), is_read=False)
        fault = first_fault(value)
        return Decoded(value, begin + length, problem("not_strict_json", fault.detail) if fault else None)


def skip_space(text: str, start: int) -> int:
    """The first place from `start` on that holds no white space of JSON."""
    spaces = _JSON_SPACES.match(text, start)
    return spaces.end() if spaces else start


def _next_mark(text: str, start: int, marks: re.Pattern[str] | None) -> int:
    mark = marks.search(text, start) if marks else None
    return mark.start() if mark else len(text)


def as_call(
    value: object, *, name_keys: tuple[str, ...] = ("name",), arguments_keys: tuple[str, ...] = ("arguments",)
) -> ToolCall | ParseProblem:
    """The call that a JSON value stands for: an object of exactly one of `name_keys` and one of `arguments_keys`."""
    if not isinstance(value, dict):
        return not_a_call(f"a call is an object, not {json_type(value)}")
    names = [key for key in name_keys if key in value]
    arguments = [key for key in arguments_keys if key in value]
    if len(value) != 2 or len(names) != 1 or len(arguments) != 1:
        wanted = f"{' or '.join(name_keys)} and {' or '.join(arguments_keys)}"
        return not_a_call(f"a call has the keys {wanted}, not {clip(', '.join(sorted(value)) or 'none')}")
    return named_call(value[names[0]], value[arguments[0]])


def named_call(name: object, arguments: object, *, id: str | None = None) -> ToolCall | ParseProblem:
    """The call of a name and arguments, or what is wrong with either."""
    if not isinstance(name, str) or not name:
        return not_a_call("name is a non-empty string")
    if not isinstance(arguments, dict):
        return not_a_call(f"arguments are an object, not {json_type(arguments)}")
    return ToolCall(id=id, function=FunctionCall(name=name, arguments=arguments))


def sorted_out(attempts: Iterable[ToolCall | ParseProblem], prose: str = "") -> Found:
    """Attempts at calls, divided into calls and problems."""
    all_of_them = tuple(attempts)
    calls = tuple(attempt for attempt in all_of_them if isinstance(attempt, ToolCall))
    return Found(calls, tuple(attempt for attempt in all_of_them if isinstance(attempt, ParseProblem)), prose)


def text_beside(before: str, after: str) -> ParseProblem:
    """The problem of text before or after calls that stand alone in their format."""
    where, words = ("before", before) if before.strip() else ("after", after)
    return problem("text_beside_call", f"{where} the call stands {clip(words.strip())}")


def not_a_call(detail: str) -> ParseProblem:
    """The problem of well-formed text that is no call."""
    return problem("not_a_call_object", detail)


def problem(reason: ParseFault, detail: str) -> ParseProblem:
    """A problem whose detail can be written as UTF-8."""
    return ParseProblem(reason=reason, detail=without_lone_surrogates(detail))


def json_type(value: object) -> str:
    """The type of a JSON value, with its article."""
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def clip(text: str) -> str:
    """The beginning of a text as a quotation."""
    return repr(text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS] + "...")


def without_lone_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate; two halves that belong together become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
