"""vLLM's own tool-call parsers read what the project's strict parser reads, and what else they read is told."""

import json
import logging
import re
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, make_call, make_config, make_sample, make_tool, user, weather_samples, write_samples

from evals.check.of_template import template_findings
from evals.check.parity import check_parity, require_parity
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.chat.parse import parse_reply, serving_differs
from orchestrator.chat.serving import reader_or_refusal, serving_reader
from orchestrator.core.errors import EvaluationError
from orchestrator.core.records import ToolSpec
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.models.base import load_tokenizer
from orchestrator.run.folder import open_run
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm

DEEPSEEK = [
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
]
MARKS = {
    "llama": ["<|python_tag|>"],
    "mistral v3": ["[TOOL_CALLS]"],
    "mistral v11": ["[TOOL_CALLS]", "[ARGS]"],
    "deepseek_v3": list(REPLY_FORMATS["deepseek_v3"].tags),
    "deepseek_v31": list(REPLY_FORMATS["deepseek_v31"].tags),
    "granite": ["<|tool_call|>"],
    "deepseek_v32": list(REPLY_FORMATS["deepseek_v32"].tags[:2]),
    "deepseek_v4": list(REPLY_FORMATS["deepseek_v4"].tags[:2]),
    "kimi_k2": list(REPLY_FORMATS["kimi_k2"].tags),
    "phi4_mini": ["<|tool_call|>", "<|/tool_call|>"],
    "llama4_pythonic": ["<|python_start|>", "<|python_end|>"],
}


def tokenizer_with(marks: list[str]) -> Any:
    """The toy tokenizer with more special tokens: what a parser asks of its family's vocabulary."""
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    return tokenizer


OFFERED = [make_tool(name) for name in ("f", "g", "m.f", "get_weather")]


def reader(format: str, family: str = "") -> Callable[[str], ServedReply]:
    name = REPLY_FORMATS[format].vllm_parser
    assert name is not None
    read = serving_reader(name, tokenizer_with(MARKS.get(family or format, [])))
    return lambda text: read(text, OFFERED)


def test_formats_that_vllm_has_a_parser_for() -> None:
    names = {name: form.vllm_parser for name, form in REPLY_FORMATS.items()}
    others = {"llama_json": "llama3_json", "phi4_mini": "phi4_mini_json", "qwen_xml": "qwen3_coder"}
    others |= {"glm4": "glm45", "gpt_oss": "openai", "json": "xlam", "hunyuan": "hunyuan_a13b"}
    without = dict.fromkeys(("mcp", "cohere", "minimax_m1", "nemotron_v2"))
    assert names == {name: others.get(name, name) for name in names} | without


TWO_LLAMA = '<|python_tag|>{"name": "f", "parameters": {"a": [1]}}; {"name": "g", "parameters": {}}'
TWO_MISTRAL = 'Sure.[TOOL_CALLS] [{"name": "f", "arguments": {"a": "x"}}, {"name": "g", "arguments": {}}]'
TWO_PYTHONIC = "[f(a=[1, 2.5], b='x', c={'d': True}), g()]"
CALL = '{"name": "f", "arguments": {"n": 1.0, "s": "ü"}}'
V3 = (
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"n": 1.0, "s": "ü"}\n```'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)
V31 = V3.replace("function<｜tool▁sep｜>f\n```json\n", "f<｜tool▁sep｜>").replace("\n```", "")
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.m.f:0<|tool_call_argument_begin|>"
    '{"n": 1.0, "s": "ü"}<|tool_call_end|><|tool_calls_section_end|>'
)
DSML = (
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n'
    '<｜DSML｜parameter name="n" string="false">1.0</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="s" string="true">ü</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>'
)
ONE_HERMES = '<tool_call>\n{"name": "f", "arguments": {"n": 1.0, "s": "ü"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("format", "family", "text", "calls", "content"),
    [
        ("hermes", "", ONE_HERMES, [("f", {"n": 1.0, "s": "ü"})], ""),
        ("hermes", "", f"Well.\n{ONE_HERMES}\n{ONE_HERMES}", [("f", {"n": 1.0, "s": "ü"})] * 2, "Well.\n"),
        ("hermes", "", "nothing", [], "nothing"),
        ("hermes", "", "<tool_call>{broken</tool_call>", [], "<tool_call>{broken</tool_call>"),
        ("llama_json", "llama", TWO_LLAMA, [("f", {"a": [1]}), ("g", {})], ""),
        ("llama_json", "llama", '{"answer": 42}', [], '{"answer": 42}'),
        ("mistral", "mistral v3", TWO_MISTRAL, [("f", {"a": "x"}), ("g", {})], "Sure."),
        ("mistral", "mistral v11", '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{}', [("f", {"a": 1}), ("g", {})], ""),
        ("pythonic", "", TWO_PYTHONIC, [("f", {"a": [1, 2.5], "b": "x", "c": {"d": True}}), ("g", {})], ""),
        ("pythonic", "", "It is sunny.", [], "It is sunny."),
        ("deepseek_v3", "", f"Well.{V3}", [("f", {"n": 1.0, "s": "ü"})], "Well."),
        ("deepseek_v31", "", f"Well.{V31}", [("f", {"n": 1.0, "s": "ü"})], "Well."),
        ("deepseek_v32", "", f"Well.{DSML}", [("f", {"n": 1.0, "s": "ü"})], "Well."),
        ("deepseek_v4", "", DSML.replace("function_calls", "tool_calls"), [("f", {"n": 1.0, "s": "ü"})], ""),
        ("kimi_k2", "", f"Well.{KIMI}", [("m.f", {"n": 1.0, "s": "ü"})], "Well."),
        ("granite", "", f"Well.<|tool_call|>[{CALL}, {CALL}] Done.", [("f", {"n": 1.0, "s": "ü"})] * 2, "Well."),
        ("granite", "", f"<tool_call> [{CALL}]", [("f", {"n": 1.0, "s": "ü"})], ""),
        ("phi4_mini", "", f"functools[{CALL}, {CALL}]", [("f", {"n": 1.0, "s": "ü"})] * 2, ""),
        ("json", "", f"[{CALL}, {CALL}]", [("f", {"n": 1.0, "s": "ü"})] * 2, ""),
        ("hunyuan", "", f"Well.<tool_calls>[{CALL}, {CALL}]</tool_calls>", [("f", {"n": 1.0, "s": "ü"})] * 2, "Well."),
        ("internlm", "", f"Hi.<|action_start|><|plugin|>\n{CALL}<|action_end|>", [("f", {"n": 1.0, "s": "ü"})], "Hi."),
        ("llama4_pythonic", "", TWO_PYTHONIC, [("f", {"a": [1, 2.5], "b": "x", "c": {"d": True}}), ("g", {})], ""),
        (
            "llama4_pythonic",
            "",
            f"<|python_start|>{TWO_PYTHONIC[:2]}(a=[None])]<|python_end|>",
            [("f", {"a": [None]})],
            "",
        ),
        (
            "olmo3",
            "",
            "<function_calls>\nf(a=[1, true])\ng()\n</function_calls>",
            [("f", {"a": [1, True]}), ("g", {})],
            "",
        ),
    ],
)
def test_both_parsers_read_the_same_calls(
    format: str, family: str, text: str, calls: list[tuple[str, Any]], content: str
) -> None:
    served = reader(format, family)(text)
    assert [(name, json.loads(arguments)) for name, arguments in served.calls] == calls
    assert (served.parser, served.content, served.error) == (REPLY_FORMATS[format].vllm_parser, content, None)
    assert not serving_differs(parse_reply(text, format=format), served)


@pytest.mark.parametrize(
    ("format", "family", "text", "served"),
    [
        ("hermes", "", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', (("f", '{"a": NaN}'),)),
        ("hermes", "", '<tool_call>{"name": "f", "arguments": {"a": 1, "a": 2}}</tool_call>', (("f", '{"a": 2}'),)),
        ("hermes", "", '<tool_call>{"name": "f", "arguments": {}}', (("f", "{}"),)),
        ("hermes", "", f"{ONE_HERMES}<tool_call>{{</tool_call>", ()),
        ("llama_json", "llama", 'Sure: {"name": "f", "parameters": {}}', (("f", "{}"),)),
        ("mistral", "mistral v3", "[TOOL_CALLS]f{}", ()),
        ("pythonic", "", "[math.sqrt(x=4)]", ()),
        # A string that holds the token at which vLLM's parser cuts.
        ("deepseek_v31", "", V31.replace("ü", "<｜tool▁call▁end｜>"), (("f", '{"n": 1.0, "s": "'),)),
        # vLLM's parser asks for no end of the section, and for no id that is one of functions.
        ("deepseek_v3", "", V3.removesuffix("<｜tool▁calls▁end｜>"), (("f", '{"n": 1.0, "s": "ü"}'),)),
        ("kimi_k2", "", KIMI.replace("functions.m.", ""), (("f", '{"n": 1.0, "s": "ü"}'),)),
        ("granite", "", f"<|tool_call|>[{CALL}", (("f", '{"n": 1.0, "s": "ü"}'),)),
        # A parameter that does not say whether it is a text is one, if it is no JSON.
        ("deepseek_v32", "", DSML.replace(' string="true"', ""), (("f", '{"n": 1.0, "s": "ü"}'),)),
        ("deepseek_v32", "", DSML.replace("1.0", "one"), (("f", '{"n": "one", "s": "ü"}'),)),
        # Of Phi-4-mini vLLM's parser reads neither the model's own tokens nor a bracket inside the array.
        ("phi4_mini", "", f"<|tool_call|>{CALL}<|/tool_call|>", ()),
        ("phi4_mini", "", 'functools[{"name": "f", "arguments": {"a": [1]}}]', ()),
        ("phi4_mini", "", f"functools[{CALL}] functools[{CALL}]", (("f", '{"n": 1.0, "s": "ü"}'),)),
        # Of bare JSON vLLM's parser reads arrays only, with one pair of keys, but also in a fence.
        ("json", "", CALL, ()),
        ("json", "", '[{"tool": "f", "arguments": {}}]', ()),
        ("json", "", f"```json\n[{CALL}]\n```", (("f", '{"n": 1.0, "s": "ü"}'),)),
        ("llama4_pythonic", "", "<|python_start|>[f()]", (("f", "{}"),)),
        ("llama4_pythonic", "", "[f(from=1)]", ()),  # a word of Python's own is no name of an argument to vLLM's parser
        # Without tags, and of several blocks only the first.
        ("olmo3", "", "f(a=1)", (("f", '{"a": 1}'),)),
        ("olmo3", "", "<function_calls>f()</function_calls><function_calls>g()</function_calls>", (("f", "{}"),)),
    ],
)
def test_a_reply_that_only_one_of_the_two_reads_differs(
    format: str, family: str, text: str, served: tuple[tuple[str, str], ...]
) -> None:
    reply = reader(format, family)(text)
    assert reply.calls == served
    assert serving_differs(parse_reply(text, format=format), reply)


GOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    "deepseek_v3": lambda given: V3.replace('{"n": 1.0, "s": "ü"}', json.dumps(given, ensure_ascii=False)),
    "deepseek_v31": lambda given: V31.replace('{"n": 1.0, "s": "ü"}', json.dumps(given, ensure_ascii=False)),
    "kimi_k2": lambda given: KIMI.replace('{"n": 1.0, "s": "ü"}', json.dumps(given, ensure_ascii=False)),
    "deepseek_v32": lambda given: DSML.replace("1.0", json.dumps(given["nested"])).replace("ü", given["text"]),
    "granite": lambda given: f"<|tool_call|>[{json.dumps({'name': 'f', 'arguments': given})}]",
    "phi4_mini": lambda given: f"functools[{json.dumps({'name': 'f', 'arguments': given})}]",
    "llama4_pythonic": lambda given: f"<|python_start|>{as_python(given)}<|python_end|>",
    "olmo3": lambda given: f"<function_calls>\n{as_python(given)[1:-1]}\n</function_calls>",
}
"""For formats whose broken replies are tried out below: how one call with these arguments is written."""


def as_python(given: dict[str, Any]) -> str:
    return f"[f({', '.join(f'{key}={value!r}' for key, value in given.items())})]"


@pytest.mark.parametrize("format", GOLD)
def test_a_broken_reply_that_the_strict_parser_takes_whole_is_served_like_that(format: str) -> None:
    read = reader(format)
    given = {"text": "say 'hi' \\ 杭州, {b}; \n", "n": "5", "nested": {"a": None, "b": 2.5}, "flag": True}
    gold = GOLD[format](given)
    parts = re.findall(r"<[^<>\s]+>|\w+|\s+|.", gold, re.DOTALL)
    places = range(len(parts))
    broken = {"".join(parts[:n]) for n in places}  # cut
    broken |= {"".join((*parts[:n], *parts[n + 1 :])) for n in places}  # without a part
    broken |= {"".join((*parts[:n], parts[n], *parts[n:])) for n in places}  # with a part twice
    broken |= {"".join((*parts[:n], *reversed(parts[n : n + 2]), *parts[n + 2 :])) for n in places}  # swapped
    replies = {text: parse_reply(text, format=format) for text in sorted(broken | {gold})}
    calls = {text: reply for text, reply in replies.items() if reply.calls and not reply.problems}
    assert gold in calls
    assert len(calls) > 10
    # What both read, and differently: vLLM takes the white space around a name away.
    assert [text for text, reply in calls.items() if '" f"' not in text and serving_differs(reply, read(text))] == []


def test_a_type_that_the_schema_asks_for_is_made_up_by_some_parsers_of_vllm() -> None:
    tool = ToolSpec.model_validate(
        {"function": {"name": "f", "parameters": {"type": "object", "properties": {"s": {"type": "integer"}}}}}
    )
    text = DSML.replace("ü", "5")
    read = serving_reader("deepseek_v32", tokenizer_with(MARKS["deepseek_v32"]))
    assert [call.function.arguments for call in parse_reply(text, format="deepseek_v32", tools=[tool]).calls] == [
        {"n": 1.0, "s": "5"}
    ]
    assert read(text, [tool]).calls == (("f", '{"n": 1.0, "s": 5}'),)
    assert serving_differs(parse_reply(text, format="deepseek_v32", tools=[tool]), read(text, [tool]))


def test_what_a_server_cannot_send_is_an_error_of_that_reply() -> None:
    served = reader("hermes")('<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>')
    assert served.calls == ()
    assert served.error is not None
    assert "surrogates not allowed" in served.error
    assert "\n" not in served.error
    ServedReply.model_validate_json(served.model_dump_json())


def test_a_parser_that_does_not_take_the_base_gives_its_clients_no_call() -> None:
    read = reader_or_refusal("mistral", tokenizer_with([]))
    served = read("[TOOL_CALLS]f{}", ())
    assert (served.calls, served.content) == ((), "[TOOL_CALLS]f{}")
    assert served.error is not None
    assert "cannot be used with this base" in served.error
    assert serving_differs(parse_reply("[TOOL_CALLS]f{}", format="mistral"), served)
    usable = reader_or_refusal("hermes", tokenizer_with([]))
    assert usable(ONE_HERMES, OFFERED).error is None


@pytest.mark.parametrize("name", ["llama3_json", "mistral", "nonsense"])
def test_a_parser_that_does_not_take_the_base_is_told(name: str) -> None:
    fault = rf"eval\.reply_format: vLLM's parser {name} cannot be used with this base"
    with pytest.raises(EvaluationError, match=fault):
        serving_reader(name, tokenizer_with([]))


def test_replies_that_cannot_be_read_leave_no_log() -> None:
    read = {"hermes": reader("hermes"), "pythonic": reader("pythonic"), "mistral": reader("mistral", "mistral v3")}
    handler = BufferingHandler(capacity=1000)
    logging.getLogger("vllm").addHandler(handler)
    try:
        read["hermes"]("<tool_call>{</tool_call>")
        read["pythonic"]("[f(a=g())]")
        read["mistral"]("[TOOL_CALLS] [{")
        assert handler.buffer == []
        logging.getLogger("vllm.engine").error("The engine's own errors are still told.")
        assert len(handler.buffer) == 1
    finally:
        logging.getLogger("vllm").removeHandler(handler)


def test_a_call_that_only_the_strict_parser_reads_is_told_and_trained_on(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run = open_run(config)
    write_samples(run, "train", weather_samples("Rome", "Oslo"))
    write_samples(run, "val", weather_samples("Lima"))
    write_samples(run, "test", weather_samples("Cairo"))
    card = require_parity(config, run)
    assert (card.serving_parser, card.serving_calls, card.serving_note) == ("hermes", 4, None)
    tricky = make_sample(user("x"), assistant("", make_call(city="a</tool_call>b")), id="tricky")
    write_samples(run, "test", [tricky])
    tokenize_run(config, run)
    card = check_parity(config, run)
    assert (require_parity(config, run), card.problems) == (card, ())
    assert card.served_otherwise is not None
    assert card.served_otherwise.count == 1
    assert card.served_otherwise.example.startswith("sample tricky: turn 2: ")
    (told,) = template_findings({}, card)
    assert not told.stops
    assert "eval.reply_format: vLLM's hermes parser reads other calls than the data has in 1 reply" in told.text
    assert "serving_difference_rate will count" in told.text


def test_digits_that_are_text_are_numbers_to_the_parser_of_muse_glimmer(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    model = config.model.model_copy(update={"chat_template": "muse_glimmer"})
    config = config.model_copy(update={"model": model})
    run = open_run(config)
    digits = make_sample(user("x"), assistant("", make_call(city="3384")), id="digits")
    write_samples(run, "train", [digits, *weather_samples("Rome", "Oslo")])
    write_samples(run, "val", weather_samples("Lima"))
    write_samples(run, "test", weather_samples("Cairo"))
    assert tokenize_run(config, run)["train"].samples == 3
    card = check_parity(config, run)
    assert (card.problems, card.serving_parser) == ((), "muse_glimmer")
    assert card.served_otherwise is not None
    assert (card.served_otherwise.count, "digits" in card.served_otherwise.example) == (1, True)


def test_a_format_whose_marks_the_base_lacks_leaves_a_note(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"reply_format": "mistral"})})
    run = open_run(config)
    for part in ("train", "val", "test"):
        write_samples(run, part, [make_sample(user("x"), assistant("y"), tools=(), kind="answer")])
    tokenize_run(config, run)
    card = check_parity(config, run)
    assert (card.serving_parser, card.problems) == (None, ())
    assert card.serving_note is not None
    assert "vLLM's parser mistral cannot be used with this base" in card.serving_note


def test_a_request_without_tools_gets_no_calls() -> None:
    served = serving_reader("hermes", tokenizer_with([]))(ONE_HERMES, ())
    assert (served.calls, served.content, served.error) == ((), ONE_HERMES, None)
    assert serving_differs(parse_reply(ONE_HERMES), served)
