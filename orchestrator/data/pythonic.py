"""Calls written like Python: `[Get Weather(city="Oslo", days=3), other.name()]`, as in ToolACE and BFCL.

Read by hand, not evaluated: names may hold spaces and dots, arguments are keywords with literal values. Time is linear
in the text, nesting is bounded.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.data.strict_json import MAX_DEPTH, MAX_NUMBER_DIGITS

_CONSTANTS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_ESCAPED |= {character: character for character in "\\'\""}

# Every repetition is possessive, so that nothing is tried twice.
_SPACE = re.compile(r"\s*+")
_NAME = re.compile(r'([^()\[\]{}=,"\n]++)\(')
_KEYWORD = re.compile(r"([^\W\d][^=,()\[\]{}\"'\n]*+|[$@][^=,()\[\]{}\"'\n]*+)=(?!=)")
_STRING = re.compile(r"'[^'\\]*+(?:\\.[^'\\]*+)*+'|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"", re.DOTALL)
_NUMBER = re.compile(r"[+-]?+(?:(?:0|[1-9]\d*+)(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?+\d++)?+(?![\w.])")
_WORD = re.compile(r"[^\W\d]\w*+")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_OPENING = re.compile(r'\[\s*+([^()\[\]{}=,"\n]++)\(')


class PythonicError(ValueError):
    """A text that is not a list of calls with literal keyword arguments; says at which character."""

    def __init__(self, problem: str, position: int) -> None:
        self.position = position
        super().__init__(f"{problem} at character {position + 1}")


def opens_like_calls(text: str) -> bool:
    """Whether a text begins with `[name(`, so that it must be a list of calls and can be nothing else."""
    return _OPENING.match(text.lstrip()) is not None


def names_opened(text: str) -> Iterator[str]:
    """Every `name` that stands as `[name(` anywhere in a text."""
    return (match[1].strip() for match in _OPENING.finditer(text))


def parse_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls in `[name(argument=literal, ...), ...]`, in order, as pairs of name and arguments.

    Literals are texts in single or double quotes with Python's escapes, decimal numbers, True, False, None, true,
    false, null, lists, dicts with text keys, and tuples, which become lists.

    Raises:
        PythonicError: For anything else: positional or repeated arguments, other values (NaN, names, sums), duplicate
            keys, nesting deeper than `MAX_DEPTH`, and text before or after the list.
    """
    reader = _Reader(text)
    reader.expect("[")
    calls: list[tuple[str, dict[str, Any]]] = []
    while not reader.take("]"):
        calls.append(reader.call())
        if not reader.take(","):
            reader.expect("]")
            break
    reader.skip_space()
    if reader.place < len(text):
        raise reader.error("text after the list of calls")
    return calls


class _Reader:
    """Recursive descent over one text; each character is looked at a bounded number of times."""

    def __init__(self, text: str) -> None:
        self.text, self.place = text, 0

    def error(self, problem: str) -> PythonicError:
        return PythonicError(problem, self.place)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.place)
        if found is not None:
            self.place = found.end()
        return found

    def skip_space(self) -> None:
        self.match(_SPACE)

    def take(self, token: str) -> bool:
        self.skip_space()
        if not self.text.startswith(token, self.place):
            return False
        self.place += len(token)
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise self.error(f"no `{token}`")

    def call(self) -> tuple[str, dict[str, Any]]:
        self.skip_space()
        found = self.match(_NAME)
        name = found[1].strip() if found else ""
        if not name:
            raise self.error("no name with a `(` after it")
        arguments: dict[str, Any] = {}
        while not self.take(")"):
            keyword = self.keyword(arguments)
            arguments[keyword] = self.value(1)
            if not self.take(","):
                self.expect(")")
                break
        return name, arguments

    def keyword(self, given: dict[str, Any]) -> str:
        self.skip_space()
        found = self.match(_KEYWORD)
        if found is None:
            raise self.error("no `argument=`; arguments without a name cannot be read")
        keyword = found[1].rstrip()
        if keyword in given:
            raise self.error(f"the argument {keyword[:80]!r} is given twice")
        return keyword

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        self.skip_space()
        opening = self.text[self.place : self.place + 1]
        if opening in ("'", '"'):
            return self.string()
        if opening == "[":
            return self.sequence("]", depth)[0]
        if opening == "(":
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
            if not self.take(","):
                self.expect(closing)
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
            if not self.take(","):
                self.expect("}")
                break
        return entries

    def string(self) -> str:
        start = self.place
        found = self.match(_STRING)
        if found is None:
            raise self.error("a quote that does not close")
        text = found[0][1:-1]
        try:
            return _unescaped(text) if "\\" in text else text
        except ValueError as error:
            raise PythonicError(f"{error} in the text", start) from None

    def constant(self) -> Any:
        start = self.place
        if word := self.match(_WORD):
            if word[0] not in _CONSTANTS:
                raise PythonicError(f"{word[0][:80]!r} is not a literal value", start)
            return _CONSTANTS[word[0]]
        number = self.match(_NUMBER)
        if number is None:
            raise self.error("no literal value")
        if len(number[0]) > MAX_NUMBER_DIGITS:
            raise PythonicError(f"a number of {len(number[0])} digits is too long", start)
        if number[0].lstrip("+-").isdigit():
            return int(number[0])
        value = float(number[0])
        if not math.isfinite(value):
            raise PythonicError(f"the number {number[0][:40]} is too large", start)
        return value


def _unescaped(text: str) -> str:
    plain = _ESCAPE.sub(_escaped_character, text)
    if not any("\ud800" <= character <= "\udfff" for character in plain):
        return plain
    try:
        # Two halves written as two escapes are one character, as in JSON.
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ValueError("a lone surrogate (\\ud800-\\udfff)") from None


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
