"""Chat templates write calls, and the reader of the format that is told from the template gives the same calls back."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from gold_calls import shipped
from small_templates import TEMPLATES

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.parse import parse_reply
from orchestrator.core.records import ToolSpec
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

GOLD: list[tuple[str, dict[str, Any]]] = [
    ("get_weather", {"city": "Zürich 苏黎世", "note": 'say "hi", it\'s [a] {b} <c>\n\\end', "days": 3}),
    ("book", {"code": "007", "items": [{"id": 1, "tags": []}, {"id": 2.5, "tags": ["x", None]}], "is_paid": False}),
    ("list_all", {}),
]
SCHEMA = {
    "type": "object",
    "properties": {
        "days": {"type": "integer"},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "number"},
                    "tags": {"type": "array", "items": {"type": ["string", "null"]}},
                },
            },
        },
        "is_paid": {"type": "boolean"},
    },
}
ONE_CALL = ("gigachat3",)
"""Formats in which a turn holds one call."""


def written(template: str, *, as_text: bool, content: str, gold: Sequence[tuple[str, dict[str, Any]]] = GOLD) -> str:
    """What a template makes of the turn with the gold calls."""
    calls = [
        {
            "type": "function",
            "id": f"call_{n}",
            "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=False) if as_text else given},
        }
        for n, (name, given) in enumerate(gold)
    ]
    turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": content, "tool_calls": calls}]
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    assert isinstance(text, str)
    return text.partition("Go.")[2].removeprefix("<assistant>").removeprefix("<｜Assistant｜>")


def check(
    template: str,
    format: str,
    text: str,
    content: str,
    tools: Sequence[ToolSpec] = (),
    gold: Sequence[tuple[str, dict[str, Any]]] = GOLD,
) -> None:
    assert detect_reply_format(template) == format
    reply = parse_reply(text, format=format, tools=tools)
    assert reply.problems == ()
    assert json.dumps([(call.function.name, call.function.arguments) for call in reply.calls]) == json.dumps(gold)
    assert reply.prose == content


@pytest.mark.parametrize("content", ["", "One moment."])
@pytest.mark.parametrize("format", TEMPLATES)
def test_a_small_template_of_each_notation(format: str, content: str) -> None:
    if format in ("llama4_pythonic", "pythonic", "llama_json", "json"):
        content = ""  # nothing stands beside these calls
    tools = [ToolSpec.model_validate({"function": {"name": name, "parameters": SCHEMA}}) for name, _ in GOLD]
    gold = GOLD[:1] if format in ONE_CALL else GOLD
    text = written(TEMPLATES[format], as_text=False, content=content, gold=gold)
    check(TEMPLATES[format], format, text, content, tools, gold)


@pytest.mark.parametrize(
    ("name", "format", "as_text"), [("deepseekv3", "deepseek_v3", True), ("deepseekv3_training", "deepseek_v3", False)]
)
def test_templates_that_trl_ships(name: str, format: str, *, as_text: bool) -> None:
    template = shipped(name)
    check(template, format, written(template, as_text=as_text, content="One moment."), "One moment.")
