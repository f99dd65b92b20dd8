"""Calls of FunctionGemma: those of `gemma4` with other tokens.

<start_function_call>call:name{city:<escape>Oslo<escape>,days:3}<end_function_call>
"""

from orchestrator.chat.formats.gemma4 import brace_reader
from orchestrator.chat.formats.reply import ReplyFormat

_OPEN_CALL, _CLOSE_CALL = "<start_function_call>", "<end_function_call>"

FUNCTIONGEMMA = ReplyFormat(
    name="functiongemma",
    is_shown_in=lambda template: _OPEN_CALL in template,
    read=brace_reader(_OPEN_CALL, _CLOSE_CALL, "<escape>"),
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    vllm_parser="functiongemma",
)
