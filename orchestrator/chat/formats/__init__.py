"""How each family of models writes its calls: one file and one row for each format."""

import re

from orchestrator.chat.formats.cohere import COHERE
from orchestrator.chat.formats.deepseek_v3 import DEEPSEEK_V3
from orchestrator.chat.formats.deepseek_v4 import DEEPSEEK_V4
from orchestrator.chat.formats.deepseek_v31 import DEEPSEEK_V31
from orchestrator.chat.formats.deepseek_v32 import DEEPSEEK_V32
from orchestrator.chat.formats.functiongemma import FUNCTIONGEMMA
from orchestrator.chat.formats.gemma4 import GEMMA4
from orchestrator.chat.formats.gigachat3 import GIGACHAT3
from orchestrator.chat.formats.glm4 import GLM4
from orchestrator.chat.formats.gpt_oss import GPT_OSS
from orchestrator.chat.formats.granite import GRANITE
from orchestrator.chat.formats.hermes import HERMES
from orchestrator.chat.formats.hunyuan import HUNYUAN
from orchestrator.chat.formats.internlm import INTERNLM
from orchestrator.chat.formats.json import JSON
from orchestrator.chat.formats.kimi_k2 import KIMI_K2
from orchestrator.chat.formats.lfm2 import LFM2
from orchestrator.chat.formats.llama4_pythonic import LLAMA4_PYTHONIC
from orchestrator.chat.formats.llama_json import LLAMA_JSON
from orchestrator.chat.formats.mcp import MCP
from orchestrator.chat.formats.mimo import MIMO
from orchestrator.chat.formats.minimax_m1 import MINIMAX_M1
from orchestrator.chat.formats.minimax_m2 import MINIMAX_M2
from orchestrator.chat.formats.minimax_m3 import MINIMAX_M3
from orchestrator.chat.formats.mistral import MISTRAL
from orchestrator.chat.formats.muse_glimmer import MUSE_GLIMMER
from orchestrator.chat.formats.nemotron_v2 import NEMOTRON_V2
from orchestrator.chat.formats.olmo3 import OLMO3
from orchestrator.chat.formats.phi4_mini import PHI4_MINI
from orchestrator.chat.formats.pythonic import PYTHONIC
from orchestrator.chat.formats.qwen_xml import QWEN_XML
from orchestrator.chat.formats.seed_oss import SEED_OSS
from orchestrator.core.errors import ConfigError

_ROWS = (
    HERMES,
    LLAMA_JSON,
    MISTRAL,
    PYTHONIC,
    DEEPSEEK_V3,
    DEEPSEEK_V31,
    DEEPSEEK_V32,
    DEEPSEEK_V4,
    GRANITE,
    KIMI_K2,
    PHI4_MINI,
    LLAMA4_PYTHONIC,
    OLMO3,
    QWEN_XML,
    SEED_OSS,
    MIMO,
    COHERE,
    GEMMA4,
    FUNCTIONGEMMA,
    GPT_OSS,
    MUSE_GLIMMER,
    GLM4,
    LFM2,
    MINIMAX_M1,
    MINIMAX_M2,
    MINIMAX_M3,
    GIGACHAT3,
    HUNYUAN,
    INTERNLM,
    NEMOTRON_V2,
    MCP,
    JSON,
)
REPLY_FORMATS = {form.name: form for form in _ROWS}
"""Every format, by its name in the configuration and on the command line."""

CONFIG_KEY = "eval.reply_format"
_MARK = re.compile(r"</?[\w|｜▁:.-]{2,40}>|\[/?[A-Z_]{3,30}\]")
"""What marks a call in a chat template, as families write such things."""


def detect_reply_format(chat_template: str) -> str:
    """The name of the format in which a chat template, as text, writes calls; the lowest precedence wins.

    Raises:
        ConfigError: If there is none: the template shows no calls, or writes them in a way that has no reader.
    """
    for form in sorted(REPLY_FORMATS.values(), key=lambda form: form.precedence):
        if form.is_shown_in(chat_template):
            return form.name
    if "tool_calls" in chat_template:
        raise without_reader(_seems(chat_template))
    raise _unknown("shows no calls", "use a base with tool calls such as Qwen3")


def without_reader(seems: str) -> ConfigError:
    """The error of a chat template that writes calls which no format reads; `seems` is what they are like."""
    fix = "model.chat_template to hermes, which any base can learn; CONTRIBUTING.md says how a reader is added"
    return _unknown(f"writes calls in a way that has no reader{f' ({seems})' if seems else ''}", fix)


def _unknown(shows: str, fix: str) -> ConfigError:
    return ConfigError(
        f"the base's chat template {shows}, so the format of replies cannot be inferred",
        where=CONFIG_KEY,
        allowed=", ".join(REPLY_FORMATS),
        fix=f"Set {CONFIG_KEY} to the format that the data teaches, or {fix}",
    )


def _seems(chat_template: str) -> str:
    """How a chat template without a known notation seems to write its calls, as far as it has marks."""
    like = [form.name for form in _ROWS if any(tag in chat_template for tag in form.tags)]
    if like:
        return f"it has marks of {', '.join(like)}, but none of these as a whole"
    marks = dict.fromkeys(_MARK.findall(chat_template[chat_template.index("tool_calls") :]))
    return f"it seems to mark them with {' '.join([*marks][:4])}" if marks else ""
