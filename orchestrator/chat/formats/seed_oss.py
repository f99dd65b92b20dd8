"""Calls of Seed-OSS: those of `qwen_xml` with other tags around calls and thoughts.

<seed:tool_call><function=name><parameter=city>Oslo</parameter></function></seed:tool_call>
"""

from orchestrator.chat.formats.qwen_xml import shows_parameters, xml_reader
from orchestrator.chat.formats.reply import THINK_TAGS, ReplyFormat

_OPEN_CALL = "<seed:tool_call>"

SEED_OSS = ReplyFormat(
    name="seed_oss",
    is_shown_in=lambda template: shows_parameters(template) and _OPEN_CALL in template,
    read=xml_reader(_OPEN_CALL),
    mark=_OPEN_CALL,
    closing_tag="</seed:tool_call>",
    thoughts=(("<seed:think>", "</seed:think>"), *THINK_TAGS),
    vllm_parser="seed_oss",
    reasoning_parser="seed_oss",
)
