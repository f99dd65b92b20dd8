import json
from functools import partial
from typing import Any

import pytest
from builders import make_call
from conversation_strategies import conversations, tool_lists
from hypothesis import given
from raw_rows import FUNCTION, TOOL, assert_decided_at_once, call, rejection

from orchestrator.core.records import JsonObject, Message, ToolSpec
from orchestrator.data.formats.glaive import read_glaive

rejected = partial(rejection, read_glaive)
INTRODUCTION = "You are a helpful assistant with access to the following functions. Use them if required -"
OTHER_INTRODUCTION = (
    "You are an helpful assistant who has access to the following functions to help the user, you can "
    "use the functions if needed-"
)
SYSTEM = f"SYSTEM: {INTRODUCTION}\n{json.dumps(FUNCTION, indent=4)}\n"


def read_reply(text: str) -> Message:
    """The message that an assistant's text becomes."""
    return read_glaive({"system": "", "chat": f"USER: Rome?\n\n\nASSISTANT: {text}"}).messages[1]


def test_the_end_mark_inside_a_call_is_no_end_of_a_turn() -> None:
    written = """<functioncall> {"name": "weather", "arguments": '{"city": "a <|endoftext|>"}'}"""
    chat = f"USER: Rome?\n\nASSISTANT: {written}\n\nFUNCTION RESPONSE: sun\n\nASSISTANT: Sunny."
    messages = read_glaive({"chat": chat}).messages
    assert messages[1].tool_calls == (call("a <|endoftext|>"),)
    assert messages[3].content == "Sunny."


@pytest.mark.parametrize("chat", ["", "\n"])
def test_an_empty_chat_has_no_turns(chat: str) -> None:
    assert read_glaive({"chat": chat}).messages == []


def test_a_whole_row_is_read() -> None:
    chat = (
        "USER: Weather in Rome?\n\n\n"
        'ASSISTANT: <functioncall> {"name": "weather", "arguments": \'{"city": "Rome"}\'} <|endoftext|>\n\n\n'
        'FUNCTION RESPONSE: {"sky": "sun"}\n\n\n'
        "ASSISTANT: It is sunny.\nEnjoy! <|endoftext|>\n\n\n"
        "USER: Thanks\n\n\nASSISTANT: You're welcome! <|endoftext|>\n\n\n"
    )
    draft = read_glaive({"system": SYSTEM, "chat": chat})
    assert draft.messages == [
        Message(role="user", content="Weather in Rome?"),
        Message(role="assistant", tool_calls=(call("Rome"),)),
        Message(role="tool", content='{"sky": "sun"}'),
        Message(role="assistant", content="It is sunny.\nEnjoy!"),
        Message(role="user", content="Thanks"),
        Message(role="assistant", content="You're welcome!"),
    ]
    assert draft.tools == (TOOL,)


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('\'{"city": "Rome"}\'', {"city": "Rome"}),
        ('\'{\n  "city": "Rome"\n}\'', {"city": "Rome"}),
        ("""'{"city": "L'Aquila's"}'""", {"city": "L'Aquila's"}),
        ("""'{"city": "it\\'s"}'""", {"city": "it's"}),
        ("""'{"city": "don't, it\\'s"}'""", {"city": "don't, it's"}),
        ("""'{"city": "a \\"b\\" \\n c\\\\d"}'""", {"city": 'a "b" \n c\\d'}),
        ("""'{"city": "}'}"}'""", {"city": "}'}"}),
        ("'{}'", {}),
        ("""'{"city": "<|endoftext|>"}'""", {"city": "<|endoftext|>"}),
        ('{"city": "Rome"}', {"city": "Rome"}),
        ('"{\\"city\\": \\"Rome\\"}"', {"city": "Rome"}),
    ],
)
def test_arguments_in_single_quotes_and_as_json(written: str, arguments: JsonObject) -> None:
    message = read_reply(f'<functioncall> {{"name": "weather", "arguments": {written}}}')
    assert message == Message(role="assistant", tool_calls=(make_call("weather", **arguments),))


@pytest.mark.parametrize(
    "written",
    [
        """{"arguments": '{"city": "Rome"}', "name": "weather"}""",
        """{ "arguments" : '{"city":
 "Rome"}' , "name" : "weather" }""",
        '{"arguments": {"city": "Rome"}, "name": "weather"}',
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        """{"name": "weather", "arguments": '{"city": "Rome"}'} </functioncall>""",
    ],
)
def test_other_spellings_of_a_call(written: str) -> None:
    expected = Message(role="assistant", content="Here.", tool_calls=(call("Rome"),))
    assert read_reply(f"<functioncall> {written} Here.") == expected


def test_text_beside_a_call_and_calls_one_after_the_other_are_one_message() -> None:
    one = '<functioncall> {"name": "weather", "arguments": \'{"city": "Rome"}\'}'
    chat = f"USER: Both?\nASSISTANT: I will look.\nASSISTANT: {one}\nASSISTANT: And here. {one} {one} Wait."
    said = Message(role="assistant", content="I will look.\nAnd here.\nWait.", tool_calls=(call("Rome"),) * 3)
    assert read_glaive({"chat": chat}).messages[1:] == [said]


@pytest.mark.parametrize(
    ("system", "kept", "num_tools"),
    [
        (SYSTEM, None, 1),
        (f"{SYSTEM}\n{json.dumps(FUNCTION)}", None, 2),
        (f"SYSTEM: {INTRODUCTION} {json.dumps([FUNCTION, FUNCTION])}", None, 2),
        (f"{INTRODUCTION}{json.dumps(FUNCTION)},\n{json.dumps(FUNCTION)}\nToday is Monday.", "Today is Monday.", 2),
        (f"SYSTEM: You are Ada. {INTRODUCTION}\n{json.dumps(FUNCTION)}", "You are Ada.", 1),
        ("SYSTEM: You are a helpful assistant, with no access to external functions.", None, 0),
        (f"SYSTEM: {OTHER_INTRODUCTION}\n{json.dumps(FUNCTION)}", None, 1),
        ("SYSTEM: You are Ada.\n", "You are Ada.", 0),
        (None, None, 0),
    ],
)
def test_tools_and_their_introduction_leave_the_system_text(system: Any, kept: str | None, num_tools: int) -> None:
    draft = read_glaive({"system": system, "chat": "USER: Hi\nASSISTANT: Hello"})
    assert [message.content for message in draft.messages if message.role == "system"] == ([kept] if kept else [])
    assert draft.tools == (TOOL,) * num_tools


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("<functioncall>", "call_not_json"),
        ("<functioncall> weather", "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": \'{"city": "Rome"}', "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": \'{city: Rome}\'}', "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": \'{"a": NaN}\'}', "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": \'{"a": 1, "a": 2}\'}', "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": \'{"a": "\\\\\\\\it\\\'s"}\'}', "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": \'[1]\'}', "arguments_not_object"),
        ('<functioncall> {"name": "weather", "arguments": \'\'}', "call_not_json"),
        ('<functioncall> {"name": "weather", "kwargs": {}}', "arguments_not_object"),
        ("<functioncall> []", "malformed_field"),
        ("""<functioncall> {"arguments": '{"city": "Rome"}'}""", "call_not_json"),
        ("""<functioncall> {"arguments": '{"city": NaN}', "name": "weather"}""", "call_not_json"),
        ("""<functioncall> {"name": "weather", "arguments": '{"city": "Rome"}'}}""", "call_not_json"),
        ('<functioncall> {"name": "weather", "arguments": {}}\n]', "call_not_json"),
        ("<tool_call>{}</tool_call>", "call_in_text"),
    ],
)
def test_a_malformed_call_is_rejected_with_its_reason(reply: str, reason: str) -> None:
    found = rejected({"chat": f"USER: Rome?\nASSISTANT: {reply}"})
    assert found.reason == reason
    assert found.detail.startswith("turn 2")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chat": ["USER: Hi"]}, "malformed_field"),
        ({"chat": "Hi\nUSER: Hi"}, "malformed_field"),
        ({"chat": "Hi"}, "malformed_field"),
        ({"chat": 'USER: By "\nASSISTANT: Ada".\n\n\nASSISTANT: Yes.'}, "malformed_field"),
        ({"chat": "USER: Hi\n\nASSISTANT: One.\nUSER: And?\n\nASSISTANT: Two."}, "malformed_field"),
        ({"chat": "USER: Hi\nASSISTANT: One <|endoftext|> two <|endoftext|>"}, "malformed_field"),
        ({"chat": "USER: Hi <|endoftext|> there\nASSISTANT: Yes."}, "malformed_field"),
        ({"chat": "USER: Hi\nASSISTANT: Yes. <|endoftext|>\nUSER: So?\nASSISTANT: It was only"}, "malformed_field"),
        ({"chat": "USER: Hi\nASSISTANT: Yes.", "images": ["a.png"]}, "unsupported_content"),
        ({"chat": None, "messages": [{"role": "critic", "content": "x"}]}, "unknown_role"),
        ({"chat": "USER: Hi\nASSISTANT: Hello", "system": 3}, "malformed_field"),
        ({"chat": "USER: Hi\nASSISTANT: Hello", "system": f"{INTRODUCTION}\n{{"}, "tools_not_json"),
        ({"chat": "USER: Hi\nASSISTANT: Hello", "system": SYSTEM + '{"name": "b",'}, "tools_not_json"),
        ({"chat": "USER: Hi\nASSISTANT: Hello", "system": f"Tools: {json.dumps(FUNCTION)}"}, "tools_not_json"),
        ({"chat": "USER: Hi\nASSISTANT: Hello", "system": f'{INTRODUCTION} {{"a": NaN}}'}, "tools_not_json"),
        ({"chat": "USER: Hi\nASSISTANT: Hello", "system": f"{INTRODUCTION} {{}}"}, "invalid_tool"),
    ],
)
def test_malformed_rows_are_rejected_with_their_reason(row: JsonObject, reason: str) -> None:
    assert rejected(row).reason == reason


SHAREGPT = [
    {"from": "system", "value": f"{INTRODUCTION}{json.dumps(FUNCTION)}"},
    {"from": "human", "value": "Rome?"},
    {"from": "function-call", "value": """{"name": "weather", "arguments": '{"city": "L'Aquila"}'}"""},
    {"from": "function-response", "value": '{"sky": "sun"}'},
    {"from": "gpt", "value": "Sunny. <|endoftext|>"},
]
CHATML = [
    {"role": "system", "content": f"{INTRODUCTION}\n{json.dumps(FUNCTION, indent=2)}"},
    {"role": "user", "content": [{"type": "text", "text": "Rome?"}]},
    {
        "role": "assistant",
        "content": """<functioncall> {"name": "weather", "arguments": '{"city": "L'Aquila"}'} <|endoftext|>""",
    },
    {"role": "function", "content": {"sky": "sun"}},
    {"role": "assistant", "content": "Sunny."},
]


@pytest.mark.parametrize("row", [{"conversations": SHAREGPT}, {"messages": CHATML}, {"conversations": CHATML}])
def test_lists_of_turns_that_were_made_of_the_set_are_read(row: JsonObject) -> None:
    draft = read_glaive(row)
    assert draft.messages == [
        Message(role="user", content="Rome?"),
        Message(role="assistant", tool_calls=(call("L'Aquila"),)),
        Message(role="tool", content='{"sky": "sun"}'),
        Message(role="assistant", content="Sunny."),
    ]
    assert draft.tools == (TOOL,)


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"from": "function-call", "value": '{"name": "weather", "arguments": {}} Done.'}, "call_not_json"),
        ({"from": "function-call", "value": "Done."}, "call_not_json"),
        ({"from": "function_call", "value": '{"name": "weather", "arguments": {}}'}, "call_in_text"),
        ({"from": "gpt", "value": "Yes.", "tool_calls": [{"name": "weather"}]}, "call_in_text"),
        ({"from": "gpt", "value": "Yes.", "train": 0.5}, "unsupported_content"),
        ({"from": "gpt", "value": "One <|endoftext|> two"}, "malformed_field"),
        ({"from": "gpt", "value": {"a": 1}}, "malformed_field"),
    ],
)
def test_malformed_turns_of_a_list_are_rejected(turn: JsonObject, reason: str) -> None:
    found = rejected({"conversations": [SHAREGPT[1], turn]})
    assert (found.reason, found.detail[:6]) == (reason, "turn 2")


def written(message: Message) -> str:
    if message.role != "assistant":
        return f"{'USER' if message.role == 'user' else 'FUNCTION RESPONSE'}: {message.content}"
    parts = [f"<think>{message.reasoning_content}</think>"] if message.reasoning_content else []
    parts += [message.content] if message.content else []
    for called in message.tool_calls:
        name, arguments = json.dumps(called.function.name), json.dumps(called.function.arguments, ensure_ascii=False)
        parts.append(f'<functioncall> {{"name": {name}, "arguments": \'{arguments}\'}}')
    return f"ASSISTANT: {' '.join(parts)} <|endoftext|>"


@given(conversations(), tool_lists)
def test_a_conversation_reads_back_as_itself(messages: list[Message], tools: list[ToolSpec]) -> None:
    said = messages[1:] if messages[0].role == "system" else messages
    listed = "\n\n".join(json.dumps(tool.function.model_dump(mode="json"), indent=4) for tool in tools)
    after = messages[0].content if messages[0].role == "system" else ""
    row = {"system": f"SYSTEM: {INTRODUCTION}\n{listed}\n\n- {after}", "chat": "\n\n\n".join(map(written, said))}
    draft = read_glaive(row)
    assert draft.messages == [Message(role="system", content=f"- {after}".strip()), *said]
    assert draft.tools == tuple(tools)


PIECES = ["USER:", "USER:\n", "ASSISTANT: <functioncall> ", "<functioncall>", "<|endoftext|>", "following functions "]
PIECES += ['<functioncall> {"name": "f", "arguments": \'{"a', "'}", "[", '{"a": ', "\n", '\\"']


@pytest.mark.parametrize("field", ["chat", "system"])
@pytest.mark.parametrize("piece", PIECES)
def test_a_long_hostile_text_is_decided_at_once(field: str, piece: str) -> None:
    row = {"system": f"{INTRODUCTION}\n{json.dumps(FUNCTION)} ", "chat": "USER: Hi\nASSISTANT: <functioncall> "}
    row[field] += piece * (1_000_000 // len(piece))
    assert_decided_at_once(read_glaive, row)
