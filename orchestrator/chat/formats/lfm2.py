"""Calls of LFM2 and LFM2.5: prose, and lists of calls written like Python between tokens.

    prose <|tool_call_start|>[name(argument="value", other=[1, 2.5, None]), other.name()]<|tool_call_end|> prose

Read as by `pythonic`: arguments are keywords with literal values, and `true`, `false` and `null`
are read as in JSON. Each `<|tool_call_start|>` is an attempt, up to the next token, as is a token that closes nothing.
"""

import re

from orchestrator.chat.formats.pythonic import read_python_calls
from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    clip,
    not_a_call,
    problem,
    sort_out,
)

_OPEN_CALLS, _CLOSE_CALLS = "<|tool_call_start|>", "<|tool_call_end|>"
_TOKEN = re.compile(f"{re.escape(_OPEN_CALLS)}|{re.escape(_CLOSE_CALLS)}")


def _read(text: str, _schemas: Schemas) -> Found:
    attempts, prose, place = list[Attempt](), list[str](), 0
    while token := _TOKEN.search(text, place):
        prose.append(text[place : token.start()])
        place = token.end()
        if token.group() == _CLOSE_CALLS:
            attempts.append(problem("unclosed_tag", "nothing opens the calls that are closed"))
            continue
        end = _TOKEN.search(text, place)
        if end is None or end.group() == _OPEN_CALLS:
            attempts.append(problem("unclosed_tag", f"the calls are not closed: {clip(text[place:])}"))
            place = end.start() if end else len(text)
            continue
        attempts += read_python_calls(text[place : end.start()]) or [not_a_call("the list of calls is empty")]
        place = end.end()
    prose.append(text[place:])
    return sort_out(attempts, " ".join(prose))


LFM2 = ReplyFormat(
    name="lfm2",
    is_shown_in=lambda template: _OPEN_CALLS in template,
    read=_read,
    mark=_OPEN_CALLS,
    closing_tag=_CLOSE_CALLS,
    vllm_parser="lfm2",
)
