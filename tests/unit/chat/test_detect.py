"""The format of replies is told from the text of a chat template."""

import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.rendering import chat_format, reply_format_of
from orchestrator.core.errors import ConfigError
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

TRL = find_spec("trl")
assert TRL is not None
SHIPPED = Path(str(TRL.origin)).parent / "chat_templates"
"""Templates of many families, as TRL ships them; importing TRL itself would take many seconds."""

LOOP = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}"
END = "{% endfor %}{% endfor %}"
JSON_CALL = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'


HERMES = ["qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_vl", "qwen3_training"]
NO_READER = "<|message_sep|><|function_use|>{{ c.function | tojson }}<|call_sep|>"
"""How a model writes calls that is not known here."""


def shipped(name: str) -> str:
    return (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        *((name, "hermes") for name in HERMES),
        *((name, "llama_json") for name in ("llama3_1", "llama3_2")),
        *((name, "deepseek_v3") for name in ("deepseekv3", "deepseekv3_training", "deepseek_r1_distill")),
    ],
)
def test_templates_of_known_families(name: str, format: str) -> None:
    assert detect_reply_format(shipped(name)) == format


@pytest.mark.parametrize("name", ["llama3", "gemma3", "phi3", "smolvlm", "cohere2", "lfm2", "qwen2_5_vl"])
def test_a_template_without_calls_cannot_tell(name: str) -> None:
    fault = r"eval\.reply_format: .*shows no calls.*Allowed: hermes, llama_json.*Set eval"
    with pytest.raises(ConfigError, match=fault):
        detect_reply_format(shipped(name))


def test_a_notation_without_a_reader_is_not_taken_for_another() -> None:
    seems = r"has no reader \(it seems to mark them with <\|message_sep\|> <\|function_use\|> <\|call_sep\|>\)"
    with pytest.raises(ConfigError, match=rf"eval\.reply_format: .*{seems}.*model\.chat_template to hermes"):
        detect_reply_format(LOOP + NO_READER + END)


@pytest.mark.parametrize(
    ("call", "seems"),
    [
        (f"<tool_call>{JSON_CALL}", "has marks of hermes, granite, qwen_xml, mimo, glm4, but none"),
        ("[CALL_TOOL]{{ c | tojson }}[/CALL_TOOL]", r"seems to mark them with \[CALL_TOOL\] \[/CALL_TOOL\]"),
        ("call {{ c | tojson }}", r"has no reader, so"),
    ],
)
def test_a_notation_without_a_reader_is_described(call: str, seems: str) -> None:
    with pytest.raises(ConfigError, match=rf"{seems}.*CONTRIBUTING\.md says how a reader is added"):
        detect_reply_format(LOOP + call + END)


@pytest.mark.parametrize(
    ("template", "format"),
    [
        (LOOP + f"<tool_call>{JSON_CALL}</tool_call>" + END, "hermes"),
        ("{{ '[TOOL_CALLS]' + message.tool_calls | tojson }}", "mistral"),
        ("{{ '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}", "mistral"),
        ("Reply as [func_name1(params_name1=params_value1, ...), func_name2(params)]." + LOOP + END, "pythonic"),
        (
            "<|start_header_id|>{{ '{\"name\": \"' + c.name + '\", ' }}\n    {{ '\"parameters\": ' }}{{ c.arguments }}",
            "llama_json",
        ),
        ('<|header_start|>{{ \'{"name": "\' + c.name + \'", "parameters": \' }}', "llama_json"),
        ("<|header_start|>Use [func_name1(param1=value1), func_name2(...)]." + LOOP + END, "llama4_pythonic"),
        (LOOP + "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>" + END, "deepseek_v31"),
        (LOOP + "<｜tool▁calls▁begin｜>function<｜tool▁sep｜>\n```json\n" + END, "deepseek_v3"),
        (LOOP + "<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>" + END, "kimi_k2"),
        (LOOP + f"<|tool_call|>[{JSON_CALL}]" + END, "granite"),
        ("Respond with <|tool_call|> followed by a JSON list.", "granite"),
        (LOOP + f"<|tool_call|>{JSON_CALL}<|/tool_call|>" + END, "phi4_mini"),
        (LOOP + f"functools[{JSON_CALL}]" + END, "phi4_mini"),
        (LOOP + "<|START_ACTION|>[{{ c }}]<|END_ACTION|>" + END, "cohere"),
        (LOOP + '<｜DSML｜function_calls><｜DSML｜invoke name="{{ c.name }}">' + END, "deepseek_v32"),
        (LOOP + "{% set t = '｜DSML｜' %}<{{ t }}tool_calls><{{ t }}invoke name=" + END, "deepseek_v4"),
        ("{% set begin = '<minimax:tool_call>' %}" + LOOP + '<invoke name="{{ c.name }}">' + END, "minimax_m2"),
        ("{% set mark = ']<]minimax[>[' %}" + LOOP + '{{ mark }}<invoke name="{{ c.name }}">' + END, "minimax_m3"),
        (LOOP + "<|role_sep|><|function_call|>" + JSON_CALL + END, "gigachat3"),
        ("{% set call_role = 'function call' %}" + LOOP + "<|role_sep|>\n" + JSON_CALL + END, "gigachat3"),
        ("Wrap calls in <function_calls></function_calls> tags." + LOOP + END, "olmo3"),
        (LOOP + f"<tool_calls>[{JSON_CALL}]</tool_calls>" + END, "hunyuan"),
        (LOOP + f"<tool_calls>\n{JSON_CALL}\n</tool_calls>" + END, "minimax_m1"),
        ('as <tool_calls>\\n{"name": <tool-name>}\\n</tool_calls>' + LOOP + "<tool_calls>" + END, "minimax_m1"),
        (LOOP + f"<TOOLCALL>[{JSON_CALL}]</TOOLCALL>" + END, "nemotron_v2"),
        (LOOP + f"<|action_start|><|plugin|>\n{JSON_CALL}<|action_end|>" + END, "internlm"),
        ('Reply with a request {"jsonrpc": "2.0", "method": "tools/call"}.', "mcp"),
        (LOOP + JSON_CALL + END, "json"),
        ('Make calls in an array:\n\n[{"name": "tool", "arguments": {"arg1": "value1"}}, ...]', "json"),
        ("<|start_header_id|>{{ '[' }}{{ '{\"name\": \"' + c.name + '\", ' }}{{ '\"arguments\": ' }}", "json"),
    ],
)
def test_the_mark_of_each_format(template: str, format: str) -> None:
    assert detect_reply_format(template) == format


@pytest.mark.parametrize(
    "template",
    [
        "",
        LOOP + f"<call>{JSON_CALL}</call>" + END,
        LOOP + '<function_calls><invoke name="{{ c.function.name }}"></invoke></function_calls>' + END,
        LOOP + f"<tool_call>{JSON_CALL}" + END,
        '{{ \'{"name": "\' + tool.name + \'", "parameters": \' }}',
    ],
)
def test_what_is_like_a_format_and_is_not_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"eval\.reply_format"):
        detect_reply_format(template)


def test_the_toy_base_is_read_as_hermes() -> None:
    assert detect_reply_format((tiny_base_folder() / "chat_template.jinja").read_text(encoding="utf-8")) == "hermes"


@cache
def toy_tokenizer() -> Any:
    return load_tokenizer(tiny_base_folder(), trust_remote_code=False)


def with_template(template: str) -> Any:
    tokenizer = copy.copy(toy_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


TURN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
TURN_END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def test_the_configuration_decides_where_it_says_something() -> None:
    assert reply_format_of("mcp", with_template(LOOP + END)) == "mcp"
    assert reply_format_of("auto", with_template("[TOOL_CALLS]")) == "mistral"
    with pytest.raises(ConfigError):
        reply_format_of("auto", with_template(LOOP + END))


@pytest.mark.parametrize(
    ("marked", "call", "name"),
    [
        ("", "function call: " + JSON_CALL, "json"),
        ("{# <tool_call></tool_call> #}", '<invoke name="{{ c.function.name }}">{{ c.function.arguments }}', "hermes"),
        ("{# <|tool_call|>{}<|/tool_call|> #}", JSON_CALL, "phi4_mini"),
        ("{# [TOOL_CALLS] #}", "<|im_end|>\n<|im_start|>call\n" + JSON_CALL, "mistral"),
    ],
)
def test_marks_of_a_format_whose_calls_are_written_otherwise_are_not_taken_for_it(
    marked: str, call: str, name: str
) -> None:
    template = marked + TURN + "{% for c in m.tool_calls or [] %}" + call + "{% endfor %}" + TURN_END
    assert detect_reply_format(template) == name
    fault = rf"has no reader \(it has marks of {name}, but writes .*find_orchard.*model\.chat_template to hermes"
    with pytest.raises(ConfigError, match=fault):
        reply_format_of("auto", with_template(template))
    assert chat_format(with_template(template), thinking=False).reply_format is None


@pytest.mark.parametrize("mark", ["<think>", "<|im_end|>", "<tool_calling>"])
def test_a_call_is_read_where_the_prompt_opens_something_that_begins_like_it(mark: str) -> None:
    call = "{% for c in m.tool_calls or [] %}<tool_call>" + JSON_CALL + "</tool_call>{% endfor %}"
    template = TURN + call + TURN_END.replace("assistant\n", f"assistant\n{mark}")
    assert reply_format_of("auto", with_template(template)) == "hermes"


def test_a_call_is_read_whatever_ends_its_turn() -> None:
    template = TURN + "{% for c in m.tool_calls or [] %}" + JSON_CALL + "{% endfor %}" + TURN_END
    assert reply_format_of("auto", with_template(template)) == "json"
    shown_by_words_alone = TURN.replace("{{ m.content }}", "[f(key=value)]{{ m.content }}") + TURN_END
    assert reply_format_of("auto", with_template(shown_by_words_alone)) == detect_reply_format(shown_by_words_alone)
