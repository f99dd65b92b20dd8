"""Calls of MiMo: those of `qwen_xml`, but all that stands between the tags of a parameter is its value.

<tool_call>
<function=name>
<parameter=city>Oslo</parameter>
</function>
</tool_call>
"""

import re
from dataclasses import replace

from orchestrator.chat.formats.qwen_xml import QWEN_XML, xml_reader

_WITHOUT_LINE_BREAK = re.compile(r"<parameter=[\"']\s*[+~]\s*\w+\s*[+~]\s*[\"']>[\"']")

MIMO = replace(
    QWEN_XML,
    name="mimo",
    is_shown_in=lambda template: QWEN_XML.is_shown_in(template) and bool(_WITHOUT_LINE_BREAK.search(template)),
    read=xml_reader(QWEN_XML.tags[0], value=str),
    precedence=0,
    vllm_parser="mimo",
    reasoning_parser="mimo",
)
