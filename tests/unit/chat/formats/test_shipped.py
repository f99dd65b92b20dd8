"""What the chat templates that TRL ships write is recognised and read back, types included."""

import json
from functools import cache
from typing import Any

import pytest
from gold_calls import ANYTHING, TEXTS, gold_calls, shipped
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.parse import parse_reply
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

CHATML, GEMMA = "<|im_start|>assistant\n", "<|turn>model\n"
SHIPPED = {
    **dict.fromkeys(("qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"), ("qwen_xml", CHATML)),
    **dict.fromkeys(("nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra"), ("qwen_xml", CHATML)),
    "nemotron_3_5_lightning": ("qwen_xml", CHATML),
    **dict.fromkeys(("gemma4", "gemma4_v2", "gemma4_v3", "gemma4_v4", "gemma4_v5"), ("gemma4", GEMMA)),
    "diffusion_gemma": ("gemma4", GEMMA),
    "gptoss": ("gpt_oss", "<|start|>assistant"),
    "muse_glimmer": ("muse_glimmer", "<|start|>user<|message|>Go.<|eot|><|start|>assistant"),
    "glm4moe": ("glm4", "<|assistant|>"),
    **dict.fromkeys(("lfm2_v2", "lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl"), ("lfm2", CHATML)),
}
UNQUOTED = st.text(st.characters(codec="utf-8", exclude_characters="'\\"))
"""What the templates of LFM2.5 write into single quotes as it is."""


@cache
def tokenizer() -> Any:
    return load_tokenizer(tiny_base_folder(), trust_remote_code=False)


@pytest.mark.parametrize("template", SHIPPED)
def test_the_format_is_told_from_the_template(template: str) -> None:
    assert detect_reply_format(shipped(template)) == SHIPPED[template][0]


@pytest.mark.parametrize("template", SHIPPED)
@settings(max_examples=12)
@given(data=st.data())
def test_what_a_template_writes_is_read_back(template: str, data: st.DataObject) -> None:
    format, before = SHIPPED[template]
    is_bare = template in ("lfm2_2_5", "lfm2_2_5_v2")
    content = "" if format in ("gpt_oss", "muse_glimmer") else "Let me see."  # these write no text beside calls
    gold = data.draw(gold_calls(UNQUOTED if is_bare else TEXTS, ANYTHING, 1 if format == "gpt_oss" else 3))
    text = gold.rendered(tokenizer(), shipped(template), before, content)
    reply = parse_reply(text, format=format, tools=gold.tools)
    assert reply.problems == ()
    found = [(call.function.name, call.function.arguments) for call in reply.calls]
    assert json.dumps(found, sort_keys=True) == json.dumps(gold.calls, sort_keys=True)
    assert reply.prose == content
