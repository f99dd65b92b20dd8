"""Chat templates write calls, and the reader of the format that is told from the template gives the same calls back."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.parse import parse_reply
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

GOLD: list[tuple[str, dict[str, Any]]] = [
    ("get_weather", {"city": "Zürich 苏黎世", "note": 'say "hi", it\'s [a] {b} <c>\n\\end', "days": 3}),
    ("book", {"code": "007", "items": [{"id": 1, "tags": []}, {"id": 2.5, "tags": ["x", None]}], "is_paid": False}),
    ("list_all", {}),
]
TURNS = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% else %}<assistant>{{ m.content }}"
CALLS = "{% for c in m.tool_calls %}"
END = "{% endfor %}"
NAME, GIVEN = "{{ c.function.name }}", "{{ c.function.arguments | tojson }}"
OBJECT = f'{{"name": "{NAME}", "arguments": {GIVEN}}}'
COMMA = "{% if not loop.last %}, {% endif %}"
PYTHON = (
    NAME + "({% for key, value in c.function.arguments | items %}{{ key }}={% if value is string %}"
    r"""{{ '"' }}{{ value | replace('\\', '\\\\') | replace('"', '\\"') | replace('\n', '\\n') }}{{ '"' }}"""
    "{% else %}{{ value | tojson }}{% endif %}" + COMMA + "{% endfor %})"
)
VALUE = "{{ value if value is string else value | tojson }}"
DSML = (
    f'<｜DSML｜invoke name="{NAME}">\n{{% for key, value in c.function.arguments | items %}}'
    """<｜DSML｜parameter name="{{ key }}" string="{{ 'true' if value is string else 'false' }}">"""
    + VALUE
    + "</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>\n"
)
TEMPLATES = {
    "deepseek_v31": f"<｜tool▁calls▁begin｜>{CALLS}<｜tool▁call▁begin｜>{NAME}<｜tool▁sep｜>{GIVEN}"
    f"<｜tool▁call▁end｜>{END}<｜tool▁calls▁end｜>",
    "kimi_k2": f"<|tool_calls_section_begin|>{CALLS}<|tool_call_begin|>functions.{NAME}:{{{{ loop.index0 }}}}"
    f"<|tool_call_argument_begin|>{GIVEN}<|tool_call_end|>{END}<|tool_calls_section_end|>",
    "granite": f"<|tool_call|>[{CALLS}{OBJECT}{COMMA}{END}]",
    "phi4_mini": f"{CALLS}<|tool_call|>{OBJECT}<|/tool_call|>{END}",
    "llama4_pythonic": "{# <|header_start|> [f(key=value)] #}"
    f"<|python_start|>[{CALLS}{PYTHON}{COMMA}{END}]<|python_end|>",
    "olmo3": f"<function_calls>\n{CALLS}{PYTHON}\n{END}</function_calls>",
    "cohere": f'<|START_ACTION|>[{CALLS}{{"tool_call_id": "{{{{ loop.index0 }}}}", "tool_name": "{NAME}", '
    f'"parameters": {GIVEN}}}{COMMA}{END}]<|END_ACTION|>',
    "deepseek_v32": f"<｜DSML｜function_calls>\n{CALLS}{DSML}{END}</｜DSML｜function_calls>",
    "deepseek_v4": f"<｜DSML｜tool_calls>\n{CALLS}{DSML}{END}</｜DSML｜tool_calls>",
    "hermes": f"{CALLS}<tool_call>\n{OBJECT}\n</tool_call>\n{END}",  # as Granite 4 and SmolLM3 write them
    "json": f"{{# [{OBJECT}] #}}[{CALLS}{OBJECT}{COMMA}{END}]",  # as xLAM and Hammer do
}
"""By format, how the turn of an assistant with calls ends in a small template of that notation."""


def written(template: str, *, as_text: bool, content: str) -> str:
    """What a template makes of the turn with the gold calls."""
    calls = [
        {
            "type": "function",
            "id": f"call_{n}",
            "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=False) if as_text else given},
        }
        for n, (name, given) in enumerate(GOLD)
    ]
    turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": content, "tool_calls": calls}]
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    assert isinstance(text, str)
    return text.partition("Go.")[2].removeprefix("<assistant>").removeprefix("<｜Assistant｜>")


def check(template: str, format: str, text: str, content: str) -> None:
    assert detect_reply_format(template) == format
    reply = parse_reply(text, format=format)
    assert reply.problems == ()
    assert json.dumps([(call.function.name, call.function.arguments) for call in reply.calls]) == json.dumps(GOLD)
    assert reply.prose == content


@pytest.mark.parametrize("content", ["", "One moment."])
@pytest.mark.parametrize("format", TEMPLATES)
def test_a_small_template_of_each_notation(format: str, content: str) -> None:
    if format in ("llama4_pythonic", "json"):
        content = ""  # nothing stands beside these calls
    template = f"{TURNS}{TEMPLATES[format]}{{% endif %}}{{% endfor %}}"
    check(template, format, written(template, as_text=False, content=content), content)


@pytest.mark.parametrize(
    ("name", "format", "as_text"), [("deepseekv3", "deepseek_v3", True), ("deepseekv3_training", "deepseek_v3", False)]
)
def test_templates_that_trl_ships(name: str, format: str, *, as_text: bool) -> None:
    trl = find_spec("trl")
    assert trl is not None
    template = (Path(str(trl.origin)).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    check(template, format, written(template, as_text=as_text, content="One moment."), "One moment.")
