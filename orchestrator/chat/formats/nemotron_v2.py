"""Calls of Nemotron Nano 2 and the Nemotron models made of Llama 3: one JSON array in tags.

<TOOLCALL>[{"name": "...", "arguments": {...}}, ...]</TOOLCALL>

The module `between_tags` says what is an attempt.
"""

from orchestrator.chat.formats.between_tags import array_of, value_reader
from orchestrator.chat.formats.reply import ReplyFormat

_OPEN_CALLS, _CLOSE_CALLS = "<TOOLCALL>", "</TOOLCALL>"

NEMOTRON_V2 = ReplyFormat(
    name="nemotron_v2",
    is_shown_in=lambda template: _OPEN_CALLS in template and _CLOSE_CALLS in template,
    read=value_reader(_OPEN_CALLS, _CLOSE_CALLS, array_of()),
    mark=_OPEN_CALLS,
    closing_tag=_CLOSE_CALLS,
)
