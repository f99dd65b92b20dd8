"""Calls in other notations than the one that replies are read in: named, and never read."""

import pytest
from builders import make_tool

from evals.judge.foreign import foreign_notation
from orchestrator.chat.parse import parse_reply

TOOLS = (make_tool("find_ferry", port={"type": "string"}), make_tool("ping"))
JSON_CALL = '{"name": "find_ferry", "arguments": {"port": "Kiel"}}'


def notation(text: str, reply_format: str = "hermes") -> str | None:
    return foreign_notation(text, parse_reply(text, format=reply_format, tools=TOOLS), reply_format, TOOLS)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n<function=find_ferry>\n<parameter=port>\nKiel\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>find_ferry\n<arg_key>port</arg_key>\n<arg_value>Kiel</arg_value>\n</tool_call>",
        "<tool_call>ping\n</tool_call>",
        '<function_calls><invoke name="find_ferry"><parameter name="port">Kiel</parameter></invoke></function_calls>',
        f"[TOOL_CALLS] [{JSON_CALL}]",
        f"<functioncall> {JSON_CALL}",
        f"<|tool_call|>[{JSON_CALL}]<|/tool_call|>",
        JSON_CALL,
        f"Sure:\n```json\n{JSON_CALL}\n```",
        'I will ask. {"tool": "find_ferry", "tool_input": {"port": "Kiel"}}',
        '[find_ferry(port="Kiel")]',
        'I call `find_ferry(port="Kiel")`.',
        "I call `ping()`.",
        "<find_ferry><port>Kiel</port></find_ferry>",
        'Thought: find it.\nAction: find_ferry\nAction Input: {"port": "Kiel"}',
    ],
)
def test_a_call_in_another_notation_is_named(text: str) -> None:
    assert notation(text)


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{JSON_CALL}\n</tool_call>",
        '<tool_call>\n{"name": "ping"}\n</tool_call>',
        '<tool_call>\n{"name": "ping", "arguments": null}\n</tool_call>',
        f"<tool_call>\n{JSON_CALL}",
        "The next ferry leaves at nine.",
        "I can look it up with find_ferry (a tool for ferries).",
        "def area(base):\n    return base * 2",
        'The record is {"name": "Ann", "age": 3}.',
        "",
    ],
)
def test_words_and_calls_of_its_own_are_no_other_notation(text: str) -> None:
    assert notation(text) is None


def test_the_format_that_would_read_it_is_named_by_its_name() -> None:
    assert notation(f"[TOOL_CALLS] [{JSON_CALL}]") == "mistral"
    assert notation(f"<tool_call>\n{JSON_CALL}\n</tool_call>", "mistral") == "hermes"
    assert notation(f"<tool_call>\n{JSON_CALL}\n</tool_call>", "pythonic") == "hermes"
