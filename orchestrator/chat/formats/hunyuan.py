"""Calls of Hunyuan A13B and Apriel 1.5: one JSON array in tags.

prose <tool_calls>[{"name": "...", "arguments": {...}}, ...]</tool_calls>

The module `between_tags` says what is an attempt.
"""

import re

from orchestrator.chat.formats.between_tags import array_of, value_reader
from orchestrator.chat.formats.reply import ReplyFormat

OPEN_CALLS, CLOSE_CALLS = "<tool_calls>", "</tool_calls>"
_SHOWN = re.compile(rf"{OPEN_CALLS}\s*\[")

HUNYUAN = ReplyFormat(
    name="hunyuan",
    is_shown_in=lambda template: _SHOWN.search(template) is not None,
    read=value_reader(OPEN_CALLS, CLOSE_CALLS, array_of()),
    mark=OPEN_CALLS,
    closing_tag=CLOSE_CALLS,
    vllm_parser="hunyuan_a13b",
)
