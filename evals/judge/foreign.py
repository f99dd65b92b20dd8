"""Calls that a reply seems to make in another notation than the one it is read in.

Nothing is repaired and no score depends on it: what is found is counted and named, so that a figure of 0 for a model
that does call, in its own way, is not taken for a model that does not.

Not found: calls told in words, and notations that neither have a mark of their own nor name an offered tool.
"""

import re
from collections.abc import Sequence

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import UNREAD_MARKS, ParsedReply
from orchestrator.chat.parse import parse_reply
from orchestrator.core.records import ToolSpec

# The marks of notations that no format reads, the telling ones before those that others begin with.
_MARKS = (
    *sorted(UNREAD_MARKS, key=lambda mark: mark == "<tool_call"),
    *(
        "functools[",
        "```tool_code",
        "\nAction Input:",
        "<arg_key>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "<|channel|>commentary",
    ),
)


def foreign_notation(text: str, read: ParsedReply, reply_format: str, tools: Sequence[ToolSpec]) -> str | None:
    """The notation in which a reply seems to call: the name of a format, or the mark that opens the call; else None.

    Args:
        text: The reply as the model wrote it.
        read: What was read in it.
        reply_format: How it was read.
        tools: Those that it could call.
    """
    if read.calls:
        return None
    own = REPLY_FORMATS[reply_format].mark
    for name, form in REPLY_FORMATS.items():
        is_marked = form.mark is not None and form.mark != own and form.mark in text
        # A broken call of its own holds JSON or Python that formats without marks would take for theirs.
        if name != reply_format and (is_marked or not read.problems):
            other = parse_reply(text, format=name, tools=tools)
            if other.calls:
                return name
            if any(fault.reason == "text_beside_call" for fault in other.problems):
                return f"{name} beside words"
    marks = (mark for mark in _MARKS if own is None or not own.startswith(mark))
    found = next((mark for mark in marks if mark in f"\n{text}"), None)
    return found.strip() if found is not None else _named(text, tools, is_broken_call=bool(read.problems))


def _named(text: str, tools: Sequence[ToolSpec], *, is_broken_call: bool) -> str | None:
    """How a text writes a call of an offered tool by its name alone."""
    names = [tool.function.name for tool in tools]
    if any(f"<{name}>" in text and f"</{name}>" in text for name in names):
        return "<NAME>"
    one = "|".join(map(re.escape, names))
    shapes = {"<tool_call>NAME": rf"<tool_call>\s{{0,9}}(?:{one})\s"}
    if not is_broken_call:
        shapes['{"name": "NAME"'] = rf"\"(?:name|tool|tool_name|function|action)\"\s{{0,9}}:\s{{0,9}}\"(?:{one})\""
        shapes["NAME(...)"] = rf"(?<!\w)(?:{one})\((?:\)|[^()\n]{{0,200}}[=:\"'][^\n]{{0,400}}\))"
    return next((shape for shape, pattern in shapes.items() if names and re.search(pattern, text)), None)
