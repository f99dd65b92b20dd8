"""Python literals, and calls written like Python: `[Get Weather(city="Oslo", days=3), other.name()]`.

Read by hand, not evaluated. In calls, as ToolACE and BFCL write them, names may hold spaces and dots, and arguments are
keywords with literal values. Names with brackets, commas or quotes are read where the caller knows them. The time is
linear in the text, and nesting is bounded.
"""

import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from orchestrator.notation.strict_json import MAX_DEPTH, MAX_NUMBER_DIGITS, StrictJsonError, first_fault, parse

_CONSTANTS = {"True": True, "False": False, "None": None}
_JSON_CONSTANTS = {"true": True, "false": False, "null": None}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_ESCAPED |= {character: character for character in "\\'\""}

# Every repetition is possessive, so that nothing is tried twice.
_SPACE = re.compile(r"\s*+")
_ASCII_SPACE = re.compile(r"[ \t\r\n\f]*+")
_NAME = re.compile(r'([^()\[\]{}=,"\n]++)\(')
_KEYWORD = re.compile(r"([^\W\d][^=,()\[\]{}\"'\n]*+|[$@][^=,()\[\]{}\"'\n]*+)=(?!=)")
_STRING = re.compile(r"'[^'\\]*+(?:\\.[^'\\]*+)*+'|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"", re.DOTALL)
_REPR_STRING = re.compile(_STRING.pattern.replace("\\\\]", r"\\\r\n\0]"), re.DOTALL)
"""A string without the control characters that Python does not take in one."""
_NUMBER = re.compile(r"[+-]?+(?:(?:0|[1-9]\d*+)(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?+\d++)?+(?![\w.])")
_WORD = re.compile(r"[^\W\d]\w*+")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_BRACKET = re.compile(r"\[\s*+")
_OPENING = re.compile(r'\[\s*+([^()\[\]{}=,"\n]++)\(')

MAX_LITERAL_CHARS = 100_000
"""Longest Python literal that is read by itself: reading by hand is far slower than reading JSON."""
_NOTHING_KNOWN: Mapping[str, Collection[str]] = MappingProxyType({})
_MAX_KNOWN_NAME_CHARS = 300
"""Longest known name that is looked for; those of public data sets end at about 100."""
_MAX_MARKS_TRIED = 8
"""So many brackets a known name may hold, so that a text of brackets alone costs no more than another."""


class PythonicError(ValueError):
    """A text that is no list of calls with literal keyword arguments, or no literal; says at which character."""

    def __init__(self, problem: str, position: int) -> None:
        self.position = position
        super().__init__(f"{problem} at character {position + 1}")


def opens_like_calls(text: str, names: Collection[str] = ()) -> bool:
    """Whether a text begins with `[name(`, as only a list of calls does. Known `names` may hold any character."""
    text = text.lstrip()
    return _OPENING.match(text) is not None or (text.startswith("[") and _known(text, 1, names, "(") is not None)


def first_called(text: str, names: Collection[str]) -> str | None:
    """The first of some names that is called in a text: as `[name(` anywhere, or as all of it, `name(...)`."""
    text = text.strip()
    if text.endswith(")") and (found := _known(text, 0, names, "(")):
        return found[0]
    # A text may be of brackets alone; what begins like no name is passed over.
    firsts = {name[:1] for name in names}
    places = (bracket.end() for bracket in _BRACKET.finditer(text) if text[bracket.end() : bracket.end() + 1] in firsts)
    openings = (_known(text, place, names, "(") for place in places)
    return next((found[0] for found in openings if found), None)


def _known(text: str, place: int, names: Collection[str], mark: str) -> tuple[str, int] | None:
    """The longest of some names that stands at a place with `mark` after it, and the place after the mark."""
    found = None
    limit = min(len(text), place + _MAX_KNOWN_NAME_CHARS) if names else 0
    end = place
    for _ in range(_MAX_MARKS_TRIED):
        end = text.find(mark, end, limit) + 1
        if end == 0:
            break
        name = text[place : end - 1].strip()
        if name in names:
            found = name, end
    return found


def parse_calls(text: str, known: Mapping[str, Collection[str]] = _NOTHING_KNOWN) -> list[tuple[str, dict[str, Any]]]:
    """The calls in `[name(argument=literal, ...), ...]`, in order, as pairs of name and arguments.

    Literals are texts in single or double quotes with Python's escapes, decimal numbers, True, False, None, true,
    false, null, lists, dicts with text keys, and tuples, which become lists.

    Args:
        text: The whole list, with nothing before or after it.
        known: Names of tools with those of their arguments, which may hold any character, as in
            `[Lookup (by id)(filter[type]="x")]`. Other names hold no bracket, comma, quote or `=`.

    Raises:
        PythonicError: For anything else: positional or repeated arguments, other values (NaN, names, sums), duplicate
            keys, nesting deeper than `MAX_DEPTH`, and text before or after the list.
    """
    reader = _Reader(text, known)
    reader.expect("[")
    calls: list[tuple[str, dict[str, Any]]] = []
    while not reader.take("]"):
        calls.append(reader.call())
        if not reader.goes_on("]"):
            break
    reader.end("text after the list of calls")
    return calls


def parse_literal(text: str) -> Any:
    """The value of a Python literal as `repr` prints dicts with text keys, lists, texts, numbers, True, False and None.

    Raises:
        PythonicError: For what JSON lacks or may mean otherwise (tuples, sets, bytes, prefixed and adjacent strings
            such as `'it''s'`, trailing commas, a key twice, infinite numbers, unknown escapes), what `repr` never
            prints (triple quotes, `0x10`, `+1`), and more than `MAX_LITERAL_CHARS` or `MAX_DEPTH`.
    """
    stripped = text.strip()
    if len(stripped) > MAX_LITERAL_CHARS:
        raise PythonicError(f"longer than {MAX_LITERAL_CHARS} characters", MAX_LITERAL_CHARS)
    reader = _Reader(stripped, _NOTHING_KNOWN, is_repr=True)
    value = reader.value(0)
    reader.end("text after the literal")
    if fault := first_fault(value):
        raise PythonicError(fault.detail, 0)
    return value


def parse_json_or_literal(text: str) -> Any:
    """The value of strict JSON, or of a Python literal that can only mean one JSON value, such as a printed dict.

    Raises:
        StrictJsonError: With what is wrong as JSON, if the text is neither.
    """
    try:
        return parse(text)
    except StrictJsonError:
        with suppress(PythonicError):
            return parse_literal(text)
        raise


class _Reader:
    """Recursive descent over one text. With `is_repr`, a literal is only what `repr` prints of a JSON value."""

    def __init__(self, text: str, known: Mapping[str, Collection[str]], *, is_repr: bool = False) -> None:
        self.text, self.place, self.known, self.is_repr = text, 0, known, is_repr

    def error(self, problem: str) -> PythonicError:
        return PythonicError(problem, self.place)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.place)
        if found is not None:
            self.place = found.end()
        return found

    def skip_space(self) -> None:
        self.match(_ASCII_SPACE if self.is_repr else _SPACE)

    def take(self, token: str) -> bool:
        self.skip_space()
        if not self.text.startswith(token, self.place):
            return False
        self.place += len(token)
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"no `{token}`")

    def goes_on(self, closing: str) -> bool:
        """Whether a comma comes next, so that another item may follow; if not, `closing` must."""
        if not self.take(","):
            self.expect(closing)
            return False
        if self.is_repr and self.take(closing):
            raise self.error("a comma before a closing bracket")
        return True

    def end(self, problem: str) -> None:
        self.skip_space()
        if self.place < len(self.text):
            raise self.error(problem)

    def call(self) -> tuple[str, dict[str, Any]]:
        name = self.name(self.known, _NAME, "(")
        if not name:
            raise self.error("no name with a `(` after it")
        arguments: dict[str, Any] = {}
        while not self.take(")"):
            keyword = self.name(self.known.get(name, ()), _KEYWORD, "=")
            if not keyword:
                raise self.error("no `argument=`; arguments without a name cannot be read")
            if keyword in arguments:
                raise self.error(f"the argument {keyword[:80]!r} is given twice")
            arguments[keyword] = self.value(1)
            if not self.goes_on(")"):
                break
        return name, arguments

    def name(self, known: Collection[str], pattern: re.Pattern[str], mark: str) -> str:
        """The name that comes next, with the mark after it: a known one, else one of the pattern; empty if none."""
        self.skip_space()
        if found := _known(self.text, self.place, known, mark):
            self.place = found[1]
            return found[0]
        matched = self.match(pattern)
        return matched[1].strip() if matched else ""

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        self.skip_space()
        opening = self.text[self.place : self.place + 1]
        if opening in ("'", '"'):
            return self.string()
        if opening == "[":
            return self.sequence("]", depth)[0]
        if opening == "(" and not self.is_repr:
            items, has_comma = self.sequence(")", depth)
            return items if has_comma or not items else items[0]
        if opening == "{":
            return self.dictionary(depth)
        return self.constant()

    def sequence(self, closing: str, depth: int) -> tuple[list[Any], bool]:
        """The items up to `closing`, and whether there is a comma, which makes a tuple of what stands in brackets."""
        self.place += 1
        items: list[Any] = []
        has_comma = False
        while not self.take(closing):
            items.append(self.value(depth + 1))
            if not self.goes_on(closing):
                break
            has_comma = True
        return items, has_comma

    def dictionary(self, depth: int) -> dict[str, Any]:
        self.place += 1
        entries: dict[str, Any] = {}
        while not self.take("}"):
            self.skip_space()
            if self.text[self.place : self.place + 1] not in ("'", '"'):
                raise self.error("a key that is not text in quotes")
            key = self.string()
            if key in entries:
                raise self.error(f"the key {key[:80]!r} is given twice")
            self.expect(":")
            entries[key] = self.value(depth + 1)
            if not self.goes_on("}"):
                break
        return entries

    def string(self) -> str:
        start = self.place
        found = self.match(_REPR_STRING if self.is_repr else _STRING)
        if found is None:
            raise self.error("a quote that does not close")
        text = found[0][1:-1]
        try:
            return _unescaped(text, is_repr=self.is_repr) if "\\" in text else text
        except ValueError as error:
            raise PythonicError(f"{error} in the text", start) from None

    def constant(self) -> Any:
        start = self.place
        if word := self.match(_WORD):
            constants = _CONSTANTS if self.is_repr else _CONSTANTS | _JSON_CONSTANTS
            if word[0] not in constants:
                raise PythonicError(f"{word[0][:80]!r} is not a literal value", start)
            return constants[word[0]]
        number = self.match(_NUMBER)
        if number is None or (self.is_repr and number[0].startswith("+")):
            raise PythonicError("no literal value", start)
        if len(number[0].removeprefix("-")) > MAX_NUMBER_DIGITS:
            raise PythonicError(f"a number of {len(number[0])} digits is too long", start)
        if number[0].lstrip("+-").isdigit():
            return int(number[0])
        value = float(number[0])
        if not math.isfinite(value):
            raise PythonicError(f"the number {number[0][:40]} is too large", start)
        return value


def _unescaped(text: str, *, is_repr: bool) -> str:
    plain = _ESCAPE.sub(_known_escape if is_repr else _escaped_character, text)
    if is_repr:
        return plain
    try:
        # Two halves written as two escapes are one character, as in JSON.
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ValueError("a lone surrogate (\\ud800-\\udfff)") from None


def _known_escape(match: re.Match[str]) -> str:
    character = _escaped_character(match)
    if character == match[0]:
        raise ValueError(f"an unknown escape {character}")
    return character


def _escaped_character(match: re.Match[str]) -> str:
    escape = match[1]
    if escape in _ESCAPED:
        return _ESCAPED[escape]
    if escape[0] in "01234567":
        return chr(int(escape, 8))
    if escape[0] in "xuU" and len(escape) > 1:
        code = int(escape[1:], 16)
        if code > 0x10FFFF:
            raise ValueError(f"no character has the code {escape[1:]}")
        return chr(code)
    if escape in ("x", "u", "U", "N"):
        raise ValueError(f"an incomplete or unknown escape \\{escape}")
    # Python keeps the backslash of an escape that it does not know, such as \d in a pattern.
    return match[0]
