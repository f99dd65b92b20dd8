import json
from typing import Any

import pytest

from orchestrator.data.formats.instruction import FORMAT, read_instruction
from orchestrator.data.rejection import Reason, RowRejected

TOOLS: list[dict[str, Any]] = [{"name": "get.weather", "parameters": {"city": {"type": "str"}}}]
CALL = {"name": "get.weather", "arguments": {"city": "Oslo"}}


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"instruction": "Sum.", "input": "", "output": "3"}, "Sum."),
        ({"instruction": "Sum.", "input": "1 2", "output": "3"}, "Sum.\n\n1 2"),
        ({"instruction": "Sum.", "context": "1 2", "response": "3"}, "Sum.\n\n1 2"),
        ({"input": "1 + 2", "output": "3"}, "1 + 2"),
        ({"prompt": "1 + 2", "completion": "3"}, "1 + 2"),
        ({"prompt": "1 + 2", "response": "3"}, "1 + 2"),
        ({"question": "1 + 2", "answer": "3"}, "1 + 2"),
        ({"query": "1 + 2", "response": "3"}, "1 + 2"),
    ],
)
def test_names_of_the_fields(row: dict[str, Any], asked: str) -> None:
    draft = read_instruction(row)
    assert [(message.role, message.content) for message in draft.messages] == [("user", asked), ("assistant", "3")]
    assert row.keys() <= FORMAT.fields


def test_history_comes_first() -> None:
    draft = read_instruction({"instruction": "c", "output": "d", "history": [["a", "b"]]})
    assert [message.content for message in draft.messages] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("output", [CALL, json.dumps(CALL), [CALL], json.dumps([CALL])])
def test_a_call_as_json_where_tools_are_offered(output: Any) -> None:
    draft = read_instruction({"instruction": "Weather?", "tools": json.dumps(TOOLS), "output": output})
    (call,) = draft.messages[1].tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})
    assert draft.messages[1].content == ""
    assert draft.original_names == {"get_weather": "get.weather"}


@pytest.mark.parametrize("output", ['{"city": "Oslo"}', "Sunny.", '[1] "name" and "arguments" differ: {'])
def test_other_text_stays_text_where_tools_are_offered(output: str) -> None:
    draft = read_instruction({"instruction": "Weather?", "tools": TOOLS, "output": output})
    assert draft.messages[1].content == output
    assert len(draft.tools) == 1


def test_prompts_and_completions_as_messages() -> None:
    row = {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
    draft = read_instruction(row)
    assert [(message.role, message.content) for message in draft.messages] == [("user", "a"), ("assistant", "b")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"output": "x"}, Reason.NO_USER_TURN),
        ({"instruction": "", "output": "x"}, Reason.NO_USER_TURN),
        ({"instruction": "a", "output": ""}, Reason.NO_ANSWER),
        ({"instruction": "a"}, Reason.NO_ANSWER),
        ({"instruction": "a", "prompt": "b", "output": "x"}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "input": "b", "context": "c", "output": "x"}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "output": "x", "response": "y"}, Reason.MALFORMED_FIELD),
        ({"instruction": ["a"], "output": "x"}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "output": 5}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "output": {"b": 1}, "tools": TOOLS}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "output": '{"name": "x", "arguments": {', "tools": TOOLS}, Reason.CALL_NOT_JSON),
        ({"instruction": "a", "output": {"name": "x", "arguments": {}}, "tools": TOOLS}, Reason.UNKNOWN_TOOL),
        ({"instruction": "a", "output": "<tool_call>{}</tool_call>", "tools": TOOLS}, Reason.CALL_IN_TEXT),
        ({"instruction": "a", "output": json.dumps(CALL)}, Reason.CALL_IN_TEXT),
        ({"instruction": "a", "output": "x", "history": [["b"]]}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "output": "x", "history": [["b", 5]]}, Reason.MALFORMED_FIELD),
        ({"instruction": "a", "output": "x", "tools": "{"}, Reason.TOOLS_NOT_JSON),
    ],
)
def test_rejections(row: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_instruction(row)
    assert rejected.value.reason is reason


@pytest.mark.parametrize("reply", ["Sure. [get_weather(city='Oslo')]", "get_weather(city='Oslo')"])
def test_a_call_written_like_python_that_is_no_whole_list_is_not_an_answer(reply: str) -> None:
    tools = [{"name": "get_weather", "parameters": {"city": {"type": "str"}}}]
    with pytest.raises(RowRejected, match='calls "get_weather"') as rejected:
        read_instruction({"instruction": "Weather?", "output": reply, "tools": tools})
    assert rejected.value.reason is Reason.CALL_IN_TEXT
