"""Calls of DeepSeek V3 and R1, and of the models distilled from R1: JSON in a fence, in a section of tokens.

    prose<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>name
    ```json
    {...}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

The JSON stands on one line, since vLLM's parser reads no other. `sections` says what is an attempt.
"""

import re

from orchestrator.chat.formats.reply import ReplyFormat
from orchestrator.chat.formats.sections import Sections, json_body

SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
CALL = ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")
SEPARATOR = "<｜tool▁sep｜>"
FENCE = "```json"

_SECTIONS = Sections(
    section=SECTION,
    call=CALL,
    body=json_body(
        re.compile(rf"function{SEPARATOR}(?P<name>[^\n<]++)\n{FENCE}\n"),
        re.compile(rf"[ \t]*+\n```{CALL[1]}"),
        one_line=True,
    ),
)

DEEPSEEK_V3 = ReplyFormat(
    name="deepseek_v3",
    is_shown_in=lambda template: SECTION[0] in template and FENCE in template,
    read=_SECTIONS.read,
    mark=SECTION[0],
    closing_tag=SECTION[1],
    other_marks=(*CALL, SEPARATOR),
    vllm_parser="deepseek_v3",
)
