"""Calls of Muse Glimmer: messages to tools, as in `gpt_oss`, with functions and parameters in tags.

    to=self<|message|>thoughts<|eom|>
    <|start|>assistant to=name<|message|><atem:function_calls>
    <atem:invoke name="name">
    <atem:parameter name="city">Oslo</atem:parameter>
    </atem:invoke>
    </atem:function_calls><|eom|>
    <|start|>assistant to=user<|message|>prose<|eot|>

Values have no types: the module `typed` reads them by the tool's schema. A value is all that stands between its tags,
and holds none of the notation's own. Only white space may stand between tags.

Every message to another recipient than `user` and `self` is an attempt, as are a message with a malformed header and
such tags outside of messages.
"""

import re

from orchestrator.chat.formats.gpt_oss import MESSAGE, START, Message, split_messages
from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    Attempt,
    Found,
    ParseFault,
    ReplyFormat,
    Schemas,
    clip,
    not_a_call,
    problem,
    sort_out,
)
from orchestrator.chat.formats.typed import typed_call

_OPEN_CALLS, _CLOSE_CALLS = "<atem:function_calls>", "</atem:function_calls>"
_TAG = "<atem:"
_END = "<|eom|>"
_ENDS = re.compile("|".join(map(re.escape, (START, _END, "<|eot|>"))))
_HEADER = re.compile(r"(?:assistant)?+(?: ?to=([^\s<>]++))?+ ?")
_SPACE = r"[ \t\r\n]*+"
_PARAMETER = r"<atem:parameter name=\"([^\"<>]++)\">((?:(?!</?atem:).)*+)</atem:parameter>"
_PARAMETERS = re.compile(_PARAMETER, re.DOTALL)
_CALL = re.compile(
    rf"{_SPACE}{_OPEN_CALLS}{_SPACE}<atem:invoke name=\"([^\"<>]++)\">{_SPACE}((?:{_PARAMETER}{_SPACE})*+)"
    rf"</atem:invoke>{_SPACE}{_CLOSE_CALLS}{_SPACE}",
    re.DOTALL,
)


def _read(text: str, schemas: Schemas) -> Found:
    if _TAG not in text and MESSAGE not in text:
        return Found(prose=text)
    attempts: list[Attempt] = []
    prose: list[str] = []
    for message in split_messages(text, _ENDS):
        header = _HEADER.fullmatch(message.header)
        recipient = header[1] if header else None
        if message.body is None and _TAG in message.header:
            attempts.append(problem("unclosed_tag", f"no message holds {clip(message.header)}"))
        elif message.body is not None and MESSAGE in message.body:
            attempts.append(problem("unclosed_tag", "another message begins before this one is closed"))
        elif message.body is not None and header is None:
            attempts.append(not_a_call(f"no message has the header {clip(message.header)}"))
        elif message.body is None or recipient in (None, "user"):
            prose.append(message.header if message.body is None else message.body)
        elif recipient != "self":
            attempts.append(_read_call(recipient or "", message, schemas))
    return sort_out(attempts, "\n".join(prose))


def _read_call(recipient: str, message: Message, schemas: Schemas) -> Attempt:
    body = message.body or ""
    call = _CALL.fullmatch(body)
    if call is None:
        is_closed = body.rstrip().endswith(_CLOSE_CALLS)
        reason: ParseFault = "text_inside_tag" if is_closed else "unclosed_tag"
        return problem(reason, f"no function with its parameters is {clip(body)}")
    if call[1] != recipient:
        return not_a_call(f"a message to {clip(recipient)} calls {clip(call[1])}")
    return typed_call(call[1], _PARAMETERS.findall(call[2]), schemas)


MUSE_GLIMMER = ReplyFormat(
    name="muse_glimmer",
    is_shown_in=lambda template: _OPEN_CALLS in template,
    read=_read,
    mark=_OPEN_CALLS,
    closing_tag=_CLOSE_CALLS,
    thoughts=((f"to=self{MESSAGE}", _END), *THINK_TAGS),
    vllm_parser="muse_glimmer",
    reasoning_parser="muse_glimmer",
)
