import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conversation_strategies import conversations, tool_lists
from hypothesis import given
from hypothesis import strategies as st
from raw_rows import FUNCTION, PARAMETERS, TOOL, assert_decided_at_once, call, outcome, rejection

from orchestrator.core.records import JsonObject, Message, ToolSpec
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.messages import read_messages

rejected = partial(rejection, read_messages)
ASK: JsonObject = {"role": "user", "content": "Weather in Rome?"}
REPLY: JsonObject = {"role": "assistant", "content": "Sunny."}
CALL = {"name": "weather", "arguments": {"city": "Rome"}}


def called(arguments: Any, **fields: Any) -> JsonObject:
    function = {"name": "weather", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"function": function}], **fields}


def assistant(content: Any, **fields: Any) -> Message:
    """The message that an assistant's turn becomes."""
    turn = {"role": "assistant", "content": content, **fields}
    return read_messages({"messages": [ASK, turn]}).messages[1]


@pytest.mark.parametrize("tools", [[FUNCTION], [{"type": "function", "function": FUNCTION}], [json.dumps(FUNCTION)]])
@pytest.mark.parametrize("text_levels", [0, 1, 2])
@pytest.mark.parametrize("arguments", [{"city": "Rome"}, '{"city": "Rome"}'])
def test_all_spellings_of_tools_and_arguments_give_one_draft(tools: Any, text_levels: int, arguments: Any) -> None:
    for _ in range(text_levels):
        tools = json.dumps(tools)
    draft = read_messages({"messages": [ASK, called(arguments)], "tools": tools})
    assert draft.messages == [
        Message(role="user", content="Weather in Rome?"),
        Message(role="assistant", tool_calls=(call("Rome"),)),
    ]
    assert draft.tools == (TOOL,)


@pytest.mark.parametrize(
    "tool",
    [
        {**FUNCTION, "parameters": json.dumps(PARAMETERS)},
        {"name": "weather", "description": "The weather in a city", "inputSchema": PARAMETERS},
        {"name": "weather", "description": "The weather in a city", "input_schema": PARAMETERS, "parameters": None},
        {**FUNCTION, "parameters": {"type": "object", "properties": PARAMETERS["properties"]}, "required": ["city"]},
        {**FUNCTION, "parameters": {**PARAMETERS, "type": "dict"}},
        {**FUNCTION, "parameters": {"city": {"type": "str"}}},
    ],
)
def test_schemas_in_other_places_and_looser_words_are_the_same_schema(tool: JsonObject) -> None:
    assert read_messages({"messages": [ASK, REPLY], "tools": [tool]}).tools == (TOOL,)


@pytest.mark.parametrize("tools", [None, [], "", " ", "[]", "null"])
def test_no_tools_in_any_spelling(tools: Any) -> None:
    assert read_messages({"messages": [ASK, REPLY], "tools": tools}).tools == ()


def test_early_openai_rows_of_functions_are_read() -> None:
    turns = [
        ASK,
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"role": "function", "name": "weather", "content": "sun"},
        REPLY,
    ]
    draft = read_messages({"messages": turns, "functions": [FUNCTION]})
    assert draft.messages[1:3] == [
        Message(role="assistant", tool_calls=(call("Rome"),)),
        Message(role="tool", content="sun", name="weather"),
    ]
    assert draft.tools == (TOOL,)


def test_the_developer_role_is_the_system_role() -> None:
    turns = [{"role": "developer", "content": "Be brief."}, ASK, REPLY]
    assert read_messages({"messages": turns}).messages[0] == Message(role="system", content="Be brief.")


def test_turns_as_json_text_are_read() -> None:
    assert len(read_messages({"messages": json.dumps([ASK, REPLY])}).messages) == 2


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text", "text": "I "}, {"type": "text", "text": "won't."}],
        [{"type": "text", "value": "I "}, {"type": "output_text", "text": "won't."}],
        [{"type": "text", "text": "I ", "image_url": None}, {"type": "refusal", "refusal": "won't.", "text": None}],
        ["I ", "won't."],
    ],
)
def test_text_parts_are_one_text(parts: list[Any]) -> None:
    assert assistant(parts) == Message(role="assistant", content="I won't.")


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ([{"type": "reasoning", "value": "Hm."}, {"type": "text", "value": "Sunny."}], {}),
        ([{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "Sunny."}], {}),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Sunny."}], {}),
        ("Sunny.", {"reasoning_content": "Hm."}),
        ("Sunny.", {"reasoning": "Hm.", "thinking": None}),
        ("Sunny.", {"thinking": "Hm."}),
        ("<think>\nHm.\n</think>\n\nSunny.", {}),
        ("Hm.</think>Sunny.", {}),
        ("[THINK]Hm.[/THINK]Sunny.", {}),
        ("Hm.[/THINK]Sunny.", {}),
        ("<think>Hm.</think>Sunny.", {"reasoning_content": "Hm."}),
    ],
)
def test_thoughts_in_all_their_places(content: Any, fields: JsonObject) -> None:
    assert assistant(content, **fields) == Message(role="assistant", content="Sunny.", reasoning_content="Hm.")


def test_an_empty_think_block_is_no_thought() -> None:
    assert assistant("<think>\n\n</think>\n\nSunny.") == Message(role="assistant", content="Sunny.")


@pytest.mark.parametrize(
    ("content", "fields", "tag"),
    [
        ("Sunny.</think>", {"reasoning_content": "Hm."}, "</think>"),
        ("I see.\n</think>\nSunny.", {"reasoning": "Hm."}, "</think>"),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "Sunny.\n</think>"}], {}, "</think>"),
        ("<think>Hm.</think>Sunny.<think>Or not.</think>", {}, "</think>"),
        ("<think></think>Sunny.</think>", {}, "</think>"),
        ("Sunny.[/THINK]", {"reasoning_content": "Hm."}, "[/THINK]"),
        ("[THINK]Hm.[/THINK]Sunny.[/THINK]", {}, "[/THINK]"),
        ("<think>Hm.</think>Sunny.[/THINK]", {}, "[/THINK]"),
    ],
)
def test_an_end_of_thoughts_after_the_thoughts_is_refused(content: Any, fields: JsonObject, tag: str) -> None:
    found = rejected({"messages": [ASK, {"role": "assistant", "content": content, **fields}]})
    assert (found.reason, found.detail) == ("malformed_field", f"turn 2 has a {tag} in its text, after its thoughts")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "tool_call", "value": json.dumps(CALL)},
        {"type": "tool_call", "value": CALL},
        {"type": "tool_call", "value": json.dumps([CALL])},
        {"type": "tool_call", "tool_call": CALL},
        {"type": "function_call", "name": "weather", "arguments": '{"city": "Rome"}'},
        {"type": "function", "function": CALL},
        {"type": "tool_use", "name": "weather", "input": {"city": "Rome"}},
    ],
)
def test_calls_as_parts(part: JsonObject) -> None:
    message = assistant([{"type": "text", "text": "Let me look."}, part])
    assert message == Message(role="assistant", content="Let me look.", tool_calls=(call("Rome"),))


def test_anthropic_calls_and_results_are_linked_by_id() -> None:
    turns = [
        ASK,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "A"}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sun"}]},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    assert read_messages({"messages": turns}).messages[1:] == [
        Message(role="assistant", tool_calls=(call("A", "c1"),)),
        Message(role="tool", content="sun", tool_call_id="c1"),
        Message(role="user", content="And?"),
    ]


def test_results_wrapped_in_one_turn_are_messages_of_their_own() -> None:
    wrapped = [
        {"tool_call_id": "c1", "name": "weather", "content": "{'sky': 'sun'}"},
        {"tool_call_id": "c2", "name": "weather", "content": {"sky": "snow"}},
    ]
    result = {"role": "tool", "content": [{"type": "text", "value": json.dumps(wrapped)}]}
    assert read_messages({"messages": [ASK, called({}), result]}).messages[2:] == [
        Message(role="tool", content="{'sky': 'sun'}", tool_call_id="c1", name="weather"),
        Message(role="tool", content='{"sky": "snow"}', tool_call_id="c2", name="weather"),
    ]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (["Oslo", "Bergen"], '["Oslo", "Bergen"]'),
        ([], "[]"),
        ([{"type": "text", "text": "Os"}, {"type": "text", "text": "lo"}], "Oslo"),
        ([{"type": "text", "size": 3}], '[{"type": "text", "size": 3}]'),
        ([{"type": "function", "name": "f"}], '[{"type": "function", "name": "f"}]'),
        ({"city": "Oslo"}, '{"city": "Oslo"}'),
        ('[{"tool_call_id": 1, "content": ""}]', '[{"tool_call_id": 1, "content": ""}]'),
    ],
)
def test_what_a_tool_answers_is_kept_as_it_is(answer: Any, text: str) -> None:
    result = {"role": "tool", "content": answer}
    row = {"messages": [ASK, called({"city": "Oslo"}), result, REPLY], "tools": [FUNCTION]}
    assert read_messages(row).messages[2] == Message(role="tool", content=text)


def test_calls_in_toolcall_tags_are_calls() -> None:
    text = f"Let me look. <TOOLCALL>[{json.dumps(CALL)}, {json.dumps(CALL)}]</TOOLCALL>"
    message = assistant(text)
    assert message == Message(role="assistant", content="Let me look.", tool_calls=(call("Rome"), call("Rome")))


@pytest.mark.parametrize("text", ["<TOOLCALL>", "<TOOLCALL>[{]</TOOLCALL>", '<TOOLCALL>[{"name": "f"}] x</TOOLCALL>'])
def test_broken_toolcall_tags_are_rejected(text: str) -> None:
    assert rejected({"messages": [ASK, {"role": "assistant", "content": text}]}).reason == "call_not_json"


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>',
        "<functioncall> {}",
        "[TOOL_CALLS]weather{}",
        json.dumps(CALL),
        f"```json\n{json.dumps([CALL])}\n```",
        '[weather(city="Oslo")]',
    ],
)
def test_a_call_written_as_text_is_rejected_where_no_tools_are_offered(text: str) -> None:
    row = {"messages": [ASK, {"role": "assistant", "content": text}], "tools": []}
    assert rejected(row).reason == "call_in_text"


@pytest.mark.parametrize("text", ['{"name": "Rome"}', "[weather(city) is a function]", "[1] (see below)"])
def test_text_that_only_resembles_a_call_is_kept(text: str) -> None:
    assert assistant(text).content == text


def test_a_refusal_field_is_what_the_assistant_says() -> None:
    assert assistant(None, refusal="I can't help with that.").content == "I can't help with that."


USER_PART: JsonObject = {"role": "user", "content": [{"type": "reasoning", "text": "Hm."}]}
LATE_THOUGHT = [{"type": "text", "text": "a"}, {"type": "reasoning", "text": "b"}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": ["hello", REPLY]}, "malformed_field"),
        ({"messages": '["'}, "malformed_field"),
        ({"messages": [{"content": "no role"}, REPLY]}, "unknown_role"),
        ({"messages": [{"role": "critic", "content": "x"}, REPLY]}, "unknown_role"),
        ({"messages": [{"role": ["user"], "content": "x"}, REPLY]}, "unknown_role"),
        ({"messages": [{"role": "user", "content": 3}, REPLY]}, "malformed_field"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, REPLY]}, "unsupported_content"),
        ({"messages": [{"role": "user", "content": ["x", {"type": "image"}]}, REPLY]}, "unsupported_content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}, REPLY]}, "malformed_field"),
        ({"messages": [USER_PART, REPLY]}, "malformed_field"),
        ({"messages": [{**ASK, "reasoning_content": "Hm."}, REPLY]}, "malformed_field"),
        ({"messages": [ASK, {**REPLY, "reasoning_content": 3}]}, "malformed_field"),
        ({"messages": [ASK, {**REPLY, "refusal": "No."}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "content": "<think>Hm."}]}, "malformed_field"),
        ({"messages": [ASK, {**REPLY, "content": "<think>a</think>b", "reasoning": "c"}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "content": LATE_THOUGHT}]}, "unsupported_content"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": {"name": "f"}}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": ["f"]}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": "[{"}]}, "call_not_json"),
        ({"messages": [ASK, {**REPLY, "tool_calls": [{"function": {"arguments": {}}}]}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"function": None}]}]}, "malformed_field"),
        ({"messages": [ASK, {"role": "assistant", "tool_calls": [{"type": "custom"}]}]}, "unsupported_content"),
        (
            {"messages": [ASK, {"role": "assistant", "function_call": {"name": "f", "kwargs": {}}}]},
            "arguments_not_object",
        ),
        ({"messages": [ASK, called({}, function_call=CALL)]}, "malformed_field"),
        ({"messages": [ASK, called({}, content=f"<TOOLCALL>[{json.dumps(CALL)}]</TOOLCALL>")]}, "call_in_text"),
        ({"messages": [ASK, called({}, content="<tool_call>{}</tool_call>")]}, "call_in_text"),
        ({"messages": [ASK, {"role": "assistant", "content": [{"type": "tool_call", "value": "{"}]}]}, "call_not_json"),
        ({"messages": [{**ASK, "tool_calls": [{"name": "f", "arguments": {}}]}, REPLY]}, "malformed_field"),
        ({"messages": [ASK, called("{'city': 'Rome'}")]}, "arguments_not_json"),
        ({"messages": [ASK, called('{"city": NaN}')]}, "arguments_not_json"),
        ({"messages": [ASK, called('{"city": "a", "city": "b"}')]}, "arguments_not_json"),
        ({"messages": [ASK, called('{"city": "\\ud800"}')]}, "arguments_not_json"),
        ({"messages": [ASK, called("[" * 9000)]}, "arguments_not_json"),
        ({"messages": [ASK, called('["Rome"]')]}, "arguments_not_object"),
        ({"messages": [ASK, called('"{}"')]}, "arguments_not_object"),
        ({"messages": [{**ASK, "name": 3}, REPLY]}, "malformed_field"),
        ({"messages": [ASK, REPLY], "conversations": [ASK, REPLY]}, "unknown_format"),
        ({"messages": [ASK, REPLY], "tools": "[{"}, "tools_not_json"),
        ({"messages": [ASK, REPLY], "tools": '[{"name": "a", "name": "b"}]'}, "tools_not_json"),
        ({"messages": [ASK, REPLY], "tools": {"name": "weather"}}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [3]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"description": "x"}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"name": ""}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"type": "web_search"}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "description": ["x"]}]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [FUNCTION], "functions": [FUNCTION]}, "invalid_tool"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "parameters": []}]}, "invalid_tool_schema"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "args": {"city": "str"}}]}, "invalid_tool_schema"),
        ({"messages": [ASK, REPLY], "tools": [{**FUNCTION, "inputSchema": PARAMETERS}]}, "invalid_tool_schema"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "parameters": {"x": "text of a"}}]}, "invalid_tool_schema"),
        ({"messages": [ASK, REPLY], "tools": [{"name": "a", "parameters": "{"}]}, "tools_not_json"),
    ],
)
def test_malformed_rows_are_rejected_with_their_reason(row: JsonObject, reason: str) -> None:
    assert rejected(row).reason == reason


QUESTION: JsonObject = {
    "question": "Weather tomorrow?",
    "answers": {
        "direct": "Sunny, I guess.",
        "tool_call": json.dumps(CALL),
        "request_for_info": "In which city?",
        "cannot_answer": "I have no tool for that.",
    },
    "tools": [json.dumps(FUNCTION | {"parameters": PARAMETERS | {"type": "dict"}})],
}


@pytest.mark.parametrize(
    ("right", "kind", "tags"),
    [
        ("direct", "answer", ()),
        ("request_for_info", "clarification", ("missing_argument",)),
        ("cannot_answer", "answer", ("no_fitting_tool",)),
    ],
)
def test_the_right_reply_of_a_when2call_question_is_the_assistants(
    right: str, kind: str, tags: tuple[str, ...]
) -> None:
    draft = read_messages({**QUESTION, "correct_answer": right})
    assert draft.messages == [
        Message(role="user", content="Weather tomorrow?"),
        Message(role="assistant", content=QUESTION["answers"][right]),
    ]
    assert (draft.kind, draft.tags, draft.tools) == (kind, tags, (TOOL,))


@pytest.mark.parametrize("written", [json.dumps(CALL), json.dumps([CALL])])
def test_the_right_call_of_a_when2call_question_is_a_call(written: str) -> None:
    row = {**QUESTION, "correct_answer": "tool_call", "answers": {"tool_call": written}}
    draft = read_messages(row)
    assert draft.messages[1] == Message(role="assistant", tool_calls=(call("Rome"),))
    assert (draft.kind, draft.tags) == ("tool_call", ())


@pytest.mark.parametrize("tools", [None, [], "[]"])
def test_a_when2call_question_without_tools_is_not_one_that_no_tool_fits(tools: Any) -> None:
    assert read_messages({**QUESTION, "tools": tools, "correct_answer": "cannot_answer"}).tags == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"correct_answer": "guess"}, "unknown_kind"),
        ({"correct_answer": ["direct"]}, "unknown_kind"),
        ({"correct_answer": "direct", "answers": {"direct": " "}}, "no_answer"),
        ({"correct_answer": "direct", "answers": ["Sunny."]}, "no_answer"),
        ({"correct_answer": "tool_call", "answers": {"tool_call": "weather(Rome)"}}, "call_not_json"),
        ({"correct_answer": "tool_call", "answers": {"tool_call": "3"}}, "malformed_field"),
        ({"correct_answer": "direct", "question": 3}, "malformed_field"),
        ({"correct_answer": "direct", "answers": {"direct": f"Sure. [TOOL_CALLS]{json.dumps(CALL)}"}}, "call_in_text"),
    ],
)
def test_broken_when2call_questions_are_refused(changes: JsonObject, reason: str) -> None:
    assert rejected({**QUESTION, **changes}).reason == reason


def test_a_chosen_response_is_the_last_turn() -> None:
    row = {"messages": [ASK], "chosen_response": REPLY, "rejected_response": called({"city": "Oslo"})}
    assert read_messages(row).messages[1].content == "Sunny."
    assert read_messages({**row, "chosen_response": "Sunny."}).messages[1].content == "Sunny."
    assert rejected({**row, "chosen_response": 1}).reason == "malformed_field"


def early(city: str, **fields: Any) -> JsonObject:
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return {"role": "assistant", "content": "", "function_call": function, **fields}


def test_turns_of_one_early_call_each_and_the_words_before_them_are_one_reply() -> None:
    look = {"role": "assistant", "content": "I will look.", "reasoning_content": "Two cities."}
    results = [{"role": "function", "name": "weather", "content": sky} for sky in ("sun", "rain")]
    turns = [ASK, look, early("Rome"), early("Oslo"), *results, REPLY]
    assert read_messages({"messages": turns}).messages[1:4] == [
        Message(
            role="assistant",
            content="I will look.",
            reasoning_content="Two cities.",
            tool_calls=(call("Rome"), call("Oslo")),
        ),
        Message(role="tool", content="sun", name="weather"),
        Message(role="tool", content="rain", name="weather"),
    ]


@pytest.mark.parametrize("field", ["tools", "functions", "available_tools", "tools_json"])
@pytest.mark.parametrize("as_text", [False, True])
def test_tools_stand_in_any_of_the_known_fields(field: str, as_text: bool) -> None:
    draft = read_messages({"messages": [ASK, REPLY], field: json.dumps([FUNCTION]) if as_text else [FUNCTION]})
    assert draft.tools == (TOOL,)


def test_tools_that_a_system_text_only_declares_leave_it() -> None:
    other = {"name": "now", "parameters": {"type": "dict", "properties": {}}}
    text = f"<|im_system|>tool_declare<|im_middle|>{json.dumps([FUNCTION, other])}<|im_end|>"
    row = {"messages": [{"role": "system", "content": text}, ASK, REPLY]}
    assert [message.role for message in read_messages(row).messages] == ["user", "assistant"]
    assert [tool.function.name for tool in read_messages(row).tools] == ["weather", "now"]
    given = read_messages({**row, "available_tools": [{**FUNCTION, "description": "Mine"}]}).tools
    assert [tool.function.description for tool in given] == ["Mine", None]
    assert given[1].function.arguments_schema["type"] == "object"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<|im_system|>tool_declare<|im_middle|># Tools\n[]<|im_end|>", "tools_not_json"),
        ('<|im_system|>tool_declare<|im_middle|>[{"name": NaN}]<|im_end|>', "tools_not_json"),
        ("<|im_system|>tool_declare<|im_middle|>[{}]<|im_end|>", "invalid_tool"),
    ],
)
def test_declared_tools_that_are_none_are_refused(text: str, reason: str) -> None:
    assert rejected({"messages": [{"role": "system", "content": text}, ASK, REPLY]}).reason == reason


def test_a_declaration_beside_other_words_stays_a_system_text() -> None:
    text = "<|im_system|>tool_declare<|im_middle|>[]<|im_end|><|im_system|>system<|im_middle|>Be brief.<|im_end|>"
    assert read_messages({"messages": [{"role": "system", "content": text}, ASK, REPLY]}).messages[0].content == text


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}, {"loss": False}, {"loss_scale": [0.0]}])
def test_a_turn_that_is_not_to_be_learned_is_marked(flag: JsonObject) -> None:
    assert not assistant("Sunny.", **flag).learned


def test_a_written_sample_is_read_again_with_its_marks() -> None:
    row = {"messages": [ASK, {**REPLY, "weight": 0}, ASK, REPLY]}
    written = [message.model_dump(mode="json") for message in read_messages(row).messages]
    assert [turn.get("learned") for turn in written] == [None, False, None, None]
    assert read_messages({"messages": written}).messages == read_messages(row).messages


@pytest.mark.parametrize("flag", [{"training": 0.5}, {"loss_scale": 2}, {"weight": "0"}, {"loss_scale": [0, 1]}])
def test_a_turn_that_is_learned_in_part_is_refused(flag: JsonObject) -> None:
    found = rejected({"messages": [ASK, {**REPLY, **flag}]})
    assert found.reason == "unsupported_content"
    assert next(iter(flag)) in found.detail
    assert "turn 2" in found.detail


@pytest.mark.parametrize("flag", [{"weight": 1}, {"weight": 1.0}, {"train": True}, {"loss": None}])
def test_a_turn_that_is_to_be_learned_says_nothing_new(flag: JsonObject) -> None:
    assert read_messages({"messages": [{**ASK, "weight": 0}, {**REPLY, **flag}]}).messages[1] == Message(**REPLY)


@pytest.mark.parametrize(
    "fields", [{"tool_call_id": "c1"}, {"tool_call_ids": ["c1"]}, {"id": "c1"}, {"tool_call_id": "c1", "id": "other"}]
)
def test_a_result_may_name_its_call_in_other_fields(fields: JsonObject) -> None:
    calls = [{"id": "c1", "name": "weather", "arguments": {}}]
    turns = [ASK, {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "9 C", **fields}]
    assert read_messages({"messages": turns}).messages[2].tool_call_id == "c1"


def test_an_id_of_a_result_that_is_no_calls_says_nothing() -> None:
    turns = [ASK, called({}), {"role": "tool", "content": "9 C", "id": "m7"}]
    assert read_messages({"messages": turns}).messages[2].tool_call_id is None


def test_results_beside_words_come_before_them_wherever_they_stand() -> None:
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "9 C"}
    words = {"type": "text", "text": "And tomorrow?"}
    for parts in ([result, words], [words, result]):
        read = read_messages({"messages": [ASK, called({}), {"role": "user", "content": parts}]}).messages[2:]
        assert [(message.role, message.content) for message in read] == [("tool", "9 C"), ("user", "And tomorrow?")]


@pytest.mark.parametrize("empty", [{}, {"name": None, "arguments": None}, {"name": "", "arguments": ""}])
def test_an_empty_early_call_is_none(empty: JsonObject) -> None:
    assert assistant("Sunny.", function_call=empty) == Message(role="assistant", content="Sunny.")


def test_a_text_may_be_wrapped_once_more() -> None:
    assert assistant([{"type": "text", "text": {"value": "Sunny.", "annotations": []}}]).content == "Sunny."


def test_thoughts_may_be_a_summary() -> None:
    part = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    said = assistant([part, {"type": "text", "text": "Sunny."}])
    assert said == Message(role="assistant", content="Sunny.", reasoning_content="Hm.")
    assert assistant([{**part, "summary": []}, {"type": "text", "text": "Sunny."}]).reasoning_content is None


def test_thoughts_that_nobody_can_read_are_passed() -> None:
    hidden = {"type": "redacted_thinking", "data": "x"}
    assert assistant([hidden, {"type": "text", "text": "Sunny."}]) == Message(role="assistant", content="Sunny.")


def test_system_texts_may_be_blocks_and_tools_may_be_anthropics_custom_ones() -> None:
    block = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    custom = {"type": "custom", "name": "weather", "description": FUNCTION["description"], "input_schema": PARAMETERS}
    row = {"system": [block, {**block, "text": "Be brief."}], "messages": [ASK, REPLY], "tools": [custom]}
    sample = sample_from_row(row, "messages", source="f:1", keep_reasoning=False).sample
    assert sample.messages[0] == Message(role="system", content="Be kind.\n\nBe brief.")
    assert sample.tools == (TOOL,)


@pytest.mark.parametrize("name", ["tool_schemas", "tool_definitions", "tool_specs", "function_schemas"])
def test_tools_stand_under_more_names(name: str) -> None:
    assert read_messages({"messages": [ASK, REPLY], name: [FUNCTION]}).tools == (TOOL,)


def test_turns_and_tools_may_be_lists_that_python_printed() -> None:
    turns = [ASK, {**called({"city": "Rome"}), "refusal": None}]
    draft = read_messages({"messages": str(turns), "tools": str([FUNCTION])})
    assert draft.messages[1].tool_calls == (call("Rome"),)
    assert draft.tools == (TOOL,)


def test_flags_that_disagree_are_refused() -> None:
    assert rejected({"messages": [ASK, {**REPLY, "weight": 0, "train": True}]}).reason == "malformed_field"


@pytest.mark.parametrize("field", ["images", "videos", "audio"])
def test_a_row_with_more_than_text_is_refused(field: str) -> None:
    assert rejected({"messages": [ASK, REPLY], field: ["a.bin"]}).reason == "unsupported_content"
    assert read_messages({"messages": [ASK, REPLY], field: []}).messages[1].content == "Sunny."


def test_parameters_in_place_of_arguments_are_those_of_the_call() -> None:
    given = {"name": "weather", "parameters": {"city": "Rome"}}
    assert assistant(None, tool_calls=[given]).tool_calls == (call("Rome"),)


@pytest.mark.parametrize("call_of", [{"arguments": {"city": "Rome"}}, {"args": {"city": "Rome"}, "type": "tool_call"}])
def test_a_call_names_its_arguments_in_the_words_of_any_api(call_of: JsonObject) -> None:
    assert assistant(None, tool_calls=[{"name": "weather", "id": "c", **call_of}]).tool_calls == (call("Rome", "c"),)
    both = {"name": "weather", "arguments": {"city": "Rome"}, "args": {"city": "Oslo"}}
    assert rejected({"messages": [ASK, {"role": "assistant", "tool_calls": [both]}]}).reason == "malformed_field"


@pytest.mark.parametrize("given", [None, "null", "", " ", {}, "{}", [], "[]"])
def test_a_call_without_arguments_is_one_however_it_says_so(given: Any) -> None:
    (without,) = assistant(None, tool_calls=[{"function": {"name": "weather"}}]).tool_calls
    assert without.function.arguments == {}
    assert assistant(None, tool_calls=[{"function": {"name": "weather", "arguments": given}}]).tool_calls == (without,)


@pytest.mark.parametrize(
    "extra", [{"description": "x"}, {"parameters": PARAMETERS}, {"kwargs": {}, "parameters": None}]
)
def test_a_tool_in_place_of_a_call_is_refused(extra: JsonObject) -> None:
    given = {"name": "weather", "parameters": {"city": "Rome"}, **extra}
    row = {"messages": [ASK, {"role": "assistant", "tool_calls": [given]}]}
    assert rejected(row).reason == "arguments_not_object"


@pytest.mark.parametrize(
    "text",
    [
        "Thought: I need it. Action: weather Action Input: {}",
        "Thought: x\nAction: weather\nAction Input: {}\nObservation: sun\nFinal Answer: Sunny.",
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        "\u273fFUNCTION\u273f: weather",
        "<|channel|>commentary to=functions.weather {}",
    ],
)
def test_calls_in_the_spelling_of_other_prompts_are_refused(text: str) -> None:
    assert rejected({"messages": [ASK, {"role": "assistant", "content": text}]}).reason == "call_in_text"


@pytest.mark.parametrize("text", ["Action: press the button.", "Action Input: none. Action: none."])
def test_words_about_actions_are_words(text: str) -> None:
    assert assistant(text).content == text


def as_turn(message: Message, *, as_text: bool, as_parts: bool) -> JsonObject:
    turn: JsonObject = message.model_dump(mode="json", exclude_none=True)
    for called in turn.get("tool_calls", ()) if as_text else ():
        called["function"]["arguments"] = json.dumps(called["function"]["arguments"])
    if as_parts and message.role == "assistant":
        parts: list[JsonObject] = [{"type": "text", "value": message.content}]
        if message.reasoning_content:
            parts.insert(0, {"type": "reasoning", "value": turn.pop("reasoning_content")})
        parts += [
            {"type": "tool_call", "value": json.dumps(called["function"])} for called in turn.pop("tool_calls", ())
        ]
        turn["content"] = parts
    return turn


@given(conversations(), tool_lists, st.booleans(), st.booleans())
def test_a_conversation_reads_back_as_itself(
    messages: list[Message], tools: list[ToolSpec], as_text: bool, as_parts: bool
) -> None:
    turns = [as_turn(message, as_text=as_text, as_parts=as_parts and not as_text) for message in messages]
    listed: Any = [tool.model_dump(mode="json") for tool in tools]
    draft = read_messages({"messages": turns, "tools": json.dumps(listed) if as_text else listed})
    assert draft.messages == messages
    assert draft.tools == tuple(tools)


@pytest.mark.parametrize("piece", ["<TOOLCALL>", "<think>", "</think>", "[", '{"name": "arguments" ', "<TOOLCALL>[]"])
def test_a_long_hostile_text_is_decided_at_once(piece: str) -> None:
    turn = {"role": "assistant", "content": piece * (1_000_000 // len(piece))}
    row = {"messages": [ASK, turn, {"role": "tool", "content": turn["content"]}]}
    assert_decided_at_once(read_messages, row)


@pytest.mark.skipif("ORCHESTRATOR_PUBLIC_DATA" not in os.environ, reason="ORCHESTRATOR_PUBLIC_DATA names no folder")
def test_the_public_reasoning_rows_are_read_with_their_calls_and_results() -> None:
    path = Path(os.environ["ORCHESTRATOR_PUBLIC_DATA"]) / "reason_tool_use_demo_50.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    outcomes = [outcome(read_messages, row) for row in rows]
    assert {number: found for number, found in enumerate(outcomes, start=1) if found} == {
        number: f"turn {turn} has a </think> in its text, after its thoughts" for number, turn in ((6, 3), (7, 5))
    }
    good = [row for row, found in zip(rows, outcomes, strict=True) if not found]
    messages = [message for row in good for message in read_messages(row).messages]
    assert sum(len(message.tool_calls) for message in messages) == 66
    assert sum(message.role == "tool" for message in messages) == 46
    assert all(message.reasoning_content for message in messages if message.role == "assistant")
