"""Strict parsing of replies in the Hermes and Qwen format.

A reply is an optional think block followed by prose and calls:

    <think>...</think> prose <tool_call>{"name": "...", "arguments": {...}}</tool_call>

Nothing is repaired. A client that runs the tool would have to guess what a malformed call means, so a malformed call
is a failure with a reason, and the reason is what a person needs to fix the data or the training.
"""

import json
import math
import re
from typing import NamedTuple, NoReturn

from evals.records import FailureReason, ParsedReply, Problem
from orchestrator.records import FunctionCall, ToolCall

MAX_NESTING = 64
"""Levels of arrays and objects a call may have (RFC 8259 section 9 allows a limit): no tool needs more, and everything
that later walks the arguments stays far from Python's recursion limit."""

_OPEN_CALL = "<tool_call>"
_OPEN_THINK, _CLOSE_THINK = "<think>", "</think>"
_END_OF_TURN = "<|im_end|>"
_CALL_TAG = re.compile(r"</?tool_call>")
_JSON_SPACE = " \t\n\r"
_JSON_SPACES = re.compile(f"[{_JSON_SPACE}]*")
_MAX_DIGITS = 400
_TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"
_DETAIL_CHARS = 120


def parse_reply(text: str) -> ParsedReply:
    """Take a reply apart. Never raises: what is wrong with a reply is in its `problems`.

    A call is accepted when its tag holds one strict JSON object (RFC 8259, no NaN or Infinity, no key twice, no number
    outside the range of a double, no lone surrogate, at most `MAX_NESTING` levels) with exactly `name`, a non-empty
    string, and `arguments`, an object, and nothing else but white space. A closing tag inside a JSON string does not
    end the call.

    Calls inside the think block are thoughts, not calls. A think block that is not closed takes the rest of the reply.
    Lone surrogates in `text` itself become U+FFFD. Not recognised: other call formats, a call whose opening tag is
    missing (it is prose), and think blocks that do not come first (prose).
    """
    thinking, rest = split_thinking(_without_lone_surrogates(text))
    calls: list[ToolCall] = []
    problems: list[Problem] = []
    prose: list[str] = []
    position = 0
    while (opening := rest.find(_OPEN_CALL, position)) >= 0:
        prose.append(rest[position:opening])
        found, position = _read_call(rest, opening + len(_OPEN_CALL))
        if isinstance(found, ToolCall):
            calls.append(found)
        else:
            problems.append(found)
    prose.append(rest[position:])
    return ParsedReply(calls=tuple(calls), prose="".join(prose).strip(), thinking=thinking, problems=tuple(problems))


def split_thinking(text: str) -> tuple[str | None, str]:
    """Divide a reply into its leading think block (None without one) and the rest, without the end-of-turn token.

    A closing tag without an opening one ends a block that the prompt opened, unless a call comes before it.
    """
    text = text.strip().removesuffix(_END_OF_TURN).strip()
    closing = text.find(_CLOSE_THINK)
    if text.startswith(_OPEN_THINK):
        thinking = text[len(_OPEN_THINK) :] if closing < 0 else text[len(_OPEN_THINK) : closing]
        return thinking.strip(), "" if closing < 0 else text[closing + len(_CLOSE_THINK) :].strip()
    if closing < 0 or any(tag in text[:closing] for tag in (_OPEN_CALL, _OPEN_THINK)):
        return None, text
    return text[:closing].strip(), text[closing + len(_CLOSE_THINK) :].strip()


class _Decoded(NamedTuple):
    """A JSON value and the position after it, or what is wrong and the position where it should have begun."""

    value: object
    end: int
    fault: Problem | None


class _NotStrictJsonError(ValueError):
    """JSON that a lenient reader takes and a strict one does not."""


def _read_call(text: str, start: int) -> tuple[ToolCall | Problem, int]:
    """Read the call whose opening tag ends at `start`; also the position from which to read on."""
    decoded = _decode(text, start)
    tag = _CALL_TAG.search(text, decoded.end)
    if tag is None:
        return _problem("unclosed_tag", f"the reply ends inside the call {_clip(text[start:])}"), len(text)
    if tag.group() == _OPEN_CALL:
        return _problem("unclosed_tag", "another call begins before this one is closed"), tag.start()
    if decoded.fault is not None:
        return decoded.fault, tag.end()
    trailing = text[decoded.end : tag.start()].strip(_JSON_SPACE)
    if trailing:
        return _problem("text_inside_tag", f"after the call stands {_clip(trailing)}"), tag.end()
    return _as_call(decoded.value), tag.end()


def _decode(text: str, start: int) -> _Decoded:
    """Decode the JSON value at `start`, looking past the next tag only when that tag lies in a string of the value.

    The decoder gets no more text than it needs, because the cost of a syntax error grows with the text around it.
    """
    spaces = _JSON_SPACES.match(text, start)
    begin = spaces.end() if spaces else start
    tag = _CALL_TAG.search(text, begin)
    try:
        try:
            value, length = _DECODER.raw_decode(text[begin : tag.start() if tag else len(text)])
        except json.JSONDecodeError as error:
            if tag is None or not error.msg.startswith("Unterminated string"):
                raise
            value, length = _DECODER.raw_decode(text[begin:])
        _check_values(value)
    except json.JSONDecodeError as error:
        return _Decoded(None, begin, _problem("not_json", f"{error.msg} at character {error.pos}"))
    except _NotStrictJsonError as error:
        return _Decoded(None, begin, _problem("not_strict_json", str(error)))
    except RecursionError:
        return _Decoded(None, begin, _problem("not_strict_json", _TOO_DEEP))
    return _Decoded(value, begin + length, None)


def _as_call(value: object) -> ToolCall | Problem:
    if not isinstance(value, dict):
        return _problem("not_a_call_object", f"a call is an object, not {_json_type(value)}")
    if set(value) != {"name", "arguments"}:
        keys = ", ".join(sorted(value)) or "none"
        return _problem("not_a_call_object", f"a call has the keys name and arguments, not {_clip(keys)}")
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not name:
        return _problem("not_a_call_object", "name is a non-empty string")
    if not isinstance(arguments, dict):
        return _problem("not_a_call_object", f"arguments are an object, not {_json_type(arguments)}")
    return ToolCall(function=FunctionCall(name=name, arguments=arguments))


def _check_values(value: object) -> None:
    """Refuse JSON that cannot be kept: too deep, or with strings that are not Unicode text. Does not recurse."""
    layer = [value]
    for level in range(MAX_NESTING + 1):
        inner: list[object] = []
        for item in layer:
            if isinstance(item, str) and not _is_text(item):
                raise _NotStrictJsonError("a string holds a lone surrogate")
            if isinstance(item, dict | list) and level == MAX_NESTING:
                raise _NotStrictJsonError(_TOO_DEEP)
            if isinstance(item, dict):
                inner.extend(item.values())
            if isinstance(item, dict | list):
                inner.extend(item)
        layer = inner


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _NotStrictJsonError("a key occurs twice in one object")
    return members


def _no_constant(name: str) -> NoReturn:
    raise _NotStrictJsonError(f"{name} is not a JSON value")


def _number_in_range(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _NotStrictJsonError("a number is outside the range of a double")
    return number


def _integer_in_range(literal: str) -> int:
    # The length first: Python refuses to convert integers of more than 4300 digits.
    if len(literal) > _MAX_DIGITS:
        raise _NotStrictJsonError("a number is outside the range of a double")
    _number_in_range(literal)
    return int(literal)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_no_constant,
    parse_float=_number_in_range,
    parse_int=_integer_in_range,
)


def _is_text(string: str) -> bool:
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return True


def _without_lone_surrogates(text: str) -> str:
    if _is_text(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _json_type(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def _problem(reason: FailureReason, detail: str) -> Problem:
    return Problem(reason=reason, detail=detail)


def _clip(text: str) -> str:
    return repr(text if len(text) <= _DETAIL_CHARS else text[:_DETAIL_CHARS] + "...")
