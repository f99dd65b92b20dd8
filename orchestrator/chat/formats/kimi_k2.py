"""Calls of Kimi K2: JSON in a section of tokens, each behind its id, which holds the name and the call's number.

    prose<|tool_calls_section_begin|><|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}
    <|tool_call_end|><|tool_calls_section_end|>

White space may stand around the id and the JSON. `sections` says what is an attempt.
"""

import re

from orchestrator.chat.formats.reply import ReplyFormat
from orchestrator.chat.formats.sections import Sections, json_body

_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_CALL = ("<|tool_call_begin|>", "<|tool_call_end|>")
_ARGUMENTS = "<|tool_call_argument_begin|>"

_SECTIONS = Sections(
    section=_SECTION,
    call=_CALL,
    body=json_body(
        re.compile(rf"\s*+(?P<id>functions\.(?P<name>[^\s:<]++(?: ++[^\s:<]++)*+):[0-9]++)\s*+{re.escape(_ARGUMENTS)}"),
        re.compile(rf"\s*+{re.escape(_CALL[1])}"),
    ),
)

KIMI_K2 = ReplyFormat(
    name="kimi_k2",
    is_shown_in=lambda template: _ARGUMENTS in template,
    read=_SECTIONS.read,
    mark=_SECTION[0],
    closing_tag=_SECTION[1],
    other_marks=(*_CALL, _ARGUMENTS),
    vllm_parser="kimi_k2",
    reasoning_parser="kimi_k2",
)
