"""A request and its response, as each API and each keeper of logs writes them."""

import json
from typing import Any

import pytest
from raw_rows import FUNCTION, TOOL, call, rejection

from orchestrator.core.records import JsonObject, Message, Sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.detect import detect_format

ASK: JsonObject = {"role": "user", "content": "Weather in Rome?"}
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
CALLED: JsonObject = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [OPENAI_CALL]}
REQUEST: JsonObject = {"model": "m", "messages": [ASK], "tools": [{"type": "function", "function": FUNCTION}]}
COMPLETION: JsonObject = {
    "id": "x",
    "choices": [{"index": 0, "message": CALLED, "finish_reason": "tool_calls"}],
    "usage": {},
}
SYSTEM: JsonObject = {"role": "system", "content": "Be kind."}
USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Rome"}}
ASKED: JsonObject = {**REQUEST, "messages": [SYSTEM, ASK]}
DESCRIBED = {"name": FUNCTION["name"], "description": FUNCTION["description"]}
ANTHROPIC: JsonObject = {
    "request": {
        "system": [{"type": "text", "text": "Be kind."}],
        "messages": [ASK],
        "tools": [{**DESCRIBED, "input_schema": FUNCTION["parameters"]}],
    },
    "response": {"id": "m", "type": "message", "role": "assistant", "content": [USE], "stop_reason": "tool_use"},
}
BEDROCK: JsonObject = {
    "schemaType": "ModelInvocationLog",
    "operation": "Converse",
    "input": {
        "inputContentType": "application/json",
        "inputBodyJson": {
            "system": [{"text": "Be kind."}],
            "messages": [{"role": "user", "content": [{"text": "Weather in Rome?"}]}],
            "toolConfig": {
                "tools": [
                    {"toolSpec": {**FUNCTION, "parameters": None, "inputSchema": {"json": FUNCTION["parameters"]}}}
                ]
            },
        },
    },
    "output": {
        "outputBodyJson": {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"city": "Rome"}}}],
                }
            },
            "stopReason": "tool_use",
        }
    },
}
VERTEX = {
    "full_request": {
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "contents": [{"role": "user", "parts": [{"text": "Weather in Rome?"}]}],
        "tools": [{"functionDeclarations": [FUNCTION]}],
    },
    "full_response": {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [{"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}}}],
                },
                "finishReason": "STOP",
            }
        ]
    },
}
RESPONSES = {
    "request": {"input": "Weather in Rome?", "instructions": "Be kind.", "tools": [{"type": "function", **FUNCTION}]},
    "response": {
        "object": "response",
        "status": "completed",
        "output": [{"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'}],
    },
}


def lc(name: str, **fields: Any) -> JsonObject:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": fields}


LC_CALL = {"name": "weather", "args": {"city": "Rome"}, "id": "c1", "type": "tool_call"}
LC_ASKED = [lc("SystemMessage", content="Be kind."), lc("HumanMessage", content="Weather in Rome?", type="human")]
LC_REPLY = lc("AIMessage", content="", tool_calls=[LC_CALL], type="ai")
LANGSMITH: JsonObject = {
    "run_type": "llm",
    "inputs": {"messages": [LC_ASKED]},
    "outputs": {"generations": [[{"text": "", "type": "ChatGeneration", "message": LC_REPLY}]], "llm_output": None},
    "extra": {"invocation_params": {"model": "m", "tools": [{"type": "function", "function": FUNCTION}]}},
}


def sample_of(row: JsonObject) -> Sample:
    detected = detect_format(row)
    assert detected.format == "api_log"
    return sample_from_row(row, detected.format, source="f:1", keep_reasoning=False).sample


@pytest.mark.parametrize(
    "row",
    [
        {"request": ASKED, "response": COMPLETION},
        {"request": json.dumps(ASKED), "response": json.dumps(COMPLETION)},
        {
            "custom_id": "a",
            "request": {"method": "POST", "body": ASKED},
            "response": {"status_code": 200, "body": COMPLETION},
        },
        {**ASKED, **COMPLETION},
        {**ASKED, "response": COMPLETION},
        {"input": ASKED, "preferred_output": [CALLED], "non_preferred_output": [ASK]},
        {"input": [SYSTEM, ASK], "output": CALLED, "metadata": {"tools": [FUNCTION], "level": "DEFAULT"}},
        {"inputs": ASKED, "outputs": {"messages": [SYSTEM, ASK, CALLED]}},
        {**LANGSMITH},
        {"custom_id": "a", "params": ANTHROPIC["request"], "result": {"type": "ok", "message": ANTHROPIC["response"]}},
        {"inputs": ASKED, "output": COMPLETION},
        {**ASKED, "messages": [SYSTEM, ASK], "response": CALLED},
        {**ASKED, "messages": None, "prompt": [SYSTEM, ASK], "completion": CALLED},
        {**LANGSMITH, "outputs": {"messages": [*LC_ASKED, LC_REPLY]}},
        ANTHROPIC,
        BEDROCK,
        VERTEX,
        RESPONSES,
    ],
)
def test_the_reply_in_a_response_is_the_last_turn_of_its_request(row: JsonObject) -> None:
    sample = sample_of(row)
    assert sample.messages == (
        Message(role="system", content="Be kind."),
        Message(role="user", content="Weather in Rome?"),
        Message(role="assistant", tool_calls=(call("Rome", "c1"),)),
    )
    assert sample.tools == (TOOL,)


@pytest.mark.parametrize(
    ("response", "reason", "said"),
    [
        ({"choices": [{"message": CALLED}, {"message": CALLED}]}, "unsupported_content", "`choices` holds 2 replies"),
        ({"choices": [{"message": CALLED, "finish_reason": "length"}]}, "no_answer", "cut off"),
        ({"type": "message", "content": [USE], "stop_reason": "max_tokens"}, "no_answer", "cut off"),
        ({"error": {"message": "rate limit"}}, "no_answer", "no reply of an API"),
        ({"choices": []}, "no_answer", "no reply of an API"),
    ],
)
def test_a_response_without_one_whole_reply_is_refused(response: JsonObject, reason: str, said: str) -> None:
    found = rejection(sample_of, {"request": REQUEST, "response": response})
    assert found.reason == reason
    assert said in found.detail


def test_a_reply_may_be_a_text_beside_the_turns() -> None:
    for row in ({"messages": [ASK], "response": "Sunny."}, {"prompt": [ASK], "completion": "Sunny."}):
        assert sample_of(row).messages[1] == Message(role="assistant", content="Sunny.")


@pytest.mark.parametrize("names", [("question", "answer"), ("input", "output")])
def test_a_run_of_langsmith_may_be_a_question_and_its_answer(names: tuple[str, str]) -> None:
    row = {"run_type": "chain", "inputs": {names[0]: "Weather?"}, "outputs": {names[1]: "Sunny."}}
    assert [message.content for message in sample_of(row).messages] == ["Weather?", "Sunny."]


def test_a_prompt_and_its_completion_are_no_log() -> None:
    row = {"prompt": [ASK], "completion": [{"role": "assistant", "content": "Sunny."}]}
    assert detect_format(row).format == "instruction"


def test_a_conversation_that_has_its_reply_is_no_log() -> None:
    row = {**REQUEST, "messages": [ASK, CALLED], "response": COMPLETION}
    assert detect_format(row).format == "messages"
