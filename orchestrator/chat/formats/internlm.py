"""Calls of InternLM 2 and later: prose, and each call as one JSON object between tokens.

prose<|action_start|><|plugin|>{"name": "...", "parameters": {...}}<|action_end|>

`arguments` is taken for `parameters`, as by vLLM's parser, which reads one call a reply. The module `between_tags`
says what is an attempt.
"""

from orchestrator.chat.formats.between_tags import value_reader
from orchestrator.chat.formats.reply import ReplyFormat, as_call

_OPEN_CALL, _CLOSE_CALL = "<|action_start|><|plugin|>", "<|action_end|>"

INTERNLM = ReplyFormat(
    name="internlm",
    is_shown_in=lambda template: _OPEN_CALL in template,
    read=value_reader(
        _OPEN_CALL, _CLOSE_CALL, lambda value: [as_call(value, arguments_keys=("parameters", "arguments"))]
    ),
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    vllm_parser="internlm",
)
