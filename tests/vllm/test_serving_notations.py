"""Each notation of calls, read by three readers: the strict one, vLLM's own, and transformers' with TRL's templates."""

import json
from typing import Any

import pytest
from builders import make_tool
from gold_calls import Gold, broken, gold_calls
from hypothesis import given, settings
from hypothesis import strategies as st
from notations import NOTATIONS, reader, tokenizer, written
from serving_differences import Reading, unnamed

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.parse import parse_reply, serving_differs
from orchestrator.chat.serving import serving_reader
from orchestrator.chat.template_input import plain_tools
from orchestrator.core.records import FunctionSpec, JsonObject, ToolSpec
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm


def draw_gold(notation: str, data: st.DataObject) -> Gold:
    row = NOTATIONS[notation]
    return data.draw(gold_calls(row.texts, row.inner, row.max_calls, row.names))


@pytest.mark.parametrize("notation", NOTATIONS)
@settings(max_examples=15)
@given(data=st.data())
def test_vllm_reads_the_calls_that_a_template_writes(notation: str, data: st.DataObject) -> None:
    gold = draw_gold(notation, data)
    text = written(notation, gold)
    strict = parse_reply(text, format=NOTATIONS[notation].format, tools=gold.tools)
    calls = [(call.function.name, call.function.arguments) for call in strict.calls]
    assert json.dumps(calls, sort_keys=True) == json.dumps(gold.calls, sort_keys=True)
    served = reader(notation)(text, gold.tools)
    assert served.error is None
    assert not unnamed(notation, Reading(gold, text, strict, served)), served


@pytest.mark.parametrize("notation", NOTATIONS)
@settings(max_examples=30)
@given(data=st.data())
def test_vllm_reads_a_broken_reply_as_the_strict_reader_does_or_that_one_refuses_it(
    notation: str, data: st.DataObject
) -> None:
    gold = draw_gold(notation, data)
    text = data.draw(broken(written(notation, gold), NOTATIONS[notation].tags))
    strict = parse_reply(text, format=NOTATIONS[notation].format, tools=gold.tools)
    assert not unnamed(notation, Reading(gold, text, strict, reader(notation)(text, gold.tools)))


@pytest.mark.parametrize(
    ("value", "schema", "strict", "served"),
    [
        ("None", {"type": ["integer", "null"]}, [None], ["None"]),
        ("5", {"const": 5}, [5], ["5"]),
        ("5", {"$ref": "#/$defs/whole"}, [5], ["5"]),
        ("five", {"type": "integer"}, [], ["five"]),
        ("1_000", {"type": "integer"}, [], [1000]),
        ("1", {"type": "boolean"}, [], [True]),
        ("12345678901234567890", {"type": "number"}, [12345678901234567890], [12345678901234567168]),
    ],
)
def test_where_vllm_types_a_text_otherwise_it_differs(
    value: str, schema: JsonObject, strict: list[Any], served: list[Any]
) -> None:
    parameters = {"properties": {"a": schema}, "$defs": {"whole": {"type": "integer"}}}
    tool = ToolSpec(function=FunctionSpec(name="f", description="", parameters=parameters))
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n{value}\n</parameter>\n</function>\n</tool_call>"
    found = parse_reply(text, format="qwen_xml", tools=[tool])
    reply = reader("qwen 3.5")(text, [tool])
    assert [call.function.arguments["a"] for call in found.calls] == strict
    assert [json.loads(arguments)["a"] for _, arguments in reply.calls] == served
    assert serving_differs(found, reply)


G = "<tool_call>g</tool_call>"
OSS = '<|channel|>%s<|message|>{"a": 1}<|call|>'
ATEM = (
    '%s<atem:function_calls><atem:invoke name="%s"><atem:parameter name="a">%s</atem:parameter>'
    "</atem:invoke></atem:function_calls>"
)
FUNCTIONGEMMA = "<start_function_call>call:f{%s}<end_function_call>"
LFM = "<|tool_call_start|>[f(a=%s)]<|tool_call_end|>"


@pytest.mark.parametrize(
    ("format", "text", "strict", "served"),
    [
        ("gemma4", "<|tool_call>call:f{a:3}<tool_call|>", [{"a": 3}], [{"a": "3"}]),
        ("gemma4", "<|tool_call>call:f{a:celsius}<tool_call|>", [], [{"a": "celsius"}]),
        ("gemma4", '<|tool_call>call:f{a:<|"|>x<|"|>', [], [{"a": "x"}]),
        ("functiongemma", FUNCTIONGEMMA % "a:<escape>x<escape>,b:3", [{"a": "x", "b": 3}], [{"a": "x"}]),
        ("functiongemma", FUNCTIONGEMMA % "a:<escape>3<escape>", [{"a": "3"}], [{"a": 3}]),
        ("gpt_oss", OSS % "analysis to=functions.f", [], [{"a": 1}]),
        ("gpt_oss", OSS % "commentary to=f", [], [{"a": 1}]),
        ("gpt_oss", OSS % "commentary to=functions.f code", [], [{"a": 1}]),
        ("muse_glimmer", ATEM % ("to=f<|message|>", "f", "3"), [{"a": "3"}], [{"a": 3}]),
        ("muse_glimmer", ATEM % ("to=g<|message|>", "f", "x"), [], [{"a": "x"}]),
        ("muse_glimmer", ATEM % ("", "f", "x"), [], [{"a": "x"}]),
        ("glm4", G, [{}], []),
        ("glm4", "<tool_call>f", [], [{}]),
        ("lfm2", LFM % 1 + LFM % 2, [{"a": 1}, {"a": 2}], [{"a": 1}]),
        ("lfm2", LFM % "07", [], [{"a": 7}]),
        ("lfm2", "<|tool_call_start|>[f(a=1)]", [], [{"a": 1}]),
    ],
)
def test_where_vllm_reads_a_notation_otherwise_it_differs(
    format: str, text: str, strict: list[Any], served: list[Any]
) -> None:
    tools = [make_tool("f", b={"type": "integer"})]
    made = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    made.add_special_tokens({"additional_special_tokens": [*REPLY_FORMATS[format].tags]})
    found = parse_reply(text, format=format, tools=tools)
    reply = serving_reader(str(REPLY_FORMATS[format].vllm_parser), made)(text, tools)
    assert [call.function.arguments for call in found.calls] == strict
    assert [json.loads(arguments) for _, arguments in reply.calls] == served
    assert serving_differs(found, reply)


def test_texts_of_functiongemma_are_read_by_both() -> None:
    text = f"Sure.{FUNCTIONGEMMA % 'a:<escape>x, {y}<escape>'}{FUNCTIONGEMMA % ''}"
    served = serving_reader("functiongemma", tokenizer("gemma 4"))(text, [make_tool("f")])
    assert served.calls == (("f", '{"a": "x, {y}"}'), ("f", "{}"))
    assert not serving_differs(parse_reply(text, format="functiongemma"), served)


PLAIN: dict[str, tuple[JsonObject, Any]] = {
    "text": ({"type": "string"}, "a < b"),
    "digits": ({"type": "string"}, "3"),
    "whole": ({"type": "integer"}, 3),
    "number": ({"type": "number"}, -2.5),
    "flag": ({"type": "boolean"}, True),
    "object": ({"type": "object"}, {"city": "Zürich", "days": [1, None, "2"]}),
    "array": ({"type": "array"}, ["a", {"b": False}]),
}


@pytest.mark.parametrize("notation", [name for name, row in NOTATIONS.items() if row.response_template])
def test_transformers_reads_the_calls_that_a_template_writes(notation: str) -> None:
    from trl import chat_template_utils

    row = NOTATIONS[notation]
    tools = [make_tool("f", **{key: schema for key, (schema, _) in PLAIN.items()}), make_tool("g")]
    values = {key: value for key, (_, value) in PLAIN.items() if key not in row.lost}
    calls: list[tuple[str, JsonObject]] = [("f", values), ("g", {})]
    gold = Gold(tools, calls[: row.max_calls])
    text = written(notation, gold)
    made = tokenizer(notation)
    made.response_template = getattr(chat_template_utils, str(row.response_template))
    message = made.parse_response(text, prefix=row.before, tools=plain_tools(tools))
    found = [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    strict = parse_reply(text, format=row.format, tools=tools)
    assert found == [(call.function.name, call.function.arguments) for call in strict.calls] == gold.calls
