"""Arguments with keys without quotes and texts between tokens: types are the notation's own."""

from typing import Any

import pytest

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.parse import parse_reply


def read(arguments: str) -> tuple[list[Any], list[str]]:
    """The arguments of the calls, and the reasons of the problems."""
    reply = parse_reply(f"<|tool_call>call:f{arguments}<tool_call|>", format="gemma4")
    return [call.function.arguments for call in reply.calls], [problem.reason for problem in reply.problems]


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("{}", {}),
        ("{ }", {}),
        ('{a:<|"|>3<|"|>}', {"a": "3"}),
        ("{a:3,b:-2.5,c:1e-05}", {"a": 3, "b": -2.5, "c": 1e-05}),
        ("{a:true,b:false,c:null,d:None}", {"a": True, "b": False, "c": None, "d": None}),
        ('{a:{b:[{c:<|"|>x<|"|>},[]]}}', {"a": {"b": [{"c": "x"}, []]}}),
        ('{a:<|"|>} , <tool_call|> "it\'s"\n<|"|>}', {"a": '} , <tool_call|> "it\'s"\n'}),
        ('{a:{<|"|>b c:<|"|>:1}}', {"a": {"b c:": 1}}),
        ("{ a : 1 ,\n b_2 : [ 1 , 2 ] } ", {"a": 1, "b_2": [1, 2]}),
        ('{a:<|"|><|"|>}', {"a": ""}),
    ],
)
def test_arguments_are_read(arguments: str, value: Any) -> None:
    assert read(arguments) == ([value], [])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", "not_a_call_object"),
        ("(a:1)", "not_a_call_object"),
        ("{a:1", "not_json"),
        ("{a:1}}", "text_inside_tag"),
        ("{a}", "not_json"),
        ("{a:}", "not_json"),
        ("{a:1,}", "not_json"),
        ("{,a:1}", "not_json"),
        ("{a:1 b:2}", "not_json"),
        ("{a:[1,]}", "not_json"),
        ("{a:celsius}", "not_json"),
        ("{a:NaN}", "not_json"),
        ("{a:True}", "not_json"),
        ("{a:01}", "not_json"),
        ('{a:"x"}', "not_json"),
        ('{a:<|"|>x}', "not_json"),
        ("{a:1,a:2}", "not_strict_json"),
        ('{a:<|"|>\ud800<|"|>}', "not_strict_json"),
        ("{a:" + "[" * 5000 + "]" * 5000 + "}", "not_strict_json"),
    ],
)
def test_arguments_that_are_malformed_are_one_problem(arguments: str, reason: str) -> None:
    assert read(arguments) == ([], [reason])


def test_thoughts_stand_in_a_channel() -> None:
    reply = parse_reply(
        "<|channel>thought\nplan\n<channel|>Sure.<|tool_call>call:f{}<tool_call|><|tool_response>", format="gemma4"
    )
    assert (reply.thinking, reply.prose, len(reply.calls)) == ("plan", "Sure.", 1)


def test_functiongemma_differs_in_its_tokens() -> None:
    text = "<start_function_call>call:f{city:<escape>Oslo, {NO}<escape>,days:3}<end_function_call>"
    calls = parse_reply(f"{text}<start_function_response>", format="functiongemma").calls
    assert [call.function.arguments for call in calls] == [{"city": "Oslo, {NO}", "days": 3}]
    loop = "{% for c in m.tool_calls %}"
    assert detect_reply_format(loop + "{{ '<start_function_call>call:' + c.function.name + '{' }}") == "functiongemma"
