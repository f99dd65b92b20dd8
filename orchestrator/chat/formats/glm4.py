"""Calls of GLM 4.5 to 4.7: prose, and a name with pairs of key and value, all in tags.

    prose <tool_call>name
    <arg_key>city</arg_key>
    <arg_value>Oslo</arg_value>
    </tool_call>

Values have no types: the module `typed` reads them by the tool's schema. A value is all that stands between its tags,
and holds none of the notation's own. White space may stand between tags and around a name or key.

Every `<tool_call>` outside of a call that is read is an attempt.
"""

import re

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    clip,
    end_of_broken,
    problem,
    read_calls,
)
from orchestrator.chat.formats.typed import typed_call

_OPEN_CALL, _CLOSE_CALL = "<tool_call>", "</tool_call>"
_BEGINNING = re.compile(_OPEN_CALL)
_SPACE = r"[ \t\r\n]*+"
_PAIR = rf"<arg_key>([^<>]*+)</arg_key>{_SPACE}<arg_value>((?:(?!</?arg_(?:key|value)>|{_CLOSE_CALL}).)*+)</arg_value>"
_PAIRS = re.compile(_PAIR, re.DOTALL)
_CALL = re.compile(rf"{_SPACE}([^\s<>{{}}\"]++){_SPACE}((?:{_PAIR}{_SPACE})*+)", re.DOTALL)


def _read(text: str, schemas: Schemas) -> Found:
    return read_calls(text, _BEGINNING, lambda begin: _read_call(text, begin.end(), schemas))


def _read_call(text: str, start: int, schemas: Schemas) -> tuple[Attempt, int]:
    call = _CALL.match(text, start)
    end = call.end() if call else start
    if call and text.startswith(_CLOSE_CALL, end):
        pairs = ((key.strip(), value) for key, value in _PAIRS.findall(call[2]))
        return typed_call(call[1], pairs, schemas), end + len(_CLOSE_CALL)
    stop, is_closed = end_of_broken(text, start, _BEGINNING, _CLOSE_CALL)
    if not is_closed:
        return problem("unclosed_tag", f"the call is not closed: {clip(text[start:])}"), stop
    if call is None:
        return problem("not_a_call_object", f"the call has no name: {clip(text[start:stop])}"), stop
    return problem("text_inside_tag", f"no pair of key and value is {clip(text[end:stop])}"), stop


GLM4 = ReplyFormat(
    name="glm4",
    is_shown_in=lambda template: "<arg_key>" in template and _OPEN_CALL in template,
    read=_read,
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    vllm_parser="glm45",
    reasoning_parser="glm45",
)
