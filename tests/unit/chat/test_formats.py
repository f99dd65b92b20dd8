"""Every format: what is a call, what is a broken one and for which reason, and what is prose."""

import json
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.records import FailureReason
from orchestrator.chat import formats
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.parse import parse_reply, split_thinking

Calls = list[tuple[str, dict[str, Any]]]

ONE = ("f", {"a": 1})
OSLO = ("Get Weather", {"city": "Oslo", "days": [1, None, True]})
XML = "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>"
GLM = "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
OSS = 'to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>'
ATEM_VALUE = '<atem:parameter name="a">1</atem:parameter>'
ATEM_CALL = f'<atem:invoke name="f">\n{ATEM_VALUE}\n</atem:invoke>'
ATEM_CALLS = f"<atem:function_calls>\n{ATEM_CALL}\n</atem:function_calls>"
ATEM = f"to=f<|message|>{ATEM_CALLS}"
RPC = '{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "f", "arguments": {"a": 1}}}'


F_LLAMA = '{"name": "f", "parameters": {"a": 1}}'
F_JSON = '{"name": "f", "arguments": {"a": 1}}'
F_G = '{"name": "g", "arguments": {}}'
# How other families write the call of ONE; `%s` stands for what is inside the section or the tags.
DS_SECTION = "<｜tool▁calls▁begin｜>%s<｜tool▁calls▁end｜>"
V3 = '<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>'
V31 = '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>'
K2_SECTION = "<|tool_calls_section_begin|>%s<|tool_calls_section_end|>"
K2 = '<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|>'
L4 = "<|python_start|>%s<|python_end|>"
OLMO = "<function_calls>%s</function_calls>"
COHERE = "<|START_ACTION|>%s<|END_ACTION|>"
COMMAND = '{"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}'
DSML = "<｜DSML｜function_calls>%s</｜DSML｜function_calls>"
INVOKE = '<｜DSML｜invoke name="f"><｜DSML｜parameter name="a" string="false">1</｜DSML｜parameter></｜DSML｜invoke>'
CALLS = "<tool_calls>%s</tool_calls>"
TOOLCALL = "<TOOLCALL>%s</TOOLCALL>"
ACTION = "<|action_start|><|plugin|>%s<|action_end|>"
MINI = "<minimax:tool_call>%s</minimax:tool_call>"
M3 = "]<]minimax[>["
M3_SECTION = f"{M3}<tool_call>\n%s{M3}</tool_call>"
M3_VALUE = f"{M3}<a>1{M3}</a>"
M3_CALL = f'{M3}<invoke name="f">{M3_VALUE}{M3}</invoke>\n'
M3_NEST = f"{M3}<o>{M3}<item>x{M3}</item>\n{M3}</o>"
GIGA = '<|function_call|>{"name": "f", "arguments": {"a": 1}}'
MINI_INVOKE = '<invoke name="f">\n<parameter name="a">1</parameter>\n</invoke>'


def calls_of(text: str, format: str) -> Calls:
    return [(call.function.name, call.function.arguments) for call in parse_reply(text, format=format).calls]


def reasons_of(text: str, format: str) -> list[FailureReason]:
    return [problem.reason for problem in parse_reply(text, format=format).problems]


@pytest.mark.parametrize(
    ("format", "text", "calls"),
    [
        ("llama_json", '{"name": "f", "parameters": {"a": 1}}', [ONE]),
        ("llama_json", '{"name": "f", "arguments": {"a": 1}}<|eot_id|>', [ONE]),
        ("llama_json", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}<|eom_id|>', [ONE]),
        ("llama_json", '{"name": "f", "parameters": {"a": 1}};\n{"parameters": {}, "name": "g"}', [ONE, ("g", {})]),
        ("llama_json", '{"name": "f", "parameters": {"a": "; {"}}', [("f", {"a": "; {"})]),
        ("llama_json", '{"name": "f", "parameters": {"a": "</think>"}}', [("f", {"a": "</think>"})]),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]</s>', [ONE]),
        ("mistral", 'Sure.[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "VvvODy9mT"}]', [ONE]),
        ("mistral", '[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g[ARGS]{}', [ONE, ("g", {})]),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]VvvODy9mT[ARGS]{"a": 1}', [ONE]),
        ("mistral", '[TOOL_CALLS] f {"a": "[TOOL_CALLS]g{}"}', [("f", {"a": "[TOOL_CALLS]g{}"})]),
        ("mistral", '[THINK][TOOL_CALLS]x{}[/THINK][TOOL_CALLS]f{"a": 1}', [ONE]),
        ("pythonic", "[f(a=1)]<|eot_id|>", [ONE]),
        ("pythonic", "[f(a=1), Get Weather(city='Oslo', days=[1, None, true]), m.h()]", [ONE, OSLO, ("m.h", {})]),
        ("deepseek_v3", f"Well.{DS_SECTION % V3}<｜end▁of▁sentence｜>", [ONE]),
        ("deepseek_v3", DS_SECTION % (V3 + "\n" + V3.replace("f\n", "m.g x\n")), [ONE, ("m.g x", {"a": 1})]),
        ("deepseek_v3", DS_SECTION % V3 + " " + DS_SECTION % V3, [ONE, ONE]),
        ("deepseek_v3", DS_SECTION % V3.replace("1", '"<｜tool▁call▁end｜>"'), [("f", {"a": "<｜tool▁call▁end｜>"})]),
        ("deepseek_v31", f"plan</think>{DS_SECTION % (V31 + V31)}", [ONE, ONE]),
        ("kimi_k2", f"Sure. {K2_SECTION % K2}<|im_end|>", [ONE]),
        (
            "kimi_k2",
            K2_SECTION % K2.replace("functions.f:0", "\nfunctions.m.g:12\n").replace("1}", "1\n}\n"),
            [("m.g", {"a": 1})],
        ),
        ("granite", '<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]<|end_of_text|>', [ONE]),
        ("granite", '<think>x</think><|tool_call|>[{"name": "f", "arguments": {"a": 1}}]', [ONE]),
        (
            "granite",
            '<tool_call> [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
            [ONE, ("g", {})],
        ),
        ("granite", '<|tool_call|>[{"name": "f", "arguments": {"a": "<tool_call>["}}]', [("f", {"a": "<tool_call>["})]),
        ("phi4_mini", '<|tool_call|>{"name": "f", "arguments": {"a": 1}}<|/tool_call|><|end|>', [ONE]),
        ("phi4_mini", 'Sure.<|tool_call|>[{"name": "f", "arguments": {"a": 1}}]<|/tool_call|>', [ONE]),
        (
            "phi4_mini",
            'functools[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "parameters": {}}]',
            [ONE, ("g", {})],
        ),
        ("llama4_pythonic", "[f(a=1)]<|eot|>", [ONE]),
        ("llama4_pythonic", L4 % "[f(a=1), m.g()]", [ONE, ("m.g", {})]),
        ("olmo3", OLMO % "\nf(a=1)\n\n  Get Weather(city='Oslo', days=[1, null, true])\n", [ONE, OSLO]),
        ("olmo3", f"Sure. {OLMO % 'f(a=1)'} And {OLMO % 'g()'}", [ONE, ("g", {})]),
        ("cohere", f"<|START_THINKING|>[1]<|END_THINKING|>{COHERE % f'[{COMMAND}]'}<|END_OF_TURN_TOKEN|>", [ONE]),
        ("cohere", COHERE % f'[\n {COMMAND},\n {{"tool_name": "g", "parameters": {{}}}}\n]', [ONE, ("g", {})]),
        ("deepseek_v32", f"Sure. {DSML % INVOKE}<｜end▁of▁sentence｜>", [ONE]),
        ("deepseek_v32", DSML % f"\n{INVOKE}\n{INVOKE}\n".replace("><", ">\n<"), [ONE, ONE]),
        ("deepseek_v32", DSML % INVOKE.replace("false", "true"), [("f", {"a": "1"})]),
        ("deepseek_v32", DSML % INVOKE.replace('"false">1', '"true">\n </a> "x"\n'), [("f", {"a": '\n </a> "x"\n'})]),
        ("minimax_m2", f"Sure. {MINI % MINI_INVOKE}[e~[", [("f", {"a": "1"})]),
        (
            "minimax_m2",
            MINI % f"\n{MINI_INVOKE}\n{MINI_INVOKE}\n".replace(">1<", ">\n <b> x<"),
            [("f", {"a": "\n <b> x"})] * 2,
        ),
        ("deepseek_v4", (DSML % INVOKE).replace("function_calls", "tool_calls"), [ONE]),
        ("mcp", RPC, [ONE]),
        ("mcp", f"[{RPC}, {RPC}]", [ONE, ONE]),
        ("mcp", '{"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": {"name": "g"}}', [("g", {})]),
        ("qwen_xml", XML, [("f", {"a": "1"})]),
        ("qwen_xml", f"Sure.{XML}\n{XML}<|im_end|>\n", [("f", {"a": "1"})] * 2),
        ("qwen_xml", "<tool_call><function=f></function></tool_call>", [("f", {})]),
        ("qwen_xml", XML.replace("1", "<tool_call> </tool_call>"), [("f", {"a": "<tool_call> </tool_call>"})]),
        ("qwen_xml", f"<think>{XML}</think>{XML}", [("f", {"a": "1"})]),
        ("seed_oss", XML.replace("tool_call>", "seed:tool_call>") + "<seed:eos>", [("f", {"a": "1"})]),
        (
            "gemma4",
            "Sure.<|tool_call>call:f{a:1}<tool_call|><|tool_call>call:m.g{}<tool_call|><turn|>",
            [ONE, ("m.g", {})],
        ),
        ("functiongemma", "<start_function_call>call:f{a:1}<end_function_call><start_function_response>", [ONE]),
        ("gpt_oss", OSS, [ONE]),
        ("gpt_oss", OSS.replace("json<", "<|constrain|>json<"), [ONE]),
        ("gpt_oss", '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>', [ONE]),
        ("gpt_oss", "<|channel|>commentary to=functions.m.g<|message|>{}", [("m.g", {})]),
        ("gpt_oss", f"<|channel|>commentary<|message|>I will.<|end|><|start|>assistant {OSS}", [ONE]),
        ("gpt_oss", f"{OSS}<|start|>assistant{OSS}", [ONE, ONE]),
        ("gpt_oss", f"<|channel|>analysis<|message|>{XML}<|end|><|start|>assistant {OSS}", [ONE]),
        ("muse_glimmer", f"{ATEM}<|eom|><|start|>assistant {ATEM}<|eot|>", [("f", {"a": "1"})] * 2),
        ("muse_glimmer", f"to=self<|message|>{ATEM}<|eom|><|start|>assistant {ATEM}", [("f", {"a": "1"})]),
        ("muse_glimmer", ATEM.replace("\n", "").replace(ATEM_VALUE, ""), [("f", {})]),
        ("glm4", f"{GLM}\n{GLM}<|observation|>", [("f", {"a": "1"})] * 2),
        ("glm4", GLM.replace("\n", ""), [("f", {"a": "1"})]),
        ("glm4", "<tool_call>f\n</tool_call>", [("f", {})]),
        ("lfm2", "Sure.<|tool_call_start|>[f(a=1), m.g()]<|tool_call_end|> Done.", [ONE, ("m.g", {})]),
        ("lfm2", "<|tool_call_start|>[Get Weather(city='Oslo', days=[1, null, true])]<|tool_call_end|>", [OSLO]),
        ("mimo", XML, [("f", {"a": "\n1\n"})]),
        ("minimax_m3", f"</mm:think>Sure. {M3_SECTION % M3_CALL}[e~[", [("f", {"a": "1"})]),
        (
            "minimax_m3",
            M3_SECTION % M3_CALL.replace(">1]", ">\n <b> x]") + M3_SECTION % M3_CALL.replace(M3_VALUE, ""),
            [("f", {"a": "\n <b> x"}), ("f", {})],
        ),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(M3_VALUE, M3_NEST), [("f", {"o": {"item": "x"}})]),
        ("gigachat3", f"Sure.{GIGA}<|message_sep|>\n\n", [ONE]),
        ("gigachat3", GIGA.replace("1", '"<|function_call|>"'), [("f", {"a": "<|function_call|>"})]),
        ("gigachat3", f"Sure.<|message_sep|>\n\nfunction call<|role_sep|>\n{GIGA[17:]}", [ONE]),
        ("minimax_m1", "Sure. " + CALLS % f"\n{F_JSON}\n{F_G}\n", [ONE, ("g", {})]),
        ("minimax_m1", CALLS % F_JSON.replace("1", '"</tool_calls>"'), [("f", {"a": "</tool_calls>"})]),
        ("hunyuan", f"Sure. {CALLS % f'[{F_JSON}, {F_G}]'} {CALLS % f'[{F_JSON}]'}", [ONE, ("g", {}), ONE]),
        ("nemotron_v2", TOOLCALL % f"[{F_JSON}]", [ONE]),
        ("internlm", f"Sure.{ACTION % F_JSON}{ACTION % F_LLAMA}<|im_end|>", [ONE, ONE]),
        ("json", '{"name": "f", "arguments": {"a": 1}}', [ONE]),
        ("json", '<think>[1]</think>\n{"tool": "f", "arguments": {"a": 1}}', [ONE]),
        ("json", '[{"name": "f", "arguments": {"a": 1}}, {"tool": "g", "arguments": {}}]', [ONE, ("g", {})]),
    ],
)
def test_calls_are_read(format: str, text: str, calls: Calls) -> None:
    assert calls_of(text, format) == calls
    assert reasons_of(text, format) == []


def test_ids_of_calls_are_kept() -> None:
    array = '[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "A"}][TOOL_CALLS]g[CALL_ID]B[ARGS]{}[TOOL_CALLS]h{}'
    assert [call.id for call in parse_reply(array, format="mistral").calls] == ["A", "B", None]
    assert [call.id for call in parse_reply(RPC, format="mcp").calls] == ["7"]
    kimi = K2_SECTION % (K2 + K2.replace(":0", ":1"))
    assert [call.id for call in parse_reply(kimi, format="kimi_k2").calls] == ["functions.f:0", "functions.f:1"]


@pytest.mark.parametrize(
    ("format", "text", "reason"),
    [
        ("llama_json", F_LLAMA[:-1], "not_json"),
        ("llama_json", F_LLAMA[1:], "not_json"),
        ("llama_json", "{'name': 'f', 'parameters': {}}", "not_json"),
        ("llama_json", '{name: "f", "parameters": {}}', "not_json"),
        ("llama_json", '{"name": "f", "para', "not_json"),
        ("llama_json", "<|python_tag|>import math", "not_json"),
        ("llama_json", "<|python_tag|>", "not_json"),
        ("llama_json", F_LLAMA.replace("1", "NaN"), "not_strict_json"),
        ("llama_json", '{"name": "f", "parameters": {"a": 1, "a": 1}}', "not_strict_json"),
        ("llama_json", '{"name": "f"}', "not_a_call_object"),
        ("llama_json", '{"type": "function", "name": "f", "parameters": {}}', "not_a_call_object"),
        ("llama_json", '{"name": "f", "parameters": {}, "arguments": {}}', "not_a_call_object"),
        ("llama_json", '{"name": "f", "parameters": "{}"}', "not_a_call_object"),
        ("llama_json", '{"name": "", "parameters": {}}', "not_a_call_object"),
        ("llama_json", f"[{F_LLAMA}]", "not_a_call_object"),
        ("llama_json", f"Here you are: {F_LLAMA}", "text_beside_call"),
        ("llama_json", f"```json\n{F_LLAMA}\n```", "text_beside_call"),
        ("llama_json", f"{F_LLAMA}\nDone.", "text_beside_call"),
        ("llama_json", f"{F_LLAMA} {F_LLAMA}", "text_beside_call"),
        ("llama_json", f"{F_LLAMA};", "text_beside_call"),
        ("llama_json", f"Well <|python_tag|>{F_LLAMA}", "text_beside_call"),
        ("mistral", "[TOOL_CALLS]", "not_json"),
        ("mistral", "[TOOL_CALLS] []", "not_a_call_object"),
        ("mistral", f"[TOOL_CALLS] {F_JSON}", "not_json"),
        ("mistral", f"[TOOL_CALLS] [{F_JSON}", "not_json"),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": NaN}}]', "not_strict_json"),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {}, "id": 1}]', "not_a_call_object"),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "parameters": {}}]', "not_a_call_object"),
        ("mistral", f"[TOOL_CALLS] [{F_JSON}] Done.", "text_beside_call"),
        ("mistral", "[TOOL_CALLS] " + "[" * 5000, "not_strict_json"),
        ("mistral", "[TOOL_CALLS]f", "not_json"),
        ("mistral", "[TOOL_CALLS]f[ARGS]", "not_json"),
        ("mistral", '[TOOL_CALLS]f{"a": 1', "not_json"),
        ("mistral", '[TOOL_CALLS]f{"a": 1, "a": 2}', "not_strict_json"),
        ("mistral", "[TOOL_CALLS]f[ARGS][1]", "not_a_call_object"),
        ("mistral", '[TOOL_CALLS] {"a": 1}', "not_json"),
        ("mistral", '[TOOL_CALLS]"f"{"a": 1}', "not_json"),
        ("mistral", "[TOOL_CALLS]\ud800{}", "not_strict_json"),
        ("mistral", "[TOOL_CALLS]f[CALL_ID]\ud800[ARGS]{}", "not_strict_json"),
        ("mistral", '[TOOL_CALLS]f{"a": 1} Done.', "text_beside_call"),
        ("pythonic", "[f(a=1)", "not_pythonic"),
        ("pythonic", "f(a=1)", "not_pythonic"),
        ("pythonic", "f(a=1)]", "not_pythonic"),
        ("pythonic", "[f a=1)]", "not_pythonic"),
        ("pythonic", "[f(1)]", "not_pythonic"),
        ("pythonic", "[f<|eot|>(a=1)]", "not_pythonic"),
        ("pythonic", "['f(a=1)]", "not_pythonic"),
        ("pythonic", "[f(a<b>=1)]", "not_pythonic"),
        ("lfm2", "<|tool_call_start|>[f<b>()]<|tool_call_end|>", "not_pythonic"),
        ("olmo3", "<function_calls>\\f()</function_calls>", "not_pythonic"),
        ("gemma4", "<|tool_call>call:call:f{}<tool_call|>", "not_a_call_object"),
        (
            "kimi_k2",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f :0<|tool_call_argument_begin|>{}"
            "<|tool_call_end|><|tool_calls_section_end|>",
            "not_a_call_object",
        ),
        ("gpt_oss", "<|channel|>commentary to=functions.f<|message|>{}<|user|>", "text_inside_tag"),
        ("pythonic", "[f(a=b)]", "not_pythonic"),
        ("pythonic", "[f(a=g(b=1))]", "not_pythonic"),
        ("pythonic", "[f(a=1, a=2)]", "not_pythonic"),
        ("pythonic", "[f(a={'b': 1, 'b': 2})]", "not_pythonic"),
        ("pythonic", "[f(a=1e999)]", "not_pythonic"),
        ("pythonic", "[f(a=nan)]", "not_pythonic"),
        ("pythonic", "[f(a=f'x')]", "not_pythonic"),
        ("pythonic", "[f(a='\ud800')]", "not_pythonic"),
        ("pythonic", "[f(a=1)] as you wish", "text_beside_call"),
        ("pythonic", "Sure: [f(a=1)]", "text_beside_call"),
        ("pythonic", "```\n[f()]\n```", "text_beside_call"),
        ("deepseek_v3", DS_SECTION % "", "not_a_call_object"),
        ("deepseek_v3", DS_SECTION % "f", "text_inside_tag"),
        ("deepseek_v3", DS_SECTION % V31, "not_a_call_object"),
        ("deepseek_v3", DS_SECTION % V3.replace("function", "tool"), "not_a_call_object"),
        ("deepseek_v3", DS_SECTION % V3.replace('{"a": 1}', '{\n"a": 1}'), "not_json"),
        ("deepseek_v3", DS_SECTION % V3.replace("1}", "1]"), "not_json"),
        ("deepseek_v3", DS_SECTION % V3.replace("1}", "NaN}"), "not_strict_json"),
        ("deepseek_v3", DS_SECTION % V3.replace('{"a": 1}', "[]"), "not_a_call_object"),
        ("deepseek_v3", DS_SECTION % V3.replace("f\n", "\ud800\n"), "not_strict_json"),
        ("deepseek_v3", DS_SECTION % V3.replace("\n```<", "<"), "text_inside_tag"),
        ("deepseek_v3", DS_SECTION % V3.replace("\n```<", " end\n```<"), "text_inside_tag"),
        ("deepseek_v3", V3, "not_a_call_object"),
        ("deepseek_v3", f"Well. {V3}", "not_a_call_object"),
        ("deepseek_v3", "<｜tool▁calls▁begin｜>", "unclosed_tag"),
        ("deepseek_v3", "<｜tool▁calls▁end｜>", "unclosed_tag"),
        ("deepseek_v3", f"<｜tool▁calls▁begin｜>{V3}", "unclosed_tag"),
        ("deepseek_v3", (DS_SECTION % V3)[:-30], "unclosed_tag"),
        ("deepseek_v31", DS_SECTION % V3, "not_json"),
        ("deepseek_v31", DS_SECTION % V31.replace("f<", "<"), "not_a_call_object"),
        ("deepseek_v31", DS_SECTION % V31.replace("<｜tool▁sep｜>", " "), "not_a_call_object"),
        ("deepseek_v31", DS_SECTION % V31.replace("<｜tool▁call▁end｜>", ""), "unclosed_tag"),
        ("kimi_k2", K2_SECTION % K2.replace("functions.", ""), "not_a_call_object"),
        ("kimi_k2", K2_SECTION % K2.replace(":0", ""), "not_a_call_object"),
        ("kimi_k2", K2_SECTION % K2.replace("functions.f:0", "call_1"), "not_a_call_object"),
        ("kimi_k2", K2_SECTION % K2.replace('"a": 1', '"a": 1, "a": 2'), "not_strict_json"),
        ("kimi_k2", K2_SECTION % K2.replace("1}", "1} {}"), "text_inside_tag"),
        ("kimi_k2", K2, "not_a_call_object"),
        ("granite", "<|tool_call|>", "not_json"),
        ("granite", "<|tool_call|>[]", "not_a_call_object"),
        ("granite", f"<|tool_call|>{F_JSON}", "not_a_call_object"),
        ("granite", f"<|tool_call|>[{F_JSON}", "not_json"),
        ("granite", f"<|tool_call|>[{F_JSON.replace('1', 'NaN')}]", "not_strict_json"),
        ("granite", f"<|tool_call|>[{F_LLAMA}]", "not_a_call_object"),
        ("phi4_mini", f"<|tool_call|>{F_JSON}", "unclosed_tag"),
        ("phi4_mini", f"{F_JSON}<|/tool_call|>", "unclosed_tag"),
        ("phi4_mini", f"<|tool_call|>{F_JSON[:-1]}<|/tool_call|>", "not_json"),
        ("phi4_mini", f"<|tool_call|>{F_JSON} now<|/tool_call|>", "text_inside_tag"),
        ("phi4_mini", "<|tool_call|>[]<|/tool_call|>", "not_a_call_object"),
        ("phi4_mini", f"functools[{F_JSON}", "not_json"),
        ("phi4_mini", f"functools{F_JSON}]", "not_a_call_object"),
        ("phi4_mini", "functools[]", "not_a_call_object"),
        ("phi4_mini", f"functools[{F_JSON.replace('1', '1e999')}]", "not_strict_json"),
        ("llama4_pythonic", "f(a=1)", "not_pythonic"),
        ("llama4_pythonic", L4 % "f(a=1)", "not_pythonic"),
        ("llama4_pythonic", L4 % "", "not_pythonic"),
        ("llama4_pythonic", L4 % "print(1)", "not_pythonic"),
        ("llama4_pythonic", "<|python_start|>[f(a=1)]", "unclosed_tag"),
        ("llama4_pythonic", "[f(a=1)]<|python_end|>", "unclosed_tag"),
        ("llama4_pythonic", "<|python_end|>[f(a=1)]<|python_start|>", "unclosed_tag"),
        ("llama4_pythonic", f"Sure. {L4 % '[f(a=1)]'}", "text_beside_call"),
        ("llama4_pythonic", f"{L4 % '[f(a=1)]'} Done.", "text_beside_call"),
        ("olmo3", OLMO % "", "not_a_call_object"),
        ("olmo3", OLMO % "f(1)", "not_pythonic"),
        ("olmo3", OLMO % "[f(a=1)]", "not_pythonic"),
        ("olmo3", OLMO % "f(a=1), g()", "not_a_call_object"),
        ("olmo3", OLMO % "f(a='\ud800')", "not_pythonic"),
        ("olmo3", "<function_calls>f(a=1)", "unclosed_tag"),
        ("olmo3", "f(a=1)</function_calls>", "unclosed_tag"),
        ("minimax_m3", M3_CALL, "not_a_call_object"),
        ("minimax_m3", M3_SECTION % "", "not_a_call_object"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace('"f"', f'"{M3}"'), "not_a_call_object"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace("1", f"1{M3}"), "text_inside_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(f"{M3}</a>", ""), "text_inside_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace("</a>", "</b>"), "text_inside_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace('"f">', '"f">now '), "text_inside_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(">1]", f">1{M3}<b>2{M3}</b>]"), "text_inside_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(M3_VALUE, M3_VALUE * 2), "not_a_call_object"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(M3_VALUE, M3_NEST.replace("</o>", "</o>" * 2)), "text_inside_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(f"{M3}</invoke>", ""), "unclosed_tag"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(">1]", ">\ud800]"), "not_strict_json"),
        ("minimax_m3", M3_SECTION % M3_CALL.replace(M3_VALUE, f"{M3}<a>" * 70), "text_inside_tag"),
        ("minimax_m3", f"{M3}<tool_call>{M3_CALL}", "unclosed_tag"),
        ("minimax_m3", f"{M3}<tool_call>{M3_CALL[:-12]}", "unclosed_tag"),
        ("gigachat3", GIGA[:-1], "not_json"),
        ("gigachat3", GIGA.replace("1", "NaN"), "not_strict_json"),
        ("gigachat3", GIGA + GIGA, "text_beside_call"),
        ("gigachat3", f"<|function_call|>[{F_JSON}]", "not_a_call_object"),
        ("gigachat3", "function call<|role_sep|>", "not_json"),
        ("gigachat3", f"function call<|role_sep|>{F_JSON}", "not_json"),
        ("minimax_m1", CALLS % "", "not_a_call_object"),
        ("minimax_m1", CALLS % f"[{F_JSON}]", "not_a_call_object"),
        ("minimax_m1", CALLS % F_JSON[:-1], "not_json"),
        ("minimax_m1", CALLS % F_JSON.replace("1", "NaN"), "not_strict_json"),
        ("minimax_m1", CALLS % "f(a=1)", "not_json"),
        ("minimax_m1", f"<tool_calls>{F_JSON}", "unclosed_tag"),
        ("minimax_m1", "<tool_calls>", "unclosed_tag"),
        ("minimax_m1", f"{F_JSON}</tool_calls>", "unclosed_tag"),
        ("hunyuan", CALLS % "[]", "not_a_call_object"),
        ("hunyuan", CALLS % F_JSON, "not_a_call_object"),
        ("hunyuan", CALLS % f"[{F_JSON}", "not_json"),
        ("hunyuan", CALLS % f"[{F_JSON}] now", "text_inside_tag"),
        ("hunyuan", f"<tool_calls>[{F_JSON}]", "unclosed_tag"),
        ("hunyuan", f"[{F_JSON}]</tool_calls>", "unclosed_tag"),
        ("nemotron_v2", TOOLCALL % F_JSON, "not_a_call_object"),
        ("internlm", ACTION % f"[{F_JSON}]", "not_a_call_object"),
        ("internlm", ACTION % "print(1)", "not_json"),
        ("internlm", (ACTION % F_JSON)[:-1], "unclosed_tag"),
        ("qwen_xml", XML[:-1], "unclosed_tag"),
        ("qwen_xml", XML.replace("<tool_call>\n", ""), "unclosed_tag"),
        ("qwen_xml", XML.replace("</tool_call>", ""), "unclosed_tag"),
        ("qwen_xml", XML.replace("</parameter>\n", ""), "unclosed_tag"),
        ("qwen_xml", XML.replace("1\n", "1\n<parameter=b>"), "unclosed_tag"),
        ("qwen_xml", XML.replace("1\n", "1\n</function>"), "unclosed_tag"),
        ("qwen_xml", XML.replace("</function>\n", ""), "text_inside_tag"),
        ("qwen_xml", XML.replace("</function>", "</function></function>"), "text_inside_tag"),
        ("qwen_xml", XML.replace("</parameter>", "</parameter>x"), "text_inside_tag"),
        ("qwen_xml", XML.replace("</parameter>", "</parameter></parameter>"), "text_inside_tag"),
        ("qwen_xml", XML.replace("<function=f>", "x<function=f>"), "not_a_call_object"),
        ("qwen_xml", XML.replace("<function=f>", "<function=>"), "not_a_call_object"),
        ("qwen_xml", XML.replace("<function=f>", "<function=f"), "not_a_call_object"),
        ("qwen_xml", f"<tool_call>{F_JSON}</tool_call>", "not_a_call_object"),
        ("qwen_xml", "<function=f>", "unclosed_tag"),
        ("qwen_xml", XML.replace("1", "\ud800"), "not_strict_json"),
        ("seed_oss", XML, "unclosed_tag"),
        ("gemma4", "<|tool_call>call:f{a:1}", "unclosed_tag"),
        ("gemma4", "<|tool_call>f{a:1}<tool_call|>", "not_a_call_object"),
        ("gemma4", "<|tool_call>call:f{a:1} now<tool_call|>", "text_inside_tag"),
        ("functiongemma", "<start_function_call>call:f{a:<escape>}<end_function_call>", "not_json"),
        ("gpt_oss", OSS.replace("1}", "1"), "not_json"),
        ("gpt_oss", OSS.replace("1}", "NaN}"), "not_strict_json"),
        ("gpt_oss", OSS.replace("1}", "1} {}"), "text_inside_tag"),
        ("gpt_oss", OSS.replace('{"a": 1}', "[]"), "not_a_call_object"),
        ("gpt_oss", OSS.replace("json", "code"), "not_a_call_object"),
        ("gpt_oss", OSS.replace("functions.", ""), "not_a_call_object"),
        ("gpt_oss", OSS.replace("functions.f", "functions."), "not_a_call_object"),
        ("gpt_oss", OSS.replace("commentary", "analysis"), "not_a_call_object"),
        ("gpt_oss", OSS.replace("commentary", "commentary to=functions.g"), "not_a_call_object"),
        ("gpt_oss", OSS.replace("f<", "f g<"), "not_a_call_object"),
        ("gpt_oss", f"{OSS[:-8]}<|end|><|start|>assistant", "unclosed_tag"),
        ("gpt_oss", "to=functions.f<|channel|>comm", "unclosed_tag"),
        ("gpt_oss", "f<|channel|>commentary json<|message|>{}", "not_a_call_object"),
        ("gpt_oss", "f commentary json<|message|>{}", "not_a_call_object"),
        ("gpt_oss", OSS.replace("f<", "\ud800<"), "not_strict_json"),
        ("muse_glimmer", ATEM[:-1], "unclosed_tag"),
        ("muse_glimmer", ATEM_CALLS, "unclosed_tag"),
        ("muse_glimmer", "to=f<|message|>", "unclosed_tag"),
        ("muse_glimmer", f"Sure.{ATEM_CALLS}", "unclosed_tag"),
        ("muse_glimmer", ATEM_CALL, "unclosed_tag"),
        ("muse_glimmer", f"<|message|>assistant {ATEM}", "unclosed_tag"),
        ("muse_glimmer", f"x {ATEM}", "not_a_call_object"),
        ("muse_glimmer", ATEM.replace("to=f", "to=g"), "not_a_call_object"),
        ("muse_glimmer", ATEM.replace("</atem:invoke>", ""), "text_inside_tag"),
        ("muse_glimmer", ATEM.replace("1</", "1<"), "text_inside_tag"),
        ("muse_glimmer", ATEM.replace("<|message|>", "<|message|>Well. "), "text_inside_tag"),
        ("muse_glimmer", ATEM.replace(ATEM_VALUE, ATEM_VALUE * 2), "not_a_call_object"),
        ("muse_glimmer", ATEM.replace("1", "\ud800"), "not_strict_json"),
        ("glm4", GLM[:-1], "unclosed_tag"),
        ("glm4", GLM.replace("</arg_value>", ""), "text_inside_tag"),
        ("glm4", GLM.replace("</arg_key>\n", "</arg_key>x"), "text_inside_tag"),
        ("glm4", GLM.replace("1", "<arg_value>1"), "text_inside_tag"),
        ("glm4", GLM.replace("f\n", "f g\n"), "text_inside_tag"),
        ("glm4", GLM.replace("f\n", "\n"), "not_a_call_object"),
        ("glm4", f"<tool_call>{F_JSON}</tool_call>", "not_a_call_object"),
        ("glm4", GLM.replace("1", "\ud800"), "not_strict_json"),
        ("glm4", GLM.replace("</tool", "<arg_key>a</arg_key><arg_value>2</arg_value></tool"), "not_a_call_object"),
        ("lfm2", "<|tool_call_start|>[f(a=1)]", "unclosed_tag"),
        ("lfm2", "[f(a=1)]<|tool_call_end|>", "unclosed_tag"),
        ("lfm2", "<|tool_call_start|>[f(a=1]<|tool_call_end|>", "not_pythonic"),
        ("lfm2", "<|tool_call_start|>f(a=1)<|tool_call_end|>", "not_pythonic"),
        ("lfm2", "<|tool_call_start|>[f(1)]<|tool_call_end|>", "not_pythonic"),
        ("lfm2", "<|tool_call_start|>[f(a='\ud800')]<|tool_call_end|>", "not_pythonic"),
        ("lfm2", "<|tool_call_start|>[]<|tool_call_end|>", "not_a_call_object"),
        ("mimo", "<tool_call>", "unclosed_tag"),
        ("cohere", COHERE % COMMAND, "not_a_call_object"),
        ("cohere", COHERE % "[]", "not_a_call_object"),
        ("cohere", COHERE % f"[{F_JSON}]", "not_a_call_object"),
        ("cohere", COHERE % f"[{COMMAND}]".replace('"0"', "0"), "not_a_call_object"),
        ("cohere", COHERE % f"[{COMMAND}", "not_json"),
        ("cohere", COHERE % f"[{COMMAND}] now", "text_inside_tag"),
        ("cohere", f"<|START_ACTION|>[{COMMAND}]", "unclosed_tag"),
        ("cohere", f"[{COMMAND}]<|END_ACTION|>", "unclosed_tag"),
        ("minimax_m2", MINI_INVOKE, "not_a_call_object"),
        ("minimax_m2", MINI % "", "not_a_call_object"),
        ("minimax_m2", MINI % MINI_INVOKE.replace('"f"', "f"), "text_inside_tag"),
        ("minimax_m2", MINI % MINI_INVOKE.replace('"a"', "a"), "text_inside_tag"),
        ("minimax_m2", MINI % MINI_INVOKE.replace("</parameter>", ""), "text_inside_tag"),
        ("minimax_m2", MINI % MINI_INVOKE.replace("</invoke>", ""), "unclosed_tag"),
        (
            "minimax_m2",
            MINI % MINI_INVOKE.replace("</parameter>", '</parameter><parameter name="a">2</parameter>'),
            "not_a_call_object",
        ),
        ("minimax_m2", MINI % MINI_INVOKE.replace(">1<", ">\ud800<"), "not_strict_json"),
        ("minimax_m2", f"<minimax:tool_call>{MINI_INVOKE}", "unclosed_tag"),
        ("deepseek_v32", INVOKE, "not_a_call_object"),
        ("deepseek_v32", DSML % "", "not_a_call_object"),
        ("deepseek_v32", DSML % INVOKE.replace(' string="false"', ""), "text_inside_tag"),
        ("deepseek_v32", DSML % INVOKE.replace("false", "False"), "text_inside_tag"),
        ("deepseek_v32", DSML % INVOKE.replace('"f">', '"f"> now '), "text_inside_tag"),
        ("deepseek_v32", DSML % INVOKE.replace('"f"', '""'), "not_a_call_object"),
        ("deepseek_v32", DSML % INVOKE.replace(">1<", ">Oslo<"), "not_json"),
        ("deepseek_v32", DSML % INVOKE.replace(">1<", ">NaN<"), "not_strict_json"),
        ("deepseek_v32", DSML % INVOKE.replace("</｜DSML｜invoke>", ""), "unclosed_tag"),
        ("deepseek_v32", DSML % INVOKE.replace("</｜DSML｜parameter>", ""), "text_inside_tag"),
        ("deepseek_v32", f"<｜DSML｜function_calls>{INVOKE}", "unclosed_tag"),
        ("deepseek_v4", f"<｜DSML｜tool_calls>{INVOKE[:-5]}", "unclosed_tag"),
        ("mcp", RPC[:-1], "not_json"),
        ("mcp", RPC.replace("1}", "Infinity}"), "not_strict_json"),
        ("mcp", RPC.replace('"2.0"', "2.0"), "not_a_call_object"),
        ("mcp", RPC.replace('"2.0"', '"1.0"'), "not_a_call_object"),
        ("mcp", RPC.replace('"id": 7, ', ""), "not_a_call_object"),
        ("mcp", RPC.replace("7", "null"), "not_a_call_object"),
        ("mcp", RPC.replace("7", "true"), "not_a_call_object"),
        ("mcp", RPC.replace("tools/call", "tools/list"), "not_a_call_object"),
        ("mcp", RPC.replace('"name": "f", ', ""), "not_a_call_object"),
        ("mcp", RPC.replace('{"a": 1}', "null"), "not_a_call_object"),
        ("mcp", '{"jsonrpc": "2.0", "id": 1, "result": {}}', "not_a_call_object"),
        ("mcp", F_JSON, "not_a_call_object"),
        ("mcp", f"Calling: {RPC}", "text_beside_call"),
        ("mcp", f"{RPC}\n{RPC}", "text_beside_call"),
        ("json", F_JSON[:-1], "not_json"),
        ("json", F_JSON[1:], "not_json"),
        ("json", f"[{F_JSON},]", "not_json"),
        ("json", '{"name": "f", "arguments": {"a": 1e400}}', "not_strict_json"),
        ("json", '{"name": "f", "arguments": {"a": "\\udc00"}}', "not_strict_json"),
        ("json", '{"name": "f", "arguments": {"a": "\udc00"}}', "not_strict_json"),
        ("json", '{"name": "f", "tool": "f", "arguments": {}}', "not_a_call_object"),
        ("json", '{"name": "f", "parameters": {}}', "not_a_call_object"),
        ("json", '{"name": "f", "args": {}}', "not_a_call_object"),
        ("json", '{"tool_calls": []}', "not_a_call_object"),
        ("json", f"```json\n{F_JSON}\n```", "text_beside_call"),
        ("json", f"{F_JSON} is what I do", "text_beside_call"),
        ("json", f"{F_JSON}; {F_JSON}", "text_beside_call"),
    ],
)
def test_a_malformed_attempt_is_one_problem_and_no_call(format: str, text: str, reason: FailureReason) -> None:
    assert calls_of(text, format) == []
    assert reasons_of(text, format) == [reason]


@pytest.mark.parametrize(
    ("format", "text", "names", "reasons"),
    [
        ("llama_json", f'{F_LLAMA}; {{"name": 1, "parameters": {{}}}}; {F_LLAMA}', ["f", "f"], ["not_a_call_object"]),
        ("llama_json", f"{F_LLAMA}; {F_LLAMA[:-1]}", ["f"], ["not_json"]),
        ("mistral", f"[TOOL_CALLS] [{F_JSON}, 5]", ["f"], ["not_a_call_object"]),
        ("mistral", '[TOOL_CALLS]f{[TOOL_CALLS]g{}[TOOL_CALLS]h{"', ["g"], ["not_json", "not_json"]),
        ("qwen_xml", f"<tool_call>\n{XML}", ["f"], ["unclosed_tag"]),
        ("gemma4", "<|tool_call>call:f{a:1<|tool_call>call:g{}<tool_call|>", ["g"], ["unclosed_tag"]),
        ("gpt_oss", f"{OSS[:-9]}<|call|><|start|>assistant {OSS}", ["f"], ["not_json"]),
        ("muse_glimmer", f"{ATEM[:-1]}<|eom|><|start|>assistant {ATEM}", ["f"], ["unclosed_tag"]),
        ("muse_glimmer", f"{ATEM[:-1]}<|start|>assistant {ATEM}", ["f"], ["unclosed_tag"]),
        ("glm4", f"<tool_call>f<arg_key>{GLM}<tool_call>", ["f"], ["unclosed_tag"] * 2),
        ("lfm2", "<|tool_call_start|>[f(<|tool_call_start|>[g()]<|tool_call_end|>", ["g"], ["unclosed_tag"]),
        ("qwen_xml", f"<tool_call>{XML}{XML}", ["f", "f"], ["unclosed_tag"]),
        ("qwen_xml", f"<tool_call><function=f><parameter=a>{XML}<function=", ["f"], ["unclosed_tag"] * 2),
        ("mcp", f"[{RPC}, {{}}]", ["f"], ["not_a_call_object"]),
        ("deepseek_v3", DS_SECTION % f"{V3} and {V3}", ["f", "f"], ["text_inside_tag"]),
        ("deepseek_v3", DS_SECTION % f"{V3[:-22]}{V3}", ["f"], ["unclosed_tag"]),
        ("deepseek_v3", f"<｜tool▁calls▁begin｜>{DS_SECTION % V3}", ["f"], ["unclosed_tag"]),
        ("deepseek_v31", f"{DS_SECTION % (V31 + V31)[:-30]}", ["f"], ["unclosed_tag"]),
        ("kimi_k2", K2_SECTION % (K2.replace("functions.", "") + K2), ["f"], ["not_a_call_object"]),
        ("kimi_k2", f"{K2}{K2_SECTION % K2}", ["f"], ["not_a_call_object"]),
        ("granite", f"<|tool_call|>[{F_JSON}, 5] <|tool_call|>[", ["f"], ["not_a_call_object", "not_json"]),
        ("phi4_mini", f"<|tool_call|><|tool_call|>{F_JSON}<|/tool_call|>", ["f"], ["unclosed_tag"]),
        ("phi4_mini", f"functools[{{ functools[{F_JSON}]", ["f"], ["not_json"]),
        ("minimax_m1", CALLS % f"{F_JSON} 5 {F_G}", ["f", "g"], ["not_a_call_object"]),
        ("minimax_m1", CALLS % f"{F_JSON} {{ {F_G}" + CALLS % F_G, ["f", "g"], ["not_json"]),
        ("minimax_m1", f"<tool_calls>{F_G}{CALLS % F_JSON}", ["f"], ["unclosed_tag"]),
        ("olmo3", OLMO % "f(a=1)\nf(1)\ng()", ["f", "g"], ["not_pythonic"]),
        ("olmo3", f"<function_calls>{OLMO % 'f(a=1)'}", ["f"], ["unclosed_tag"]),
        ("json", f"[{F_JSON}, null, {F_JSON}]", ["f", "f"], ["not_a_call_object"]),
    ],
)
def test_a_malformed_call_hides_no_other(
    format: str, text: str, names: list[str], reasons: list[FailureReason]
) -> None:
    assert [name for name, _ in calls_of(text, format)] == names
    assert reasons_of(text, format) == reasons


PROSE = [
    "",
    "It is sunny.",
    "Which city do you mean?",
    "The function f(x) = x + 1 is increasing (see [1]).",
    "[1] a note (see below)",
    "[]",
    "{}",
    "null",
    '{"temperature": 21, "unit": "C"}',
    '{"name": "Ada", "age": 36}',
    '[{"city": "Rome"}, {"city": "Oslo"}]',
    '["a", "b"]',
    "{city} is the capital of {country}.",
    "My name: Ada. Its parameters: none.",
    'He said "name" and left.',
    "- [x] done (twice)\n- [ ] open",
]


@pytest.mark.parametrize("format", REPLY_FORMATS)
@pytest.mark.parametrize("text", PROSE)
def test_plain_prose_and_other_json_are_no_attempt(format: str, text: str) -> None:
    reply = parse_reply(text, format=format)
    assert (reply.calls, reply.problems, reply.prose) == ((), (), text)


def test_prose_beside_calls_is_told() -> None:
    assert parse_reply("Sure. [TOOL_CALLS]f{}", format="mistral").prose == "Sure."
    assert parse_reply(f"Sure. {F_JSON} Done.", format="json").prose == "Sure. Done."
    assert parse_reply("[f()] Done.", format="pythonic").prose == "Done."
    assert parse_reply(F_JSON, format="json").prose == ""
    answer = "<|START_RESPONSE|>It is sunny.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"
    assert parse_reply(answer, format="cohere").prose == "It is sunny."


@pytest.mark.parametrize(
    ("format", "text", "thinking", "rest"),
    [
        ("mistral", "[THINK]plan[/THINK]answer</s>", "plan", "answer"),
        ("mistral", "plan[/THINK]answer", "plan", "answer"),
        ("mistral", '[TOOL_CALLS]f{"a": "</think>"}', None, '[TOOL_CALLS]f{"a": "</think>"}'),
        ("hermes", "plan {1}</think>answer<|im_end|>\n<|endoftext|>", "plan {1}", "answer"),
        ("llama_json", "plan</think>answer<|eot_id|>", "plan", "answer"),
        ("pythonic", "[f(a='</think>')]", None, "[f(a='</think>')]"),
        ("json", '["</think>"]', None, '["</think>"]'),
        ("deepseek_v3", f"plan</think>{DS_SECTION % V3}<｜end▁of▁sentence｜>", "plan", DS_SECTION % V3),
        ("deepseek_v31", f"{DS_SECTION % V31}</think>", None, f"{DS_SECTION % V31}</think>"),
        ("cohere", "<|START_THINKING|>plan<|END_THINKING|>answer<|END_RESPONSE|>", "plan", "answer"),
        ("cohere", "plan<|END_THINKING|><|START_RESPONSE|>answer", "plan", "<|START_RESPONSE|>answer"),
        ("granite", "<think>plan</think><tool_call>[", "plan", "<tool_call>["),
        ("phi4_mini", 'functools[{"</think>', None, 'functools[{"</think>'),
        ("json", "<think>a</think>b</think>c", "a", "b</think>c"),
        ("gemma4", "<|channel>thought\nplan\n<channel|>answer<turn|>", "plan", "answer"),
        ("seed_oss", "<seed:think>plan</seed:think>answer<seed:eos>", "plan", "answer"),
        ("gpt_oss", "<|channel|>analysis<|message|>plan<|end|>answer<|return|>", "plan", "answer"),
        ("muse_glimmer", "to=self<|message|>plan<|eom|><|start|>answer<|eot|>", "plan", "<|start|>answer"),
        ("gpt_oss", "<|channel|>commentary<|message|>a<|end|>b", None, "<|channel|>commentary<|message|>a<|end|>b"),
    ],
)
def test_think_blocks_of_every_family(format: str, text: str, thinking: str | None, rest: str) -> None:
    assert split_thinking(text, format=format) == (thinking, rest)


# Laws


def json_values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    )


JSON_VALUES = json_values(st.text())
# In a call that is broken, a mark in what was a string begins another call.
MARKLESS = st.text(st.characters(codec="utf-8", exclude_characters="<["), min_size=1)
KEYWORDS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


def as_objects(calls: Calls, arguments_key: str) -> list[str]:
    return [json.dumps({"name": name, arguments_key: arguments}) for name, arguments in calls]


def as_requests(calls: Calls) -> list[str]:
    return [
        json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": given}})
        for id, (name, given) in enumerate(calls)
    ]


def as_python(calls: Calls) -> str:
    written = (f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in calls)
    return f"[{', '.join(written)}]"


def as_python_lines(calls: Calls) -> str:
    return "\n".join(as_python([call])[1:-1] for call in calls)


def as_kimi(calls: Calls) -> str:
    heads = [f"functions.{name}:{n}<|tool_call_argument_begin|>" for n, (name, _) in enumerate(calls)]
    written = zip(heads, calls, strict=True)
    return K2_SECTION % "".join(
        f"<|tool_call_begin|>{head}{json.dumps(a)}<|tool_call_end|>" for head, (_, a) in written
    )


def as_cohere(calls: Calls) -> str:
    written = [
        {"tool_call_id": str(n), "tool_name": name, "parameters": given} for n, (name, given) in enumerate(calls)
    ]
    return COHERE % json.dumps(written)


def as_dsml(calls: Calls) -> str:
    written = [
        (name, [(key, str(isinstance(value, str)).lower(), value) for key, value in given.items()])
        for name, given in calls
    ]
    return DSML % "\n".join(
        f'<｜DSML｜invoke name="{name}">\n'
        + "".join(
            f'<｜DSML｜parameter name="{key}" string="{is_text}">{value if is_text == "true" else json.dumps(value)}'
            "</｜DSML｜parameter>\n"
            for key, is_text, value in given
        )
        + "</｜DSML｜invoke>"
        for name, given in written
    )


TAGGED = "<tool_call>{}</tool_call>"
V3_CALL = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n{}\n```<｜tool▁call▁end｜>"
V31_CALL = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
RENDERINGS: dict[str, tuple[str, Callable[[Calls], str]]] = {
    "hermes": ("hermes", lambda calls: "\n".join(map(TAGGED.format, as_objects(calls, "arguments")))),
    "llama": ("llama_json", lambda calls: "; ".join(as_objects(calls, "parameters"))),
    "llama tagged": ("llama_json", lambda calls: "<|python_tag|>" + ";".join(as_objects(calls, "arguments"))),
    "mistral array": ("mistral", lambda calls: f"[TOOL_CALLS] [{', '.join(as_objects(calls, 'arguments'))}]"),
    "mistral names": ("mistral", lambda calls: "".join(f"[TOOL_CALLS]{n}{json.dumps(a)}" for n, a in calls)),
    "mistral args": ("mistral", lambda calls: "".join(f"[TOOL_CALLS]{n}[ARGS]{json.dumps(a)}" for n, a in calls)),
    "pythonic": ("pythonic", as_python),
    "deepseek v3": (
        "deepseek_v3",
        lambda calls: DS_SECTION % "\n".join(V3_CALL.format(n, json.dumps(a)) for n, a in calls),
    ),
    "deepseek v3.1": (
        "deepseek_v31",
        lambda calls: DS_SECTION % "".join(V31_CALL.format(n, json.dumps(a, ensure_ascii=False)) for n, a in calls),
    ),
    "kimi k2": ("kimi_k2", as_kimi),
    "granite": ("granite", lambda calls: f"<|tool_call|>[{', '.join(as_objects(calls, 'arguments'))}]"),
    "phi4 tagged": (
        "phi4_mini",
        lambda calls: "".join(f"<|tool_call|>{call}<|/tool_call|>" for call in as_objects(calls, "arguments")),
    ),
    "phi4 functools": ("phi4_mini", lambda calls: f"functools[{', '.join(as_objects(calls, 'arguments'))}]"),
    "llama4": ("llama4_pythonic", lambda calls: L4 % as_python(calls)),
    "olmo3": ("olmo3", lambda calls: OLMO % as_python_lines(calls)),
    "cohere": ("cohere", as_cohere),
    "dsml": ("deepseek_v32", as_dsml),
    "mcp": ("mcp", lambda calls: f"[{', '.join(as_requests(calls))}]"),
    "mcp one": ("mcp", lambda calls: as_requests(calls[:1])[0]),
    "json": ("json", lambda calls: f"[{','.join(as_objects(calls, 'arguments'))}]"),
    "json one": ("json", lambda calls: as_objects(calls[:1], "arguments")[0]),
}


AS_PYTHON = {"pythonic", "llama4_pythonic", "olmo3"}
IN_TAGS = {"deepseek_v32"}
BARE_NAMES = {*AS_PYTHON, *IN_TAGS, "mistral", "deepseek_v3", "deepseek_v31", "kimi_k2"}


@pytest.mark.parametrize("rendering", RENDERINGS)
@given(data=st.data())
def test_rendered_calls_come_back_as_they_were(rendering: str, data: st.DataObject) -> None:
    keys = KEYWORDS if RENDERINGS[rendering][0] in AS_PYTHON | IN_TAGS else st.text()
    names = KEYWORDS if RENDERINGS[rendering][0] in BARE_NAMES else st.text(min_size=1)
    drawn = st.tuples(names, st.dictionaries(keys, JSON_VALUES, max_size=3))
    calls = data.draw(st.lists(drawn, min_size=1, max_size=3))
    calls = calls[:1] if rendering.endswith("one") else calls
    format, render = RENDERINGS[rendering]
    text = render(calls)
    assert reasons_of(text, format) == []
    assert json.dumps(calls_of(text, format)) == json.dumps(calls)


def structural_places(text: str) -> list[int]:
    """Where brackets of all kinds stand outside strings in double or single quotes."""
    places, quote, place = list[int](), "", 0
    while place < len(text):
        character = text[place]
        if quote:
            place += character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "{}[]()":
            places.append(place)
        place += 1
    return places


@pytest.mark.parametrize("rendering", [name for name, (form, _) in RENDERINGS.items() if form not in IN_TAGS])
@given(data=st.data())
def test_a_call_without_one_of_its_brackets_is_refused(rendering: str, data: st.DataObject) -> None:
    keys = KEYWORDS if RENDERINGS[rendering][0] in AS_PYTHON else MARKLESS
    arguments = data.draw(st.dictionaries(keys, json_values(MARKLESS), min_size=1, max_size=3))
    format, render = RENDERINGS[rendering]
    text = render([("get_it", arguments)])
    head = max(text.find(mark) + len(mark) for mark in ("<tool_call>", "[TOOL_CALLS]", "[ARGS]", "") if mark in text)
    place = data.draw(st.sampled_from([place for place in structural_places(text) if place >= head]))
    broken = text[:place] + text[place + 1 :]
    assert calls_of(broken, format) == []
    assert len(reasons_of(broken, format)) == 1


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "01", "0x1", "'x", "undefined"])
def test_a_value_that_is_not_strict_is_refused(rendering: str, value: str) -> None:
    format, render = RENDERINGS[rendering]
    text = render([("get_it", {"a": 12345})]).replace("12345", value)
    assert calls_of(text, format) == []
    assert len(reasons_of(text, format)) == 1


@pytest.mark.parametrize("rendering", RENDERINGS)
@given(value=JSON_VALUES)
def test_an_argument_given_twice_is_refused(rendering: str, value: object) -> None:
    format, render = RENDERINGS[rendering]
    text = render([("get_it", {"a": 12345, "b": 67890})])
    text = text.replace("b=", "a=") if format in AS_PYTHON else text.replace('"b"', '"a"')
    written = repr(value) if format in AS_PYTHON else json.dumps(value)
    text = text.replace("12345", written, 1)
    text = text[::-1].replace("09876", written[::-1], 1)[::-1]
    assert calls_of(text, format) == []
    assert len(reasons_of(text, format)) == 1


MARKS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<think>", "</think>"]
MARKS += [tag for form in REPLY_FORMATS.values() for tag in form.tags if tag not in MARKS]
PIECES = [XML, "<function=f>", "<parameter=a>", "</function>", "</parameter>", GLM, "<arg_key>", "</arg_value>"]
PIECES += [OSS, "<|channel|>", "<|message|>", "<|end|>", "<|start|>assistant", "commentary"]
PIECES += [ATEM, ATEM_VALUE, "<atem:function_calls>"]
PIECES += [M3, M3_VALUE, M3_NEST, GIGA]
PIECES += [F_JSON, F_LLAMA, RPC, V3, V31, K2, COMMAND, INVOKE, MINI_INVOKE, "call:f{", '<|"|>']
PIECES += ["[f(a=1)]", "f(", "NaN", "\ud800", *"{}[]\"'\\,;:="]
TEXTS = st.lists(st.sampled_from([*MARKS, *PIECES, "</s>"]) | st.text(st.characters(), max_size=5), max_size=20)


@pytest.mark.parametrize("format", REPLY_FORMATS)
@given(text=TEXTS.map("".join))
def test_no_text_makes_it_raise_and_no_attempt_counts_twice(format: str, text: str) -> None:
    reply = parse_reply(text, format=format)
    reply.model_dump_json()
    num_attempts = len(reply.calls) + len(reply.problems)
    if format == "hermes":
        assert num_attempts <= text.count("<tool_call>")
    if format in ("llama_json", "mcp", "json"):
        assert num_attempts <= max(1, text.count("{") + text.count(","))
        assert not (reply.calls and any(problem.reason == "text_beside_call" for problem in reply.problems))
    if format == "mistral":
        assert num_attempts <= text.count("[TOOL_CALLS]") + text.count(",")
        if reply.thinking is None and "[TOOL_CALLS]" in text:
            assert num_attempts
    if format in ("pythonic", "llama4_pythonic"):
        assert not (reply.calls and reply.problems)
        assert len(reply.problems) <= 1


@given(text=st.text(st.characters(exclude_characters="{}[]()<>\"'")))
def test_text_without_brackets_and_quotes_is_prose_in_every_format(text: str) -> None:
    for format in REPLY_FORMATS:
        reply = parse_reply(text, format=format)
        assert (reply.calls, reply.problems) == ((), ())


@pytest.mark.parametrize(
    ("format", "unit"),
    [
        ("llama_json", '{"name":"f","parameters":{}};'),
        ("llama_json", '{"name":'),
        ("llama_json", "<|python_tag|>"),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", '[TOOL_CALLS]f{"'),
        ("mistral", "[TOOL_CALLS] ["),
        ("mistral", "[TOOL_CALLS]f[ARGS]"),
        ("minimax_m1", "<tool_calls>"),
        ("minimax_m1", f"<tool_calls>{F_JSON}"),
        ("minimax_m1", F_JSON + "</tool_calls>"),
        ("hunyuan", "<tool_calls>["),
        ("pythonic", "[f("),
        ("pythonic", "[f(a='"),
        ("pythonic", "[a" + "b" * 200),
        ("pythonic", "f(a=1)"),
        ("deepseek_v3", "<｜tool▁calls▁begin｜>"),
        ("deepseek_v3", V3),
        ("deepseek_v31", DS_SECTION % V31),
        ("deepseek_v31", V31[:-22]),
        ("deepseek_v31", '<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"'),
        ("kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>functions.f"),
        ("kimi_k2", '<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": ['),
        ("granite", "<|tool_call|>["),
        ("granite", f"<tool_call>[{F_JSON}]"),
        ("phi4_mini", "functools["),
        ("phi4_mini", "<|tool_call|>{"),
        ("phi4_mini", f"<|tool_call|>{F_JSON}"),
        ("llama4_pythonic", "<|python_start|>[f("),
        ("llama4_pythonic", "<|python_end|>"),
        ("olmo3", "<function_calls>f("),
        ("olmo3", OLMO % "f(a=1)\n"),
        ("qwen_xml", "<tool_call>"),
        ("qwen_xml", "<function="),
        ("gemma4", "<|tool_call>call:f{a:[{b:"),
        ("gemma4", '<|tool_call>call:f{a:<|"|>'),
        ("gemma4", '<|"|>,a:'),
        ("gemma4", "<|tool_call>call:f" + "{a:" * 60),
        ("functiongemma", "<start_function_call>call:f{a:<escape>x<escape>,"),
        ("gpt_oss", "<|start|>assistant to=functions.f"),
        ("gpt_oss", "<|channel|>commentary"),
        ("gpt_oss", "to=functions.f "),
        ("muse_glimmer", "<|start|>assistant to=f<|message|><atem:function_calls>"),
        ("muse_glimmer", ATEM_VALUE),
        ("muse_glimmer", ATEM_CALLS),
        ("gpt_oss", '<|message|>{"a": "'),
        ("glm4", "<tool_call>f<arg_key>a</arg_key><arg_value>"),
        ("glm4", "<arg_key>a</arg_key><arg_value></arg_value>"),
        ("glm4", "<tool_call>f<arg_key>a</arg_key><arg_value><tool_call>f</arg_value>"),
        ("lfm2", "<|tool_call_start|>[f(a='"),
        ("lfm2", "<|tool_call_end|>"),
        ("qwen_xml", "<tool_call><function=f><parameter=a>"),
        ("qwen_xml", "<function=f><parameter=a>"),
        ("qwen_xml", "<parameter=a></parameter>"),
        ("qwen_xml", "<tool_call><function=f>" + "<parameter=a></parameter>" * 20),
        ("qwen_xml", "<tool_call><function=f><parameter=a><tool_call><function=f></parameter>"),
        ("cohere", "<|START_ACTION|>["),
        ("cohere", "<|START_RESPONSE|>"),
        ("minimax_m2", MINI_INVOKE),
        ("minimax_m2", MINI % MINI_INVOKE),
        ("minimax_m2", '<invoke name="f"><parameter name="a">'),
        ("minimax_m2", '<minimax:tool_call><invoke name="f">'),
        ("minimax_m3", M3),
        ("minimax_m3", M3_CALL),
        ("minimax_m3", M3_SECTION % M3_CALL),
        ("minimax_m3", f"{M3}<tool_call>{M3_CALL[:-12]}"),
        ("minimax_m3", f'{M3}<tool_call>{M3}<invoke name="f">{M3}<a>'),
        ("gigachat3", "<|function_call|>"),
        ("gigachat3", GIGA),
        ("deepseek_v32", INVOKE),
        ("deepseek_v32", DSML % INVOKE),
        ("deepseek_v32", INVOKE[:-45]),
        ("deepseek_v32", '<｜DSML｜invoke name="f">'),
        ("deepseek_v32", "<｜DSML｜function_calls>"),
        ("mcp", '{"jsonrpc":'),
        ("json", '[{"name" '),
        ("json", "{ "),
        ("json", '"arguments":'),
        ("json", "</s> "),
    ],
)
def test_a_hostile_reply_is_read_in_linear_time(format: str, unit: str) -> None:
    def seconds(chars: int) -> float:
        text = "x" + unit * (chars // len(unit))
        start = time.process_time()
        parse_reply(text, format=format)
        parse_reply(text[1:], format=format)
        return time.process_time() - start

    # Four times the text takes about four times as long; a quadratic reader would need sixteen times.
    short, long = min(seconds(15_000) for _ in range(3)), min(seconds(60_000) for _ in range(2))
    assert long < 9 * short + 0.05


SHARED = {"__init__", "between_tags", "reply", "sections", "typed"}


def test_every_file_of_a_format_has_its_row() -> None:
    files = {path.stem for path in Path(formats.__file__).parent.glob("*.py")} - SHARED
    assert files == set(REPLY_FORMATS)
    for name, form in REPLY_FORMATS.items():
        assert getattr(import_module(f"{formats.__name__}.{name}"), name.upper()) is form
        assert form.name == name


def test_the_tags_around_an_answer_of_granite_are_no_prose() -> None:
    reply = parse_reply("<think>Well.</think><response>It rains.</response>", format="granite")
    assert (reply.thinking, reply.prose, reply.problems) == ("Well.", "It rains.", ())
