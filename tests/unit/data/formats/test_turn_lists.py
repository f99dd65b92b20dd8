"""Rows that keep their turns apart: a request, and a reply that is preferred to another."""

import json
from typing import Any

import pytest
from raw_rows import FUNCTION, rejection

from orchestrator.core.records import JsonObject, Sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.detect import detect_format

ASK: JsonObject = {"role": "user", "content": "Weather in Rome?"}
GOOD: JsonObject = {"role": "assistant", "content": "Sunny."}
BAD: JsonObject = {"role": "assistant", "content": "No idea."}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}]}


def sample_of(row: JsonObject) -> Sample:
    return sample_from_row(row, detect_format(row).format, source="f:1", keep_reasoning=False).sample


def said(row: JsonObject) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in sample_of(row).messages]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": json.dumps([ASK]), "chosen": json.dumps([GOOD]), "rejected": json.dumps([BAD])},
        {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"messages": [ASK], "chosen": GOOD, "rejected": BAD},
        {"messages": [ASK], "chosen": "Sunny.", "rejected": "No idea."},
        {"messages": [ASK, GOOD], "chosen": [ASK, GOOD], "rejected": [ASK, BAD], "prompt": "Weather in Rome?"},
        {"messages": [ASK, GOOD], "conversations": []},
        {"prompt": "Weather in Rome?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": "Weather in Rome?", "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "Weather in Rome?", "chosen": "Sunny.", "rejected": "No idea."},
        {"question": "Weather in Rome?", "chosen": "Sunny.", "rejected": "No idea."},
        {
            "conversations": [{"from": "human", "value": "Weather in Rome?"}],
            "chosen": {"from": "gpt", "value": "Sunny."},
            "rejected": {"from": "gpt", "value": "No idea."},
        },
    ],
)
def test_the_preferred_reply_is_the_one_that_is_learned(row: JsonObject) -> None:
    assert said(row) == [("user", "Weather in Rome?"), ("assistant", "Sunny.")]


def test_a_preferred_reply_may_call_and_go_on() -> None:
    turns = [CALL, {"role": "tool", "content": "9 C"}, GOOD]
    sample = sample_of({"prompt": [ASK], "chosen": turns, "rejected": [BAD], "tools": [FUNCTION]})
    assert [message.role for message in sample.messages] == ["user", "assistant", "tool", "assistant"]
    assert sample.messages[1].tool_calls[0].function.name == "weather"


@pytest.mark.parametrize("chosen", [[], 1, [1]])
def test_a_preferred_reply_that_is_none_is_refused(chosen: Any) -> None:
    found = rejection(sample_of, {"messages": [ASK], "chosen": chosen, "rejected": [BAD]})
    assert found.reason == "malformed_field"
    assert "`chosen`" in found.detail


def test_a_reply_to_be_avoided_is_not_learned() -> None:
    said_badly: list[JsonObject] = [
        {"prompt": "Hi.", "completion": "Go away.", "label": False},
        {"prompt": [ASK], "completion": [BAD], "label": False},
        {"messages": [ASK, BAD], "label": False},
        {"messages": [ASK, BAD], "kto_tag": False},
        {"messages": [ASK, BAD], "label": "False"},
    ]
    assert {rejection(sample_of, row).reason for row in said_badly} == {"to_avoid"}
    assert said({"prompt": "Hi.", "completion": "Hello.", "label": True}) == [("user", "Hi."), ("assistant", "Hello.")]
