"""Each notation of calls, read by three readers: the strict one, vLLM's own, and transformers' with TRL's templates."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
from builders import make_tool
from gold_calls import TEXTS, Gold, broken, gold_calls, shipped
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.parse import parse_reply, serving_differs
from orchestrator.chat.serving import serving_reader
from orchestrator.chat.template_input import plain_tools
from orchestrator.core.records import FunctionSpec, JsonObject, ToolSpec
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm


class Notation(NamedTuple):
    """A format as a shipped template writes it.

    `before` is what stands before an assistant's turn, `tags` are the marks to break, `texts` those that vLLM and the
    template give back, and `response_template` the name of TRL's template for transformers' reader.
    """

    format: str
    template: str
    before: str
    tags: tuple[str, ...]
    texts: st.SearchStrategy[str] = TEXTS
    response_template: str | None = None
    max_calls: int = 3


CHATML = "<|im_start|>assistant\n"
XML_TAGS = ("<tool_call>", "</tool_call>", "</function>", "</parameter>")
NOTATIONS = {
    "qwen 3.5": Notation("qwen_xml", "qwen3_5_think", CHATML, XML_TAGS, response_template="qwen3_5_template"),
    "qwen 3.8": Notation("qwen_xml", "qwen3_8", CHATML, XML_TAGS, response_template="qwen3_5_template"),
}


@cache
def tokenizer(notation: str) -> Any:
    """The toy tokenizer with the marks of the notation, which some parsers ask for."""
    made = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    form = REPLY_FORMATS[NOTATIONS[notation].format]
    marks = [*form.tags, *(mark for marks in form.thoughts for mark in marks)]
    made.add_special_tokens({"additional_special_tokens": marks})
    return made


@cache
def reader(notation: str) -> Callable[..., Any]:
    parser = REPLY_FORMATS[NOTATIONS[notation].format].vllm_parser
    assert parser is not None
    return serving_reader(parser, tokenizer(notation))


def written(notation: str, gold: Gold) -> str:
    row = NOTATIONS[notation]
    return gold.rendered(tokenizer(notation), shipped(row.template), row.before)


def draw_gold(notation: str, data: st.DataObject) -> Gold:
    row = NOTATIONS[notation]
    return data.draw(gold_calls(row.texts, max_calls=row.max_calls))


@pytest.mark.parametrize("notation", NOTATIONS)
@settings(max_examples=15)
@given(data=st.data())
def test_vllm_reads_the_calls_that_a_template_writes(notation: str, data: st.DataObject) -> None:
    gold = draw_gold(notation, data)
    text = written(notation, gold)
    strict = parse_reply(text, format=NOTATIONS[notation].format, tools=gold.tools)
    assert json.dumps([(call.function.name, call.function.arguments) for call in strict.calls]) == json.dumps(
        gold.calls
    )
    served = reader(notation)(text, gold.tools)
    assert served.error is None
    assert not serving_differs(strict, served), served


@pytest.mark.parametrize("notation", NOTATIONS)
@settings(max_examples=30)
@given(data=st.data())
def test_vllm_reads_a_broken_reply_as_the_strict_reader_does_or_that_one_refuses_it(
    notation: str, data: st.DataObject
) -> None:
    gold = draw_gold(notation, data)
    text = data.draw(broken(written(notation, gold), NOTATIONS[notation].tags))
    strict = parse_reply(text, format=NOTATIONS[notation].format, tools=gold.tools)
    if not strict.problems:
        assert not serving_differs(strict, reader(notation)(text, gold.tools))


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
    calls: list[tuple[str, JsonObject]] = [("f", {key: value for key, (_, value) in PLAIN.items()}), ("g", {})]
    gold = Gold(tools, calls[: row.max_calls])
    text = written(notation, gold)
    made = tokenizer(notation)
    made.response_template = getattr(chat_template_utils, str(row.response_template))
    message = made.parse_response(text, prefix=row.before, tools=plain_tools(tools))
    found = [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    strict = parse_reply(text, format=row.format, tools=tools)
    assert found == [(call.function.name, call.function.arguments) for call in strict.calls] == gold.calls
