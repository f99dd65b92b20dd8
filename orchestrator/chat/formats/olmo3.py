"""Calls of OLMo 3: written like Python in tags, one on each line.

    prose <function_calls>
    name(argument="value", other=[1, 2.5, null])
    other_name()
    </function_calls> prose

Each line between the tags is an attempt, as are tags without a line. Lines are read as
by `pythonic`. A call without tags is prose.
"""

import re

from orchestrator.chat.formats.pythonic import read_python_calls
from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    not_a_call,
    problem,
    sort_out,
)

_OPEN_CALLS, _CLOSE_CALLS = "<function_calls>", "</function_calls>"
_TAGS = re.compile(f"{_OPEN_CALLS}|{_CLOSE_CALLS}")


def _read(text: str, _schemas: Schemas) -> Found:
    attempts, prose, place = list[Attempt](), list[str](), 0
    while tag := _TAGS.search(text, place):
        prose.append(text[place : tag.start()])
        place = tag.end()
        if tag.group() == _CLOSE_CALLS:
            attempts.append(problem("unclosed_tag", "nothing opens the calls that are closed"))
            continue
        end = _TAGS.search(text, place)
        if end is None or end.group() == _OPEN_CALLS:
            attempts.append(problem("unclosed_tag", "the calls are not closed"))
            place = end.start() if end else len(text)
            continue
        lines = [line for line in text[place : end.start()].splitlines() if line.strip()]
        attempts += [*map(_read_line, lines)] or [not_a_call("between the tags stands no call")]
        place = end.end()
    prose.append(text[place:])
    return sort_out(attempts, " ".join(prose))


def _read_line(line: str) -> Attempt:
    attempts = read_python_calls(f"[{line}]")
    return attempts[0] if len(attempts) == 1 else not_a_call("a line holds one call")


OLMO3 = ReplyFormat(
    name="olmo3",
    is_shown_in=lambda template: _OPEN_CALLS in template and "<invoke" not in template,
    read=_read,
    mark=_OPEN_CALLS,
    closing_tag=_CLOSE_CALLS,
    vllm_parser="olmo3",
    reasoning_parser="olmo3",
)
