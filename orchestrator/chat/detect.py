"""How does a base write its calls? Told from the text of its chat template, without rendering it."""

import re
from typing import Literal

from orchestrator.chat.reply import REPLY_FORMATS, ReplyFormat
from orchestrator.core.errors import ConfigError

CONFIG_KEY = "eval.reply_format"

_JSON_CALL = r"\{{\s*\\?[\"']name\\?[\"']\s*:[\s\S]{{0,200}}?\\?[\"']{arguments}\\?[\"']\s*:"
_NAME_THEN_ARGUMENTS = re.compile(_JSON_CALL.format(arguments="arguments"))
_NAME_THEN_PARAMETERS = re.compile(_JSON_CALL.format(arguments="parameters"))
_LLAMA_TURN = re.compile(r"<\|(?:start_header_id|header_start)\|>")
_PYTHON_LIST = re.compile(r"\[\w+\(\w+=")
_CALLS_IN_TAGS = re.compile(r"<function=|<arg_key>|<parameter=")
"""What stands inside `<tool_call>` where it holds no JSON, as with Qwen3-Coder, Qwen3.5, GLM-4.5 and Nemotron 3."""
_OTHER_MARK = re.compile(
    r"<[|\uff5c]?/?\w{0,20}(?:tool|function)[\w\u2581]{0,20}call[\w\u2581]{0,20}[|\uff5c]?>"
    r"|functools\[|<\w{0,20}TOOLCALL|to=functions",
    re.IGNORECASE,
)
"""Marks of calls that no format here has: Granite, Phi-4, DeepSeek, LFM2, Gemma 4, gpt-oss and others."""


def reply_format_of(setting: ReplyFormat | Literal["auto"], chat_template: str) -> ReplyFormat:
    """The format that the configuration sets, else the one that `detect_reply_format` tells.

    Raises:
        ConfigError: If it is `auto` and cannot be told.
    """
    return detect_reply_format(chat_template) if setting == "auto" else setting


def detect_reply_format(chat_template: str) -> ReplyFormat:
    """The format in which a chat template writes calls.

    - `mistral`: the template has `[TOOL_CALLS]`.
    - `hermes`: it has `<tool_call>` and `</tool_call>`, and no other notation for what stands inside.
    - `pythonic`: it shows a list of calls, `[name(argument=...`, and has no mark of another notation.
    - `llama_json`: it has the headers of Llama 3 or 4 and shows an object with `name`, then `parameters`.
    - `mcp`: it has `tools/call`.
    - `json`: it shows an object with `name`, then `arguments`, that stands in no tag.

    Raises:
        ConfigError: If it is none of these: the template shows no calls, or writes them in a way that has no reader.
    """
    has_hermes_tags = "<tool_call>" in chat_template and "</tool_call>" in chat_template
    if "[TOOL_CALLS]" in chat_template:
        return "mistral"
    if has_hermes_tags and not _CALLS_IN_TAGS.search(chat_template):
        return "hermes"
    if not has_hermes_tags and not _OTHER_MARK.search(chat_template):
        if _PYTHON_LIST.search(chat_template):
            return "pythonic"
        if _LLAMA_TURN.search(chat_template) and _NAME_THEN_PARAMETERS.search(chat_template):
            return "llama_json"
        if "tools/call" in chat_template:
            return "mcp"
        if any(not _is_in_tag(chat_template, call.start()) for call in _NAME_THEN_ARGUMENTS.finditer(chat_template)):
            return "json"
    shows = "writes calls in a way that has no reader" if "tool_calls" in chat_template else "shows no calls"
    raise ConfigError(
        f"the base's chat template {shows}, so the format of replies cannot be told",
        where=CONFIG_KEY,
        allowed=", ".join(REPLY_FORMATS),
        fix=f"Set {CONFIG_KEY} to the format that the data teaches, or use a base with tool calls such as Qwen3",
    )


def _is_in_tag(chat_template: str, place: int) -> bool:
    """Whether a tag stands right before a place, white space, its escapes and the bracket of an array aside."""
    before = chat_template[max(0, place - 40) : place].replace("\\n", "").rstrip(" \t\n[")
    return before.endswith((">", "]"))
