from functools import partial

import pytest
from raw_rows import FUNCTION, TOOL, call, rejection

from orchestrator.core.records import JsonObject, Message, ToolSpec
from orchestrator.data.formats.responses import read_responses

rejected = partial(rejection, read_responses)
ASK: JsonObject = {"role": "user", "content": [{"type": "input_text", "text": "Weather in Rome?"}]}
THOUGHT = {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm."}], "content": None}
CALLS = [
    {"type": "function_call", "id": "fc", "call_id": name, "name": "weather", "arguments": f'{{"city": "{city}"}}'}
    for name, city in (("c1", "Rome"), ("c2", "Oslo"))
]
OUTPUTS = [
    {"type": "function_call_output", "call_id": "c1", "output": "9 C"},
    {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "3 C"}]},
]
SAID: JsonObject = {"type": "message", "id": "m", "status": "completed", "role": "assistant"}
REPLY = {**SAID, "content": [{"type": "output_text", "text": "Mild.", "annotations": []}]}
WHOLE = [
    Message(role="system", content="Be kind."),
    Message(role="user", content="Weather in Rome?"),
    Message(
        role="assistant",
        content="I look.",
        reasoning_content="Hm.",
        tool_calls=(call("Rome", "c1"), call("Oslo", "c2")),
    ),
    Message(role="tool", content="9 C", tool_call_id="c1"),
    Message(role="tool", content="3 C", tool_call_id="c2"),
    Message(role="assistant", content="Mild."),
]
ITEMS = [ASK, THOUGHT, {**SAID, "content": "I look."}, *CALLS, *OUTPUTS]
TOOLS = [{"type": "function", "strict": True, **FUNCTION}]


@pytest.mark.parametrize(
    "row",
    [
        {"input": ITEMS, "output": [REPLY], "instructions": "Be kind."},
        {"items": [*ITEMS, REPLY], "instructions": "Be kind."},
        {"messages": [{"role": "developer", "content": "Be kind."}, *ITEMS, REPLY]},
        {"input": [*ITEMS, REPLY], "system": "Be kind.", "previous_response_id": None},
    ],
)
def test_items_are_turns_and_those_of_one_reply_are_one(row: JsonObject) -> None:
    draft = read_responses({**row, "tools": TOOLS})
    assert draft.messages == WHOLE
    assert draft.tools == (ToolSpec(function=TOOL.function.model_copy(update={"strict": True})),)


def test_an_input_that_is_a_text_is_the_users() -> None:
    draft = read_responses({"input": "Weather?", "output": [THOUGHT, REPLY]})
    assert [message.content for message in draft.messages] == ["Weather?", "Mild."]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"type": "web_search_call", "id": "w", "status": "completed"}, "web_search_call"),
        ({"type": "mcp_call", "name": "f"}, "mcp_call"),
        ({"type": "item_reference", "id": "x"}, "item_reference"),
    ],
)
def test_what_the_api_did_itself_is_refused(item: JsonObject, said: str) -> None:
    found = rejected({"input": [ASK, item, REPLY]})
    assert found.reason == "unsupported_content"
    assert said in found.detail


def test_a_response_to_another_response_is_refused() -> None:
    found = rejected({"input": [ASK], "output": [REPLY], "previous_response_id": "resp_1"})
    assert "previous_response_id" in found.detail
