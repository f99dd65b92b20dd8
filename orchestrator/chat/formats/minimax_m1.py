"""Calls of MiniMax M1: JSON objects in tags, one a line.

    prose <tool_calls>
    {"name": "...", "arguments": {...}}
    {"name": "...", "arguments": {...}}
    </tool_calls>

The module `between_tags` says what is an attempt.
"""

import re

from orchestrator.chat.formats.between_tags import lines_reader
from orchestrator.chat.formats.hunyuan import CLOSE_CALLS, OPEN_CALLS
from orchestrator.chat.formats.reply import ReplyFormat

_SHOWN = re.compile(rf"{OPEN_CALLS}(?:\\n|\s)*\{{")

MINIMAX_M1 = ReplyFormat(
    name="minimax_m1",
    is_shown_in=lambda template: _SHOWN.search(template) is not None,
    read=lines_reader(OPEN_CALLS, CLOSE_CALLS),
    mark=OPEN_CALLS,
    closing_tag=CLOSE_CALLS,
)
