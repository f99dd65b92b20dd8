"""Rows of When2Call as cases."""

import json

import pytest

from evals.cases.rows import cases_from_when2call_row
from orchestrator.core.records import FunctionCall, JsonObject, SampleKind, ToolCall
from orchestrator.data.rejection import RowRejected

TOOL = {
    "name": "weather",
    "description": "The weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ROW: JsonObject = {
    "uuid": "u-1",
    "question": "What is the weather in Rome?",
    "tools": [json.dumps(TOOL)],
    "answers": {
        "direct": "It is sunny.",
        "tool_call": '{"name": "weather", "arguments": {"city": "Rome"}}',
        "request_for_info": "Which city do you mean?",
        "cannot_answer": "I am sorry, but I cannot do that with my tools.",
    },
    "correct_answer": "tool_call",
}


@pytest.mark.parametrize(
    ("right", "kind", "tags"),
    [
        ("tool_call", "tool_call", ()),
        ("request_for_info", "clarification", ("missing_argument",)),
        ("cannot_answer", "answer", ("no_fitting_tool",)),
        ("direct", "answer", ()),
    ],
)
def test_the_right_answer_tells_the_kind(right: str, kind: SampleKind, tags: tuple[str, ...]) -> None:
    (case,) = cases_from_when2call_row({**ROW, "correct_answer": right}, source="f:1")
    assert (case.id, case.kind, case.tags) == ("u-1", kind, tags)
    assert not case.kind_inferred
    assert [message.content for message in case.messages] == ["What is the weather in Rome?"]
    assert [tool.function.name for tool in case.tools] == ["weather"]
    calls = (ToolCall(function=FunctionCall(name="weather", arguments={"city": "Rome"})),)
    assert case.expected_calls == (calls if right == "tool_call" else ())


@pytest.mark.parametrize("written", ["<TOOLCALL>[{}]</TOOLCALL>", " <TOOLCALL>\n{}</TOOLCALL>\n"])
def test_a_call_may_be_marked_as_in_the_training_rows(written: str) -> None:
    answers = {**ROW["answers"], "tool_call": written.replace("{}", ROW["answers"]["tool_call"])}
    cases = cases_from_when2call_row({**ROW, "answers": answers}, source="f:1")
    assert cases == cases_from_when2call_row(ROW, source="f:1")
    unclosed = {**answers, "tool_call": f"<TOOLCALL>{ROW['answers']['tool_call']}"}
    with pytest.raises(RowRejected, match="the call is not JSON"):
        cases_from_when2call_row({**ROW, "answers": unclosed}, source="f:1")


def test_without_any_tool_the_reply_must_still_say_that_it_cannot() -> None:
    (case,) = cases_from_when2call_row({**ROW, "tools": [], "correct_answer": "cannot_answer"}, source="f:1")
    assert (case.tools, case.kind, case.tags) == ((), "answer", ("no_fitting_tool",))


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"correct_answer": None}, "not all of `question`, `answers` and `correct_answer`"),
        ({"correct_answer": "maybe"}, "not one of direct, tool_call"),
        ({"answers": {"direct": "Yes."}}, "no text for 'tool_call'"),
    ],
)
def test_other_rows_are_refused(change: JsonObject, detail: str) -> None:
    with pytest.raises(RowRejected) as refusal:
        cases_from_when2call_row({**ROW, **change}, source="f:1")
    assert detail in refusal.value.detail
