import json
from typing import Any

import pytest

from orchestrator.data.formats.tool_pairs import FORMAT, read_tool_pairs
from orchestrator.data.rejection import Reason, RowRejected

TOOLS: list[dict[str, Any]] = [
    {"name": "get weather", "parameters": {"city": {"type": "str"}}},
    {"name": "now"},
]
PAIR = {"tool": "get weather", "arguments": {"city": "Oslo"}}
ASKED = {"input": "Weather in Oslo?", "tools": TOOLS}


@pytest.mark.parametrize(
    "reply",
    [
        PAIR,
        {"output": PAIR},
        {"output": json.dumps(PAIR)},
        {"response": [PAIR]},
        {"completion": json.dumps([PAIR])},
        {"tool": "get weather", "arguments": '{"city": "Oslo"}'},
    ],
)
def test_places_of_the_pair(reply: dict[str, Any]) -> None:
    draft = read_tool_pairs(ASKED | reply)
    assert [message.role for message in draft.messages] == ["user", "assistant"]
    assert draft.messages[0].content == "Weather in Oslo?"
    (call,) = draft.messages[1].tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})
    assert draft.original_names == {"get_weather": "get weather"}
    assert draft.tools[0].function.arguments_schema["required"] == ["city"]
    assert (ASKED | reply).keys() <= FORMAT.fields


def test_several_pairs() -> None:
    draft = read_tool_pairs(ASKED | {"output": [PAIR, {"tool": "now", "arguments": {}}]})
    assert [call.function.name for call in draft.messages[1].tool_calls] == ["get_weather", "now"]


@pytest.mark.parametrize(
    "reply",
    [
        {"output": "I cannot do that."},
        {"tool": None, "output": "I cannot do that."},
        {"output": {"tool": None, "response": "I cannot do that."}},
        {"output": '{"tool": null, "answer": "I cannot do that."}'},
    ],
)
def test_words_are_an_answer_and_need_no_tools(reply: dict[str, Any]) -> None:
    draft = read_tool_pairs({"query": "Sing.", **reply})
    assert draft.messages[1].content == "I cannot do that."
    assert draft.messages[1].tool_calls == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input": "a", **PAIR}, Reason.UNKNOWN_TOOL),
        (ASKED | {"tool": "fly", "arguments": {}}, Reason.UNKNOWN_TOOL),
        (ASKED | {"tool": "get_weather", "arguments": {"city": "Oslo"}}, Reason.UNKNOWN_TOOL),
        (ASKED | {"tool": "now", "arguments": [1]}, Reason.ARGUMENTS_NOT_OBJECT),
        (ASKED | {"tool": "now", "arguments": "x"}, Reason.ARGUMENTS_NOT_JSON),
        (ASKED | {"tool": 5, "arguments": {}}, Reason.MALFORMED_FIELD),
        (ASKED | PAIR | {"output": "x"}, Reason.MALFORMED_FIELD),
        (ASKED | {"output": '{"tool": "now", '}, Reason.CALL_NOT_JSON),
        (ASKED | {"output": {"name": "now"}}, Reason.MALFORMED_FIELD),
        (ASKED | {"output": [PAIR, "now"]}, Reason.MALFORMED_FIELD),
        (ASKED | {"output": 5}, Reason.MALFORMED_FIELD),
        (ASKED | {"tool": None, "arguments": {}}, Reason.NO_ANSWER),
        (ASKED | {"output": {"tool": None}}, Reason.NO_ANSWER),
        (ASKED, Reason.NO_ANSWER),
        ({"tools": TOOLS, **PAIR}, Reason.NO_USER_TURN),
    ],
)
def test_rejections(row: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_tool_pairs(row)
    assert rejected.value.reason is reason


def test_a_missing_list_of_tools_says_what_to_do() -> None:
    with pytest.raises(RowRejected, match="give the row a `tools` list"):
        read_tool_pairs({"input": "a", **PAIR})


@pytest.mark.parametrize("reply", ["Sure. [get_weather(city='Oslo')]", "get_weather(city='Oslo')"])
def test_a_call_written_like_python_is_not_an_answer(reply: str) -> None:
    tools = [{"name": "get_weather", "parameters": {"city": {"type": "str"}}}]
    with pytest.raises(RowRejected, match='calls "get_weather"') as rejected:
        read_tool_pairs({"input": "Weather?", "output": reply, "tools": tools})
    assert rejected.value.reason is Reason.CALL_IN_TEXT
