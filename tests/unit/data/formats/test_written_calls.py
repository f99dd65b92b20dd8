"""Calls in an assistant's text, in the notations of other prompts, as calls of the tools that a row offers."""

import json
from typing import Any

import pytest
from raw_rows import FUNCTION, call, rejection

from orchestrator.core.records import JsonObject, Message, Sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.detect import detect_format

ASK: JsonObject = {"role": "user", "content": "Weather in Rome?"}
PLAN = {
    "name": "plan",
    "parameters": {
        "type": "object",
        "properties": {
            "days": {"type": "integer"},
            "exact": {"type": "boolean"},
            "stops": {"type": "array", "items": {"type": "string"}},
            "note": {"type": ["string", "null"]},
            "code": {"type": "string"},
            "size": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
    },
}
CALL = '{"name": "weather", "arguments": {"city": "Rome"}}'
XML = "<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>"
INVOKE = '<invoke name="weather">\n<parameter name="city">Rome</parameter>\n</invoke>'
KEYED = "weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n"


def sample_of(row: JsonObject) -> Sample:
    return sample_from_row(row, detect_format(row).format, source="f:1", keep_reasoning=False).sample


def row(text: Any, *more: JsonObject, tools: Any = (FUNCTION, PLAN)) -> JsonObject:
    return {"messages": [ASK, {"role": "assistant", "content": text}, *more], "tools": list(tools)}


@pytest.mark.parametrize(
    "text",
    [
        XML,
        f"<tool_call>\n{XML}\n</tool_call>",
        INVOKE,
        f"<function_calls>\n{INVOKE}\n</function_calls>",
        f"<tool_call>{KEYED}</tool_call>",
        f"<tool_call>{CALL}</tool_call>",
        f"<TOOLCALL>[{CALL}]</TOOLCALL>",
        f"<function_call>{CALL}</function_call>",
        f"<|tool_call|>[{CALL}]<|/tool_call|>",
        f"[TOOL_CALLS][{CALL}]",
        '[TOOL_CALLS]weather[ARGS]{"city": "Rome"}',
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Rome"}}',
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        CALL,
        f"```json\n[{CALL}]\n```",
        '[weather(city="Rome")]',
        [{"type": "text", "text": XML}],
    ],
)
def test_a_call_in_any_notation_is_that_call(text: Any) -> None:
    assert sample_of(row(text)).messages[1] == Message(role="assistant", tool_calls=(call("Rome"),))
    spoken = {"conversations": [{"from": "human", "value": "Rome?"}, {"from": "gpt", "value": text}]}
    if isinstance(text, str) and "[weather(" not in text:
        assert sample_of({**spoken, "tools": [FUNCTION]}).messages[1].tool_calls == (call("Rome"),)


@pytest.mark.parametrize("text", [XML, f"<tool_call>{CALL}</tool_call>", '[weather(city="Rome")]'])
def test_a_reply_of_raw_fields_calls_in_any_notation_too(text: str) -> None:
    given = {"prompt": "Rome?", "chosen": text, "rejected": "No.", "tools": [FUNCTION]}
    assert sample_of(given).messages[1] == Message(role="assistant", tool_calls=(call("Rome"),))


@pytest.mark.parametrize("wrap", ["{}", "<tool_call>{}</tool_call>"])
def test_several_calls_and_the_words_around_them(wrap: str) -> None:
    again = XML.replace("Rome", "Oslo")
    text = f"<think>Two.</think>I look.\n\n{wrap.format(XML)}\n{wrap.format(again)}\n"
    message = sample_of(row(text)).messages[1]
    assert message == Message(role="assistant", content="I look.", tool_calls=(call("Rome"), call("Oslo")))


def test_values_are_what_the_schema_of_the_tool_wants() -> None:
    given = {
        "days": "3",
        "exact": "True",
        "stops": '["a", "b"]',
        "note": "null",
        "code": "\nif a </function> b:\n    1\n",
        "size": "1.5",
        "other": "7",
    }
    parameters = "\n".join(f"<parameter={key}>\n{value}\n</parameter>" for key, value in given.items())
    (made,) = sample_of(row(f"<function=plan>\n{parameters}\n</function>")).messages[1].tool_calls
    assert made.function.arguments == {
        "days": 3,
        "exact": True,
        "stops": ["a", "b"],
        "note": None,
        "code": "\nif a </function> b:\n    1\n",
        "size": 1.5,
        "other": "7",
    }


@pytest.mark.parametrize("text", ["<function=plan>\n</function>", "<tool_call>plan\n</tool_call>"])
def test_a_call_without_parameters(text: str) -> None:
    (made,) = sample_of(row(text)).messages[1].tool_calls
    assert (made.function.name, made.function.arguments) == ("plan", {})


@pytest.mark.parametrize("begins", ["OBSERVATION:\n", "EXECUTION RESULT of [weather]:\n"])
def test_what_a_written_call_gave_is_a_tools_result(begins: str) -> None:
    turns = [{"role": "user", "content": f"{begins}9 C"}, {"role": "assistant", "content": "Mild."}]
    messages = sample_of(row(f"I look.\n\n{XML}", *turns)).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert (messages[2].content, messages[2].name) == ("9 C", "weather")


def test_an_observation_of_a_user_who_was_asked_nothing_stays_the_users() -> None:
    turns = [{"role": "user", "content": "OBSERVATION: it rains."}, {"role": "assistant", "content": "It does."}]
    assert sample_of(row("Hello.", *turns)).messages[2].role == "user"


@pytest.mark.parametrize(
    ("text", "tools", "reason"),
    [
        (XML, [], "unknown_tool"),
        (XML, [PLAN], "unknown_tool"),
        (INVOKE, [], "unknown_tool"),
        ("<function=weather>\n<parameter=city>Rome\n</function>", [FUNCTION], "call_not_json"),
        ("<function=weather>Rome</function>", [FUNCTION], "call_not_json"),
        ("<function=weather", [FUNCTION], "call_not_json"),
        (f"<tool_call>{XML} and more</tool_call>", [FUNCTION], "call_not_json"),
        ("<tool_call>weather\n<arg_key>city</arg_key></tool_call>", [FUNCTION], "call_not_json"),
        (f"[TOOL_CALLS][{CALL}", [FUNCTION], "call_in_text"),
        (f"<|tool_call|>{CALL}", [FUNCTION], "call_not_json"),
        (CALL, [PLAN], "call_in_text"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused(text: str, tools: list[JsonObject], reason: str) -> None:
    assert rejection(sample_of, row(text, tools=tools)).reason == reason


@pytest.mark.parametrize("text", ['{"temperature": 21}', "[1] a note (see below)", "f(x) = g(x)", "```\nls\n```"])
def test_what_only_looks_like_a_call_stays_words(text: str) -> None:
    assert sample_of(row(text)).messages[1] == Message(role="assistant", content=text)


def test_calls_in_the_text_beside_calls_in_fields_are_refused() -> None:
    both = {"role": "assistant", "content": XML, "tool_calls": [json.loads(CALL)]}
    assert rejection(sample_of, {"messages": [ASK, both], "tools": [FUNCTION]}).reason == "call_in_text"
