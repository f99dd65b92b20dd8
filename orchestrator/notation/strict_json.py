"""JSON without the liberties that Python's parser takes: for rows of data and for the calls in replies.

Refused (RFC 8259): NaN and Infinity, numbers beyond a double (`1e999`, integers of 310 digits), duplicate keys, nesting
deeper than `MAX_DEPTH`, and lone surrogates. A chat template, Arrow or another language's parser would fail on these
later, or read something else.
"""

import json
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

MAX_DEPTH = 64
"""Deepest nesting of objects and arrays: far beyond any tool call, and within what every later parser bears."""
MAX_NUMBER_DIGITS = 308
"""An integer of more digits may be beyond a double, which is what most parsers read."""
JSON_SPACE = " \t\n\r"
_SPACES = re.compile(f"[{JSON_SPACE}]*+")
_SEPARATORS = re.compile(f"[{JSON_SPACE},]*+")


class Fault(NamedTuple):
    """What keeps a JSON text from being strict."""

    code: Literal["malformed", "too_deep", "invalid_unicode"]
    detail: str


class StrictJsonError(ValueError):
    """A text that is not strict JSON. `ends_in_string`: it ends before the quotes of a string close."""

    def __init__(self, fault: Fault, *, ends_in_string: bool = False) -> None:
        self.fault, self.ends_in_string = fault, ends_in_string
        super().__init__(fault.detail)


class _Marker:
    """Stands in a parsed value for a token that strict JSON lacks, so that its row can be found."""

    def __init__(self, text: str, detail: str) -> None:
        self.text, self.detail = text, detail


class _DuplicateKeys(dict[str, Any]):
    """An object whose text names a key twice; holds the last values."""

    first_duplicate = ""


def parse(text: str) -> Any:
    """The value of a strict JSON text; a `StrictJsonError` if it is none."""
    value = parse_marked(text)
    if fault := first_fault(value):
        raise StrictJsonError(fault)
    return value


def parse_marked(text: str) -> Any:
    """The value of a JSON text, with faults other than syntax left inside as marks for `first_fault`.

    Raises:
        StrictJsonError: If the syntax is broken, or the nesting exhausts the parser.
    """
    return _read(_DECODER.decode, text)


def parse_marked_prefix(text: str) -> tuple[Any, int]:
    """As `parse_marked`, for the value that begins the text, without white space before it, and the place after it.

    The time grows with what is read, not with the text after it; a syntax error costs as much as the text before it.
    """
    value, end = _read(_DECODER.raw_decode, text)
    return value, end


def _read(decode: Callable[[str], Any], text: str) -> Any:
    if text.startswith("\ufeff"):  # RFC 8259, section 8.1; Python's decoder would only miss a value there
        raise StrictJsonError(Fault("malformed", "not JSON: a byte order mark (BOM) at column 1"))
    try:
        return decode(text)
    except json.JSONDecodeError as error:
        # In a JSON-lines file the text is one line, whose own number stands before this detail.
        line = f"line {error.lineno}, " if "\n" in text else ""
        detail = f"not JSON: {error.msg.removesuffix(' at')} at {line}column {error.colno}"
        # Python calls an escape of four digits invalid when nothing comes after it.
        is_cut_escape = error.msg.startswith("Invalid \\uXXXX escape") and error.pos + len("uXXXX") >= len(text)
        ends_in_string = is_cut_escape or error.msg.startswith("Unterminated string")
        raise StrictJsonError(Fault("malformed", detail), ends_in_string=ends_in_string) from None
    except RecursionError:
        raise StrictJsonError(Fault("too_deep", f"nested deeper than {MAX_DEPTH} levels")) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    marked, seen = _DuplicateKeys(value), set[str]()
    for key, _ in pairs:
        if key in seen:
            marked.first_duplicate = key
            break
        seen.add(key)
    return marked


def _float(token: str) -> float | _Marker:
    value = float(token)
    return value if math.isfinite(value) else _Marker(token[:40], f"the number {token[:40]} is too large")


def _int(token: str) -> int | _Marker:
    if len(token) > len("-") + MAX_NUMBER_DIGITS + 1:  # beyond a double whatever its digits
        return _Marker(token[:40], f"a number of {len(token)} digits is too long")
    if len(token) > MAX_NUMBER_DIGITS and math.isinf(float(token)):
        return _Marker(token[:40], f"the number {token[:40]} is too large")
    return int(token)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=lambda token: _Marker(token, f"{token} is not JSON"),
    parse_float=_float,
    parse_int=_int,
)
_LOOSE_DECODER = json.JSONDecoder()


def first_fault(value: Any) -> Fault | None:
    """The first mark, excess depth or lone surrogate in a value of `parse_marked`; None if it is strict JSON."""
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is str:
                if not item.isascii() and _has_lone_surrogate(item):
                    return Fault("invalid_unicode", "a string holds a lone surrogate (\\ud800-\\udfff)")
            elif kind is dict or kind is list:
                if depth >= MAX_DEPTH:
                    return Fault("too_deep", f"nested deeper than {MAX_DEPTH} levels")
                inner += item
                if kind is dict:
                    inner += item.values()
            elif kind is _Marker:
                return Fault("malformed", item.detail)
            elif kind is _DuplicateKeys:
                return Fault("malformed", f"the key {item.first_duplicate[:80]!r} stands twice in one object")
        level, depth = inner, depth + 1
    return None


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def skip_space(text: str, start: int, spaces: re.Pattern[str] = _SPACES) -> int:
    """The first place from `start` on that holds no white space of JSON."""
    found = spaces.match(text, start)
    return found.end() if found else start


def json_end(text: str, start: int) -> int | None:
    """The place after the JSON value that begins at `start`; None where there is none. Not strict: see `parse`."""
    try:
        return _LOOSE_DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def json_values(text: str, start: int) -> tuple[list[Any], int]:
    """Strict JSON objects and arrays in a row from `start`, separated by white space or commas, and where they end.

    Raises:
        StrictJsonError: If a value is JSON, but not strict.
    """
    values: list[Any] = []
    while True:
        begin = skip_space(text, start, _SEPARATORS if values else _SPACES)
        end = json_end(text, begin) if text.startswith(("{", "["), begin) else None
        if end is None:
            return values, start
        values.append(parse(text[begin:end]))
        start = end


def json_equal(left: Any, right: Any, *, relative_tolerance: float = 0.0) -> bool:
    """Whether two JSON values are equal: numbers by value, `true` not as 1, objects without regard to order.

    Numbers may differ by `relative_tolerance` if one of them is not whole; whole numbers are compared exactly.
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    same = partial(json_equal, relative_tolerance=relative_tolerance)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if left == right:
        return True
    if not relative_tolerance or not (isinstance(left, int | float) and isinstance(right, int | float)):
        return False
    is_whole = all(isinstance(number, int) or number.is_integer() for number in (left, right))
    return not is_whole and math.isclose(left, right, rel_tol=relative_tolerance)


def dump_loosely(value: Any) -> str:
    """A value of `parse_marked` as one line for a person to read; marks keep their text, never fails on depth."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=lambda mark: mark.text)
    except RecursionError:
        return f"(nested deeper than {MAX_DEPTH} levels)"
    return text.encode("utf-8", "backslashreplace").decode()
