from functools import partial
from typing import Any

import pytest
from raw_rows import FUNCTION, TOOL, call, rejection

from orchestrator.core.records import JsonObject, Message
from orchestrator.data.formats.gemini import read_gemini

rejected = partial(rejection, read_gemini)
SCHEMA = {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}
TOOLS = [{"functionDeclarations": [{**FUNCTION, "parameters": SCHEMA}]}]


def content(role: str | None, *parts: Any) -> JsonObject:
    return {"role": role, "parts": list(parts)}


ASK = content("user", {"text": "Weather in Rome?"})
REPLY = content("model", {"text": "Sunny."})


def test_a_conversation_with_a_call_and_what_it_gave() -> None:
    row = {
        "systemInstruction": {"role": "system", "parts": [{"text": "Be kind."}]},
        "contents": [
            content(None, {"text": "Weather in Rome?"}),
            content(
                "model",
                {"thought": True, "text": "Hm."},
                {"text": "One moment."},
                {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "x"},
            ),
            content("user", {"functionResponse": {"name": "weather", "response": {"sky": "blue"}}}),
            REPLY,
        ],
        "tools": TOOLS,
    }
    draft = read_gemini(row)
    assert draft.tools == (TOOL,)
    assert draft.messages == [
        Message(role="system", content="Be kind."),
        Message(role="user", content="Weather in Rome?"),
        Message(role="assistant", content="One moment.", reasoning_content="Hm.", tool_calls=(call("Rome"),)),
        Message(role="tool", content='{"sky": "blue"}', name="weather"),
        Message(role="assistant", content="Sunny."),
    ]


def test_names_in_snake_case_and_a_role_of_functions_are_read_alike() -> None:
    called = {"function_call": {"id": "c", "name": "weather", "args": {"city": "Rome"}}, "text": None}
    answered = {"function_response": {"id": "c", "name": "weather", "response": {"sky": "blue"}}}
    row = {
        "system_instruction": "Be kind.",
        "contents": [ASK, content("model", called), content("function", answered), REPLY],
        "tools": [{"function_declarations": [{**FUNCTION, "parameters": None, "parameters_json_schema": SCHEMA}]}],
    }
    draft = read_gemini(row)
    assert draft.tools == (TOOL,)
    assert draft.messages[2].tool_calls == (call("Rome", "c"),)
    assert draft.messages[3] == Message(role="tool", content='{"sky": "blue"}', name="weather", tool_call_id="c")


@pytest.mark.parametrize("args", [{}, None])
def test_a_call_without_arguments(args: Any) -> None:
    row = {"contents": [ASK, content("model", {"functionCall": {"name": "now", "args": args}})]}
    assert read_gemini(row).messages[1].tool_calls[0].function.arguments == {}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"contents": [content("user", {"inlineData": {"mimeType": "image/png"}}), REPLY]}, "unsupported_content"),
        ({"contents": [ASK, content("model", {"executableCode": {"code": "1"}})]}, "unsupported_content"),
        ({"contents": [ASK, REPLY], "tools": [{"googleSearch": {}}]}, "invalid_tool"),
        ({"contents": [{"role": "user"}]}, "malformed_field"),
        ({"contents": 3}, "malformed_field"),
    ],
)
def test_what_no_sample_can_hold_is_refused(row: JsonObject, reason: str) -> None:
    assert rejected(row).reason == reason
