"""Calls, tools and thoughts that are written into a text instead of having fields of their own.

Every function here is linear in the length of its text, whatever the text holds.
"""

import ast
import io
import json
import tokenize
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from orchestrator.core.records import ToolCall
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import MAX_DEPTH, MAX_NUMBER_DIGITS, StrictJsonError, first_fault, parse

OPEN_THINK, CLOSE_THINK = "<think>", "</think>"

CALL_MARKS = (
    "<tool_call",
    "</tool_call>",
    "<functioncall>",
    "<function_call",
    "<function=",
    "<TOOLCALL>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "<|tool_call",
    "<\uff5ctool\u2581call",
    "<invoke name=",
    "<start_function_call>",
    "\u273fFUNCTION\u273f",
    "to=functions.",
)
"""How models write calls into text. A call left in the text would be learned unchecked and scored as an answer."""
REACT_MARKS = ("Action:", "Action Input:")
"""What stands before the name and the arguments of a call in ReAct prompts."""

MAX_LITERAL_CHARS = 100_000
"""Longest Python literal that is read: its tokens are taken apart one by one, far slower than JSON."""

_JSON = json.JSONDecoder()
_LITERAL_NAMES = {"True": True, "False": False, "None": None}
_LITERAL_OPERATORS = frozenset("{}[]:,-")
_LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)


class NotALiteralError(ValueError):
    """A text that is no Python literal with a single meaning in JSON."""


class Reasoned(NamedTuple):
    """A reply's leading think block, None without one, and the rest of the reply."""

    reasoning: str | None
    text: str


class Spoken(NamedTuple):
    """An assistant's text without the calls that stood in it, and those calls."""

    text: str
    calls: tuple[ToolCall, ...]


CallReader = Callable[[str, int], tuple[list[ToolCall], int]]
"""Reads what follows an opening tag at a position of a text: the calls and the position after them."""


def split_reasoning(text: str, where: str, *, is_known: bool = False) -> Reasoned:
    """Divide a reply into its leading `<think>` block and the rest, as replies are divided when they are scored.

    A closing tag without an opening one ends a block that the prompt opened, unless a call comes before it, or the
    thoughts are known from elsewhere. A reply without a think block is left as it is.

    Raises:
        RowRejected: If the block has no end.
    """
    closing = text.find(CLOSE_THINK)
    begins = text.lstrip().startswith(OPEN_THINK)
    if closing < 0 and begins:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the {OPEN_THINK} block has no end")
    if closing < 0:
        return Reasoned(None, text)
    thoughts = text[:closing]
    if not begins and (is_known or any(mark in thoughts for mark in (OPEN_THINK, *CALL_MARKS))):
        return Reasoned(None, text)
    thoughts = thoughts.lstrip().removeprefix(OPEN_THINK).strip()
    return Reasoned(thoughts or None, text[closing + len(CLOSE_THINK) :].lstrip())


def call_mark(text: str) -> str | None:
    """The mark of a call that stands in a text, in whatever spelling; None for a text without one."""
    mark = next((mark for mark in CALL_MARKS if mark in text), None)
    if mark is not None:
        return mark
    action = text.find(REACT_MARKS[0])
    return REACT_MARKS[1] if action >= 0 and text.find(REACT_MARKS[1], action) >= 0 else None


def take_calls(text: str, opening: str, read: CallReader) -> Spoken:
    """Take the calls out of an assistant's text; what stands around them is kept, one piece to a line.

    Raises:
        RowRejected: What `read` raises for the first call that it cannot read.
    """
    start = text.find(opening)
    if start < 0:
        return Spoken(text, ())
    pieces, calls, position = [text[:start]], list[ToolCall](), 0
    while start >= 0:
        found, position = read(text, start + len(opening))
        calls += found
        start = text.find(opening, position)
        pieces.append(text[position:] if start < 0 else text[position:start])
    return Spoken("\n".join(piece.strip() for piece in pieces if piece.strip()), tuple(calls))


def parse_json_or_literal(text: str) -> Any:
    """The value of strict JSON, or of a Python literal that can only mean one JSON value.

    Models and the people who print their calls write Python dicts with single quotes; nothing has to be guessed to
    read those. Other deviations from JSON are not read.

    Raises:
        StrictJsonError: With what is wrong as JSON, if the text is neither.
    """
    try:
        return parse(text)
    except StrictJsonError:
        try:
            return parse_literal(text)
        except NotALiteralError:
            pass
        raise


def parse_literal(text: str) -> Any:
    """The value of a Python literal of dicts with text keys, lists, texts, numbers, True, False and None.

    Not read, because JSON has no such thing or it may mean another: tuples, sets, bytes, prefixed and adjacent strings
    (`'it''s'`), trailing commas, a key twice, infinite numbers, unknown escapes; nor more than `MAX_LITERAL_CHARS` or
    `MAX_DEPTH`.

    Raises:
        NotALiteralError: If the text is not.
    """
    stripped = text.strip()
    if len(stripped) > MAX_LITERAL_CHARS:
        raise NotALiteralError(f"longer than {MAX_LITERAL_CHARS} characters")
    _check_tokens(stripped)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown escape such as \d is only a warning to Python
            value = _json_value(ast.parse(stripped, mode="eval").body)
    except (SyntaxError, Warning, MemoryError, RecursionError) as error:
        raise NotALiteralError(f"no Python literal: {error}") from None
    if fault := first_fault(value):
        raise NotALiteralError(fault.detail)
    return value


def _check_tokens(text: str) -> None:
    """Refuse before parsing what would exhaust the parser, and adjacent strings, which parsing joins silently."""
    depth, previous = 0, ""
    for token in _tokens(text):
        if token.type in _LAYOUT:
            continue
        is_text = token.type == tokenize.STRING and token.string[0] in "'\""
        is_operator = token.type == tokenize.OP and token.string in _LITERAL_OPERATORS
        is_name = token.type == tokenize.NAME and token.string in _LITERAL_NAMES
        is_number = token.type == tokenize.NUMBER and len(token.string) <= MAX_NUMBER_DIGITS
        if not (is_text or is_operator or is_name or is_number):
            raise NotALiteralError(f"{token.string[:20]!r} has no place in a literal")
        if (is_text and previous == "text") or (token.string == "-" and previous == "-"):
            raise NotALiteralError("adjacent strings or signs")
        if is_operator and token.string in "]}" and previous == ",":
            raise NotALiteralError("a comma before a closing bracket")
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token.string, 0) if is_operator else 0
        if depth > MAX_DEPTH:
            raise NotALiteralError(f"nested deeper than {MAX_DEPTH} levels")
        previous = "text" if is_text else token.string


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError) as error:
        raise NotALiteralError(f"no Python literal: {error}") from None


def _json_value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
        if isinstance(node.value, float) and node.value in (float("inf"), float("-inf")):
            raise NotALiteralError("an infinite number")
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _json_value(node.operand)
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return -number
    if isinstance(node, ast.List):
        return [_json_value(part) for part in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_json_value(key) for key in node.keys if key is not None]
        if len(keys) == len(node.keys) and all(isinstance(key, str) for key in keys) and len({*keys}) == len(keys):
            return dict(zip(keys, (_json_value(value) for value in node.values), strict=True))
    raise NotALiteralError("a value that JSON does not have")


def json_end(text: str, start: int) -> int | None:
    """The position after the JSON value that begins at `start`; None where there is none. Not strict: see `parse`."""
    try:
        return _JSON.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def json_values(text: str, start: int) -> tuple[list[Any], int]:
    """Strict JSON values one after the other from `start`, divided by white space or commas, and where they end.

    Raises:
        StrictJsonError: If a value is JSON, but not strict.
    """
    values: list[Any] = []
    position = start
    while True:
        following = skip_spaces(text, position, " \t\r\n,") if values else skip_spaces(text, position)
        end = json_end(text, following) if text[following : following + 1] in ("{", "[") else None
        if end is None:
            return values, position
        values.append(parse(text[following:end]))
        position = end


def skip_spaces(text: str, start: int, spaces: str = " \t\r\n") -> int:
    """The first position from `start` on whose character is not one of `spaces`."""
    position = start
    while position < len(text) and text[position] in spaces:
        position += 1
    return position
