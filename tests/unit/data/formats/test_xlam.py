import json
from typing import Any

import pytest

from orchestrator.data.formats.xlam import FORMAT, read_xlam
from orchestrator.data.rejection import Reason, RowRejected

TOOLS: list[dict[str, Any]] = [
    {
        "name": "live_giveaways",
        "description": "Live giveaways by type.",
        "parameters": {
            "type": {"description": "The type of giveaway.", "type": "str", "default": "game"},
            "page": {"description": "Page number.", "type": "int, optional"},
            "ids": {"description": "Which ones.", "type": "List[int]"},
        },
    },
    {"name": "math.sqrt", "description": "", "parameters": {"x": {"type": "float", "description": ""}}},
]


def row(**changes: Any) -> dict[str, Any]:
    answers = [
        {"name": "live_giveaways", "arguments": {"type": "beta", "ids": [1, 2]}},
        {"name": "math.sqrt", "arguments": {"x": "16"}},
    ]
    return {"id": 7, "query": "Beta giveaways?", "tools": TOOLS, "answers": answers} | changes


@pytest.mark.parametrize("as_text", [False, True])
def test_tools_and_answers_as_lists_or_as_json_text(*, as_text: bool) -> None:
    given = row()
    if as_text:
        given |= {"tools": json.dumps(given["tools"]), "answers": json.dumps(given["answers"])}
    draft = read_xlam(given)
    assert [message.role for message in draft.messages] == ["user", "assistant"]
    assert draft.messages[0].content == "Beta giveaways?"
    calls = [(call.function.name, call.function.arguments) for call in draft.messages[1].tool_calls]
    # The number written as text stays text: the schema check is to refuse it.
    assert calls == [("live_giveaways", {"type": "beta", "ids": [1, 2]}), ("math_sqrt", {"x": "16"})]
    assert draft.original_names == {"math_sqrt": "math.sqrt"}
    assert draft.tools[0].function.parameters == {
        "type": "object",
        "properties": {
            "type": {"description": "The type of giveaway.", "type": "string", "default": "game"},
            "page": {"description": "Page number.", "type": "integer"},
            "ids": {"description": "Which ones.", "type": "array", "items": {"type": "integer"}},
        },
        "required": ["ids"],
    }
    assert given.keys() <= FORMAT.fields


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answers": []}, Reason.NO_ANSWER),
        ({"answers": "[]"}, Reason.NO_ANSWER),
        ({"answers": ""}, Reason.NO_ANSWER),
        ({"answers": None}, Reason.NO_ANSWER),
        ({"answers": "I cannot do that."}, Reason.CALL_NOT_JSON),
        ({"answers": '[{"name": "math.sqrt", "arguments": {"x": NaN}}]'}, Reason.CALL_NOT_JSON),
        ({"answers": 4}, Reason.MALFORMED_FIELD),
        ({"answers": [{"name": "math.sqrt", "arguments": {"y": 4}}]}, Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA),
        ({"answers": [{"name": "other", "arguments": {}}]}, Reason.UNKNOWN_TOOL),
        ({"answers": [{"name": "math.sqrt", "arguments": [1]}]}, Reason.ARGUMENTS_NOT_OBJECT),
        ({"answers": ["math.sqrt(1)"]}, Reason.MALFORMED_FIELD),
        ({"tools": "[{]"}, Reason.TOOLS_NOT_JSON),
        ({"tools": []}, Reason.UNKNOWN_TOOL),
        ({"tools": [{"name": "math.sqrt", "parameters": {"x": {"type": "quaternion"}}}]}, Reason.INVALID_TOOL_SCHEMA),
        ({"query": None}, Reason.MALFORMED_FIELD),
        ({"query": ["a"]}, Reason.MALFORMED_FIELD),
    ],
)
def test_rejections(changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_xlam(row(**changes))
    assert rejected.value.reason is reason


def test_one_answer_without_a_list() -> None:
    draft = read_xlam(row(answers='{"name": "math.sqrt", "arguments": {"x": 4}}'))
    assert [call.function.arguments for call in draft.messages[1].tool_calls] == [{"x": 4}]
