import json
from functools import partial

import pytest
from conversation_strategies import conversations, tool_lists
from hypothesis import given
from hypothesis import strategies as st
from raw_rows import FUNCTION, TOOL, assert_decided_at_once, call, conversation, rejection

from orchestrator.core.records import JsonObject, Message, ToolSpec
from orchestrator.data.formats.hermes import offers_tools, read_hermes

rejected = partial(rejection, read_hermes)
WRAPPED = {"type": "function", "function": FUNCTION}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'

CALL_SCHEMA = {"properties": {"name": {"title": "Name"}, "arguments": {"type": "object"}}, "title": "FunctionCall"}
HERMES_PREAMBLE = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. "
    "You may call one or more functions to assist with the user query. Don't make assumptions about what values to "
    "plug into functions. Here are the available tools: <tools> {tools} </tools> Use the following pydantic model "
    f"json schema for each tool call you will make: {CALL_SCHEMA} For each function call return a json object with "
    "function name and arguments within <tool_call></tool_call> XML tags as follows:\n"
    "<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>"
)
QWEN_PREAMBLE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n\nFor each function call, return a json "
    "object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
SHORT_PREAMBLE = (
    "You are provided with function signatures within <tools> </tools> XML tags.\n<tools>\n{tools}\n</tools>\nFor each "
    "function call return a json object with function name and arguments within <tool_call> </tool_call> tags with the "
    "following schema:\nExample:\n<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>"
)


def replied(text: str) -> Message:
    """The message that an assistant's text becomes."""
    return read_hermes(conversation(("human", "Rome?"), ("gpt", text))).messages[1]


@pytest.mark.parametrize("keys", [("from", "value"), ("role", "content")])
def test_a_whole_row_is_read(keys: tuple[str, str]) -> None:
    speaker, said = keys
    result = {"name": "weather", "content": {"sky": "sun"}}
    turns = [
        ("system", HERMES_PREAMBLE.replace("{tools}", json.dumps([WRAPPED]))),
        ("user", "Rome and Oslo?"),
        ("assistant", f"{CALL}\n{CALL.replace('Rome', 'Oslo')}"),
        ("tool", f"<tool_response>\n{json.dumps(result)}\n</tool_response>\n<tool_response>snow</tool_response>"),
        ("assistant", "Sun and snow."),
    ]
    draft = read_hermes({"conversations": [{speaker: who, said: what} for who, what in turns], "category": "x"})
    assert draft.messages == [
        Message(role="user", content="Rome and Oslo?"),
        Message(role="assistant", tool_calls=(call("Rome"), call("Oslo"))),
        Message(role="tool", content='{"sky": "sun"}', name="weather"),
        Message(role="tool", content="snow"),
        Message(role="assistant", content="Sun and snow."),
    ]
    assert draft.tools == (TOOL,)


@pytest.mark.parametrize("preamble", [HERMES_PREAMBLE, QWEN_PREAMBLE, SHORT_PREAMBLE])
@pytest.mark.parametrize(
    "tools",
    [*map(json.dumps, ([WRAPPED], [FUNCTION], WRAPPED)), json.dumps([WRAPPED], indent=2), str([WRAPPED]), str(WRAPPED)],
)
def test_a_known_preamble_goes_whole_and_other_words_stay(preamble: str, tools: str) -> None:
    system = f"You are Ada.\n\n{preamble.replace('{tools}', tools)}\n\nToday is Monday.\n    indented"
    draft = read_hermes(conversation(("system", system), ("human", "Hi."), ("gpt", "Hello.")))
    assert draft.messages[0] == Message(role="system", content="You are Ada.\n\nToday is Monday.\n    indented")
    assert draft.tools == (TOOL,)


def test_a_turn_is_learned_unless_it_says_otherwise() -> None:
    row = conversation(("human", "Rome?"), ("gpt", CALL), ("tool", "9 C"), ("gpt", "Mild."))
    row["conversations"][1]["weight"] = 0
    assert [message.learned for message in read_hermes(row).messages] == [True, False, True, True]


def test_rows_with_images_are_refused() -> None:
    assert rejected(conversation(("human", "Rome?"), ("gpt", CALL), images=["a.png"])).reason == "unsupported_content"


def test_an_end_of_thoughts_after_the_thoughts_is_refused() -> None:
    found = rejected(conversation(("human", "Rome?"), ("gpt", f"<think>Hm.</think>{CALL}</think>")))
    assert found.detail == "turn 2 has a </think> in its text, after its thoughts"


def test_several_tools_stand_one_after_the_other_or_by_line() -> None:
    other = {"name": "time", "parameters": {"type": "object", "properties": {}}}
    both = json.dumps([FUNCTION, other])
    for lines in (f"{json.dumps(FUNCTION)}\n{json.dumps(other)}", f"{FUNCTION}\n{other}", both):
        row = conversation(("system", f"<tools>{lines}</tools>"), ("human", "Hi."), ("gpt", "Hello."))
        assert [tool.function.name for tool in read_hermes(row).tools] == ["weather", "time"]


def test_a_preamble_that_is_not_known_stays_without_its_tools() -> None:
    system = (
        f"Answer in rhyme. Write calls in <tool_call> tags, one at a time. <tools>{json.dumps(FUNCTION)}</tools> Go."
    )
    draft = read_hermes(conversation(("system", system), ("human", "Hi."), ("gpt", "Hello.")))
    expected = "Answer in rhyme. Write calls in <tool_call> tags, one at a time. Go."
    assert draft.messages[0] == Message(role="system", content=expected)
    assert draft.tools == (TOOL,)


def test_instructions_for_a_scratch_pad_stay() -> None:
    system = (
        "You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML "
        f"tags.\n<tools>\n{[WRAPPED]}\n</tools>\nFor each function call return a JSON object, with the following "
        f"pydantic model json schema for each:\n{CALL_SCHEMA}\nEach function call should be enclosed within "
        "<tool_call> </tool_call> XML tags. Use <scratch_pad> </scratch_pad> tags to plan.\n"
        "<scratch_pad>\nGoal: <goal>\n</scratch_pad>\n<tool_call>\n{'name': <function-name>}\n</tool_call>"
    )
    kept = "Use <scratch_pad> </scratch_pad> tags to plan.\n<scratch_pad>\nGoal: <goal>\n</scratch_pad>"
    draft = read_hermes(conversation(("system", system), ("human", "Hi."), ("gpt", "Hello.")))
    assert draft.messages[0].content == kept


def test_the_system_field_is_read_like_a_system_turn() -> None:
    row = conversation(("human", "Hi."), ("gpt", CALL), system=f"Be kind. <tools>{json.dumps([WRAPPED])}</tools>")
    draft = read_hermes(row)
    assert draft.messages[0] == Message(role="system", content="Be kind.")
    assert draft.tools == (TOOL,)


def test_tools_of_the_row_come_first_and_none_twice() -> None:
    other, changed = {"name": "time"}, {**FUNCTION, "description": "From the row"}
    text = f"<tools>{json.dumps([FUNCTION, other])}</tools>"
    row = conversation(("system", text), ("human", "Hi."), ("gpt", "Hello."), tools=json.dumps([changed]))
    tools = [(tool.function.name, tool.function.description) for tool in read_hermes(row).tools]
    assert tools == [("weather", "From the row"), ("time", None)]


@pytest.mark.parametrize(
    ("text", "city"),
    [
        ('{"arguments": {"city": "Rome"}, "name": "weather"}', "Rome"),
        ('{"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}', "Rome"),
        ("{'name': 'weather', 'arguments': {'city': 'Rome'}}", "Rome"),
        ("""{'name': 'weather', 'arguments': {'city': "L'Aquila"}}""", "L'Aquila"),
        ("[{'name': 'weather', 'arguments': {'city': 'Rome'}}]", "Rome"),
        ('{"name": "weather", "arguments": {"city": "</tool_call>"}}', "</tool_call>"),
    ],
)
def test_calls_as_json_and_as_python_dicts(text: str, city: str) -> None:
    assert replied(f"<tool_call>{text}</tool_call>") == Message(role="assistant", tool_calls=(call(city),))


def test_text_around_calls_stays_as_content() -> None:
    text = f"<scratch_pad>\nGoal: weather\n</scratch_pad>\n{CALL}\nOne moment."
    kept = "<scratch_pad>\nGoal: weather\n</scratch_pad>\nOne moment."
    assert replied(text) == Message(role="assistant", content=kept, tool_calls=(call("Rome"),))


def test_a_leading_think_block_is_reasoning_even_where_it_speaks_of_calls() -> None:
    message = replied(f"<think>\nI need a <tool_call>.\n</think>\n{CALL}")
    assert message == Message(role="assistant", reasoning_content="I need a <tool_call>.", tool_calls=(call("Rome"),))


def test_results_in_a_user_turn_are_tool_messages() -> None:
    said = "<tool_response>\nsun\n</tool_response>\n<tool_response>\nsnow\n</tool_response>\nAnd now?"
    row = conversation(("human", "Rome?"), ("gpt", f"{CALL}{CALL}"), ("human", said))
    found = [(message.role, message.content) for message in read_hermes(row).messages[2:]]
    assert found == [("tool", "sun"), ("tool", "snow"), ("user", "And now?")]


def test_a_tool_turn_without_tags_is_one_result() -> None:
    row = conversation(("human", "Rome?"), ("gpt", CALL), ("tool", '{"sky": "sun"}'))
    assert read_hermes(row).messages[2] == Message(role="tool", content='{"sky": "sun"}')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<tool_call>", "call_not_json"),
        ("<tool_call></tool_call>", "call_not_json"),
        (CALL.removesuffix("</tool_call>"), "call_not_json"),
        (f"{CALL}</tool_call>", "call_not_json"),
        ("<tool_call>weather(city='Rome')</tool_call>", "call_not_json"),
        ("<tool_call>{'name': 'f', 'arguments': {'a': 'it''s'}}</tool_call>", "call_not_json"),
        ("<tool_call>{'name': 'f', 'arguments': {'a': 1, 'a': 2}}</tool_call>", "call_not_json"),
        ("<tool_call>{'name': 'f', 'arguments': {'a': (1, 2)}}</tool_call>", "call_not_json"),
        ("<tool_call>{'name': 'f', 'arguments': {'a': true}}</tool_call>", "call_not_json"),
        ('<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', "call_not_json"),
        ('<tool_call>{"name": "f", "arguments": {},}</tool_call>', "call_not_json"),
        ('<tool_call>"f"</tool_call>', "call_not_json"),
        ("<tool_call>[]</tool_call>", "empty_turn"),
        ('<tool_call>{"name": "f", "kwargs": {}}</tool_call>', "arguments_not_object"),
        ('<tool_call>{"arguments": {}}</tool_call>', "malformed_field"),
        (f"{CALL}<tool_response>sun</tool_response>", "unsupported_content"),
        ("<functioncall> {}", "call_in_text"),
        ("<think>Hm.", "malformed_field"),
    ],
)
def test_a_malformed_reply_is_rejected_with_its_reason(text: str, reason: str) -> None:
    found = rejected(conversation(("human", "Rome?"), ("gpt", text)))
    assert found.reason == reason
    assert found.detail.startswith("turn 2")


HI, ASKED = (("human", "Hi."), ("gpt", "Hello.")), (("human", "Hi."), ("gpt", CALL))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (conversation(("system", "<tools>[{</tools>"), *HI), "tools_not_json"),
        (conversation(("system", '<tools>[{"name": "f"}]'), *HI), "tools_not_json"),
        (conversation(("system", '<tools>[{"name": "f", "name": "g"}]</tools>'), *HI), "tools_not_json"),
        (conversation(("system", "<tools>{'a': 1</tools>"), *HI), "tools_not_json"),
        (conversation(("system", "<tools>[{}]</tools>"), *HI), "invalid_tool"),
        (conversation(("system", "<tools>[3]</tools>"), *HI), "invalid_tool"),
        (conversation(*HI, tools="{"), "tools_not_json"),
        (conversation(*HI, system=3), "malformed_field"),
        (conversation(("human", "Hi."), ("function_call", "{}")), "call_in_text"),
        (conversation(("human", "Hi."), ("narrator", "x")), "unknown_role"),
        (conversation(*ASKED, ("tool", "a <tool_response>b</tool_response>")), "malformed_field"),
        (conversation(*ASKED, ("tool", "<tool_response>b")), "malformed_field"),
        (conversation(("human", "Hi."), ("gpt", 3)), "malformed_field"),
        ({"conversations": [{"from": "gpt", "value": CALL, "tool_calls": [{"name": "f"}]}]}, "call_in_text"),
    ],
)
def test_malformed_rows_are_rejected_with_their_reason(row: JsonObject, reason: str) -> None:
    assert rejected(row).reason == reason


def test_only_a_filled_tools_tag_offers_tools() -> None:
    assert offers_tools('signatures within <tools></tools> tags: <tools>\n[{"name": "f"}]</tools>')
    assert not offers_tools("signatures within <tools></tools> tags, or <tools> my tools </tools>")


def written(message: Message, *, as_python: bool) -> tuple[str, str]:
    if message.role != "assistant":
        return ("human" if message.role == "user" else message.role), message.content
    calls = [called.function.model_dump(mode="json") for called in message.tool_calls]
    tags = [f"<tool_call>\n{called if as_python else json.dumps(called)}\n</tool_call>" for called in calls]
    thoughts = [f"<think>\n{message.reasoning_content}\n</think>"] if message.reasoning_content else []
    return "gpt", "\n".join([*thoughts, *([message.content] if message.content else []), *tags])


@given(conversations(), tool_lists, st.booleans(), st.booleans())
def test_a_conversation_reads_back_as_itself(
    messages: list[Message], tools: list[ToolSpec], as_python: bool, is_tagged: bool
) -> None:
    turns = [written(message, as_python=as_python) for message in messages]
    if is_tagged:
        turns = [(who, f"<tool_response>\n{said}\n</tool_response>" if who == "tool" else said) for who, said in turns]
    offered = json.dumps([tool.model_dump(mode="json") for tool in tools])
    if turns[0][0] != "system":
        turns.insert(0, ("system", ""))
    turns[0] = ("system", f"{turns[0][1]}\n\n{QWEN_PREAMBLE.replace('{tools}', offered)}")
    draft = read_hermes(conversation(*turns))
    assert draft.messages == messages
    assert draft.tools == tuple(tools)


PIECES = ["<tools>", "<tools> ", "<tools>{", "<tools>{'a': 1}\n", "<tool_response>", "<tool_response></tool_response>"]
PIECES += ["<tool_call>", "<tool_call></tool_call>", "<tool_call>{'a': ", '<tool_call>{"a": "', "<tool_call>["]
PIECES += ["<tool_call>{'a'}</tool_call>", "<tool_call>\n{", "[", "{'a':", "<think>", "\n"]
PIECES += ["Use the following pydantic model json schema for each tool call you will make: {"]


@pytest.mark.parametrize("speaker", ["system", "gpt", "tool", "human"])
@pytest.mark.parametrize("piece", PIECES)
def test_a_long_hostile_text_is_decided_at_once(speaker: str, piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    if speaker == "system":
        text = f"{text}<tools>{json.dumps([FUNCTION])}</tools>{text}"
    assert_decided_at_once(read_hermes, conversation((speaker, text), *HI))
