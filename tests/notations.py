"""The notations of calls: how a template writes each, and who reads it."""

from collections.abc import Callable
from functools import cache
from keyword import iskeyword
from typing import Any, NamedTuple

from gold_calls import ANYTHING, NAMES, TEXTS, Gold, nested, shipped
from hypothesis import strategies as st
from small_templates import OTHERS, TEMPLATES

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.serving import serving_reader
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder


class Notation(NamedTuple):
    """A format as a shipped template writes it.

    `before` is what stands before an assistant's turn, `tags` are the marks to break, `texts` and `names` those that
    vLLM and the template give back, `inner` such values in objects and arrays. `response_template` is the name of
    TRL's template for transformers' reader, and `lost` the keys of `PLAIN` whose values that one reads otherwise.
    `parser` is the one of vLLM where it is not that of the format.
    """

    format: str
    template: str
    before: str
    tags: tuple[str, ...]
    texts: st.SearchStrategy[str] = TEXTS
    inner: st.SearchStrategy[Any] = ANYTHING
    response_template: str | None = None
    lost: tuple[str, ...] = ()
    max_calls: int = 3
    names: st.SearchStrategy[str] = NAMES
    parser: str | None = None


ONE_LINE = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]))
PYTHON_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not iskeyword(name))


def small(
    format: str, texts: st.SearchStrategy[str] = TEXTS, names: st.SearchStrategy[str] = NAMES, parser: str | None = None
) -> Notation:
    """A format as its small template writes it."""
    tags = REPLY_FORMATS[format].tags or ("[", "]")
    return Notation(format, format, "<assistant>", tags, texts, names=names, parser=parser)


CHATML = "<|im_start|>assistant\n"
XML_TAGS = ("<tool_call>", "</tool_call>", "</function>", "</parameter>")
GLM_TAGS = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
NOTATIONS = {
    "qwen 3.5": Notation("qwen_xml", "qwen3_5_think", CHATML, XML_TAGS, response_template="qwen3_5_template"),
    "gemma 4": Notation(
        "gemma4",
        "gemma4_v5",
        "<|turn>model\n",
        ("<|tool_call>", "<tool_call|>", '<|"|>'),
        inner=nested(TEXTS),
        response_template="gemma4_template",
    ),
    "gpt-oss": Notation(
        "gpt_oss",
        "gptoss",
        "<|start|>assistant",
        ("<|channel|>", "<|message|>", "<|call|>", "to=functions."),
        response_template="gptoss_template",
        max_calls=1,
    ),
    "muse glimmer": Notation(
        "muse_glimmer",
        "muse_glimmer",
        "<|start|>user<|message|>Go.<|eot|><|start|>assistant",
        ("<|start|>", "<|message|>", "<atem:function_calls>", "</atem:invoke>", "</atem:parameter>"),
        texts=st.text("abc <\n", max_size=6),
    ),
    "glm 4": Notation("glm4", "glm4moe", "<|assistant|>", GLM_TAGS, response_template="glm4moe_template"),
    "lfm 2": Notation("lfm2", "lfm2_v2", CHATML, ("<|tool_call_start|>", "<|tool_call_end|>")),
    "lfm 2.5": Notation(
        "lfm2",
        "lfm2_2_5",
        CHATML,
        ("<|tool_call_start|>", "<|tool_call_end|>"),
        texts=st.text("abc ,=()[]", max_size=6),
        response_template="lfm2_2_5_template",
        lost=("flag", "array"),
    ),
    "qwen 3.8": Notation("qwen_xml", "qwen3_8", CHATML, XML_TAGS, response_template="qwen3_5_template"),
    "deepseek v3": Notation(
        "deepseek_v3", "deepseekv3_training", "<｜Assistant｜>", ("\n```json\n", *REPLY_FORMATS["deepseek_v3"].tags)
    ),
    **{name: small(name) for name in ("deepseek_v31", "deepseek_v32", "deepseek_v4", "kimi_k2", "granite")},
    "minimax m2": small("minimax_m2"),
    "minimax m3": small("minimax_m3")._replace(
        inner=st.recursive(TEXTS, lambda part: st.dictionaries(NAMES, part, min_size=1, max_size=2))
    ),  # an array without a schema of its own is an object with items
    "gigachat 3": small("gigachat3")._replace(max_calls=1),
    "seed_oss": small(
        "seed_oss", TEXTS.map(lambda text: text.strip("\n"))
    ),  # line breaks around a value are no part of it
    **{name: small(name) for name in ("mimo", "mistral", "llama_json")},
    "functiongemma": small("functiongemma"),
    "hunyuan": small("hunyuan"),
    "internlm": small("internlm")._replace(max_calls=1),
    "mistral v3": small("mistral")._replace(template=OTHERS["mistral"], tags=("[TOOL_CALLS]",)),
    "phi 4 mini": small("phi4_mini")._replace(template=OTHERS["phi4_mini"], tags=("functools[",)),
    "phi 4 mini tags": small("phi4_mini"),
    "glm 4.7": small("glm4", parser="glm47")._replace(template=OTHERS["glm4"]),
    "pythonic": small("pythonic", ONE_LINE, PYTHON_NAMES),
    "qwen 3": Notation("hermes", "qwen3", CHATML, ("<tool_call>", "</tool_call>")),
    "granite 4": small("hermes", parser="granite4")._replace(tags=()),  # it gives every call up for one stray tag
    "xlam": small("json", parser="xlam"),
    "llama 4": small("llama4_pythonic", ONE_LINE, PYTHON_NAMES),
    "olmo 3": small("olmo3", ONE_LINE, PYTHON_NAMES),
}


@cache
def tokenizer(notation: str) -> Any:
    """The toy tokenizer with the marks of the notation, which some parsers ask for."""
    made = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    form = REPLY_FORMATS[NOTATIONS[notation].format]
    marks = [*form.tags, *(mark for marks in form.thoughts for mark in marks)]
    marks += ["[ARGS]"] if NOTATIONS[notation].format == "mistral" and notation != "mistral v3" else []
    made.add_special_tokens({"additional_special_tokens": marks})
    return made


@cache
def reader(notation: str) -> Callable[..., Any]:
    row = NOTATIONS[notation]
    parser = row.parser or REPLY_FORMATS[row.format].vllm_parser
    assert parser is not None
    return serving_reader(parser, tokenizer(notation))


def written(notation: str, gold: Gold) -> str:
    row = NOTATIONS[notation]
    template = row.template if "{" in row.template else TEMPLATES.get(row.template) or shipped(row.template)
    return gold.rendered(tokenizer(notation), template, row.before)
