"""Calls and thoughts that are written into a text instead of having fields of their own.

Every function here is linear in the length of its text, whatever the text holds.
"""

from collections.abc import Callable
from typing import NamedTuple

from orchestrator.chat.parse import CALL_MARKS, THINK_TAGS, leading_thoughts
from orchestrator.core.records import ToolCall
from orchestrator.data.rejection import Reason, RowRejected

REACT_MARKS = ("Action:", "Action Input:")
"""What stands before the name and the arguments of a call in ReAct prompts."""


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


def split_reasoning(text: str, where: str, *, needs_opening: bool = False) -> Reasoned:
    """Divide a reply into its leading think block and the rest, as replies are divided when they are scored.

    A closing tag without an opening one ends a block that the prompt opened, unless a call in any format comes before
    it or `needs_opening` is set. A reply without a think block is left as it is.

    Raises:
        RowRejected: If the block has no end.
    """
    block = leading_thoughts(text, lambda before: needs_opening or any(mark in before for mark in CALL_MARKS))
    if block is None:
        return Reasoned(None, text)
    if block.unclosed:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the {block.unclosed} block has no end")
    return Reasoned(block.thoughts or None, block.rest.lstrip())


def closing_think_tag(text: str) -> str | None:
    """The tag in a text that would end a think block; None for a text without one."""
    return next((closing for _, closing in THINK_TAGS if closing in text), None)


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
