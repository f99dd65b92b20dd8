"""Calls of Qwen and Hermes models: prose, and any number of JSON objects in tags.

    prose <tool_call>{"name": "...", "arguments": {...}}</tool_call> prose

Every opening tag is an attempt, unless it lies in a string of a call that is read. A closing tag inside a string does
not end the call. A call whose opening tag is missing is prose.
"""

import re

from orchestrator.chat.calls import JSON_SPACE, Found, as_call, clip, decode_value, problem, sorted_out
from orchestrator.chat.reply import ParseProblem
from orchestrator.core.records import ToolCall

_OPEN_CALL = "<tool_call>"
_CALL_TAG = re.compile(r"</?tool_call>")


def read_hermes(text: str) -> Found:
    """The calls of a reply, in order."""
    attempts: list[ToolCall | ParseProblem] = []
    prose: list[str] = []
    place = 0
    while (opening := text.find(_OPEN_CALL, place)) >= 0:
        prose.append(text[place:opening])
        attempt, place = _read_call(text, opening + len(_OPEN_CALL))
        attempts.append(attempt)
    prose.append(text[place:])
    return sorted_out(attempts, "".join(prose))


def _read_call(text: str, start: int) -> tuple[ToolCall | ParseProblem, int]:
    """Read the call whose opening tag ends at `start`; also the place from which to read on."""
    decoded = decode_value(text, start, _CALL_TAG)
    tag = _CALL_TAG.search(text, decoded.end)
    if tag is None:
        return problem("unclosed_tag", f"the reply ends inside the call {clip(text[start:])}"), len(text)
    if tag.group() == _OPEN_CALL:
        return problem("unclosed_tag", "another call begins before this one is closed"), tag.start()
    if decoded.fault:
        return decoded.fault, tag.end()
    trailing = text[decoded.end : tag.start()].strip(JSON_SPACE)
    if trailing:
        return problem("text_inside_tag", f"after the call stands {clip(trailing)}"), tag.end()
    return as_call(decoded.value), tag.end()
