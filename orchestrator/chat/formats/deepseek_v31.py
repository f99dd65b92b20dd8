"""Calls of DeepSeek V3.1: as those of V3, without the type and the fence.

    prose<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜><｜tool▁calls▁end｜>

The JSON stands on one line, since vLLM's parser reads no other. `sections` says what is an attempt.
"""

import re

from orchestrator.chat.formats.deepseek_v3 import CALL, FENCE, SECTION, SEPARATOR
from orchestrator.chat.formats.reply import ReplyFormat
from orchestrator.chat.formats.sections import Sections, json_body

_SECTIONS = Sections(
    section=SECTION,
    call=CALL,
    body=json_body(
        re.compile(rf"(?P<name>[^\n<]++){SEPARATOR}"),
        re.compile(rf"[ \t]*+{CALL[1]}"),
        one_line=True,
    ),
)

DEEPSEEK_V31 = ReplyFormat(
    name="deepseek_v31",
    is_shown_in=lambda template: SECTION[0] in template and FENCE not in template,
    read=_SECTIONS.read,
    mark=SECTION[0],
    closing_tag=SECTION[1],
    other_marks=(*CALL, SEPARATOR),
    vllm_parser="deepseek_v31",
)
