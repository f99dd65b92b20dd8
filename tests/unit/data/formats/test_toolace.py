import json
import time
from typing import Any

import pytest

from orchestrator.data.formats.toolace import read_toolace
from orchestrator.data.rejection import Reason, RowRejected

TOOLS: list[dict[str, Any]] = [
    {
        "name": "Market Trends API",
        "description": "Trends [now].",
        "parameters": {"type": "dict", "properties": {"country": {"type": "string"}}, "required": ["country"]},
        "required": None,
    },
    {"name": "getNews", "description": "", "parameters": {"type": "dict", "properties": {"n": {"type": "int"}}}},
]
BEFORE = (
    "You are an expert in composing functions. You are given a question and a set of possible functions. \n"
    "If none of the functions can be used, point it out. If the given question lacks the parameters required by the "
    "function,\nalso point it out. \nHere is a list of functions in JSON format that you can invoke:\n"
)
AFTER = (
    ". \nShould you decide to return the function call(s). \n"
    "Put it in the format of [func1(params_name=params_value, params_name2=params_value2...), func2(params)]\n\n"
    "NO other text MUST be included. \n"
)


def row(*turns: tuple[str, Any], system: Any = None) -> dict[str, Any]:
    text = BEFORE + json.dumps(TOOLS) + AFTER if system is None else system
    return {"system": text, "conversations": [{"from": who, "value": value} for who, value in turns]}


ASKED = ("user", "What moves the market?")
CALLED = ("assistant", '[Market Trends API(country="us"), getNews(n=2)]')


def test_tools_calls_and_results() -> None:
    results = [{"name": "getNews", "results": {"news": []}}, {"name": "Market Trends API", "results": [1]}]
    draft = read_toolace(row(ASKED, CALLED, ("tool", json.dumps(results)), ("assistant", "Up.")))
    assert [message.role for message in draft.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    calls = [(call.function.name, call.function.arguments) for call in draft.messages[1].tool_calls]
    assert calls == [("Market_Trends_API", {"country": "us"}), ("getNews", {"n": 2})]
    # Results stand in the order of their calls, whatever theirs was.
    assert [(message.name, message.content) for message in draft.messages[2:4]] == [
        ("Market_Trends_API", "[1]"),
        ("getNews", '{"news": []}'),
    ]
    assert draft.messages[4].content == "Up."
    assert draft.original_names == {"Market_Trends_API": "Market Trends API"}
    assert draft.tools[0].function.arguments_schema == {
        "type": "object",
        "properties": {"country": {"type": "string"}},
        "required": ["country"],
    }
    assert draft.tools[1].function.arguments_schema["properties"] == {"n": {"type": "integer"}}


def test_what_the_system_says_beside_its_tools_is_kept() -> None:
    system = "Today is Monday.\nAnswer in rhymes. " + BEFORE + json.dumps(TOOLS) + AFTER + "The user lives in Oslo."
    draft = read_toolace(row(ASKED, ("assistant", "It rests."), system=system))
    assert draft.messages[0].role == "system"
    assert draft.messages[0].content == "Today is Monday.\nAnswer in rhymes. The user lives in Oslo."


def test_a_system_without_tools_is_kept_as_it_is() -> None:
    system = "Be kind. Write no other text than verse."
    draft = read_toolace(row(ASKED, ("assistant", "It rests."), system=system))
    assert draft.messages[0].content == system
    assert draft.tools == ()


def test_an_empty_list_of_tools() -> None:
    draft = read_toolace(row(ASKED, ("assistant", "I have no tool for it."), system=BEFORE + "[]" + AFTER))
    assert [message.role for message in draft.messages] == ["user", "assistant"]


def test_the_system_may_be_the_first_turn() -> None:
    turn = {"from": "system", "value": BEFORE + json.dumps(TOOLS) + AFTER}
    given = {"conversations": [turn, *row(ASKED, CALLED)["conversations"]]}
    draft = read_toolace(given)
    assert [message.role for message in draft.messages] == ["user", "assistant"]
    assert len(draft.tools) == 2


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("plain words", "plain words"),
        ('{"a": 1}', '{"a": 1}'),
        ('[{"a": 1}]', '{"a": 1}'),
        ("[1, 2, 3]", "[1, 2, 3]"),
        ('[{"name": "getNews", "results": "none"}]', "none"),
    ],
)
def test_the_one_result_of_one_call(result: str, content: str) -> None:
    draft = read_toolace(row(ASKED, ("assistant", "[getNews(n=2)]"), ("tool", result), ("assistant", "Done.")))
    assert draft.messages[2].content == content
    assert draft.messages[2].name == "getNews"


def test_text_in_brackets_is_text() -> None:
    draft = read_toolace(row(ASKED, ("assistant", "[1] The index rose (a lot).")))
    assert draft.messages[1].content == "[1] The index rose (a lot)."
    assert not draft.messages[1].tool_calls


@pytest.mark.parametrize(
    ("turns", "reason", "place"),
    [
        ([("assistant", "[getNews(2)]")], Reason.CALL_NOT_PYTHONIC, "turn 2"),
        ([("assistant", "[getNews(n=2)] Here it is.")], Reason.CALL_NOT_PYTHONIC, "turn 2"),
        ([("assistant", "Sure. [getNews(n=2)]")], Reason.CALL_IN_TEXT, "turn 2"),
        ([("assistant", "[getWeather(n=2)]")], Reason.UNKNOWN_TOOL, "turn 2"),
        ([("assistant", "[Market_Trends_API(country='us')]")], Reason.UNKNOWN_TOOL, "turn 2"),
        ([("robot", "hi")], Reason.UNKNOWN_ROLE, "turn 2"),
        ([("tool", "[]")], Reason.TOOL_RESULT_WITHOUT_CALL, "turn 2"),
        ([CALLED, ("tool", "[1]")], Reason.CALL_WITHOUT_RESULT, "turn 3"),
        ([CALLED, ("tool", "[1, 2, 3]")], Reason.TOOL_RESULT_WITHOUT_CALL, "turn 3"),
        (
            [CALLED, ("tool", '[{"name": "getNews", "results": 1}, {"name": "getNews", "results": 2}]')],
            Reason.TOOL_RESULT_WITHOUT_CALL,
            "turn 3",
        ),
    ],
)
def test_rejections_of_turns(turns: list[tuple[str, Any]], reason: Reason, place: str) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_toolace(row(ASKED, *turns))
    assert rejected.value.reason is reason
    assert place in rejected.value.detail


@pytest.mark.parametrize(
    ("system", "reason"),
    [
        (BEFORE + '[{"name": "f"' + AFTER, Reason.TOOLS_NOT_JSON),
        (BEFORE + '[{"name": "f", "name": "g"}]' + AFTER, Reason.TOOLS_NOT_JSON),
        (BEFORE + '[{"name": "f", "parameters": {"type": "dict", "properties": 5}}, {"name": 3}]', Reason.INVALID_TOOL),
        (["a"], Reason.MALFORMED_FIELD),
    ],
)
def test_rejections_of_systems(system: Any, reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_toolace(row(ASKED, ("assistant", "No."), system=system))
    assert rejected.value.reason is reason


def test_tools_in_both_places_must_agree() -> None:
    given = row(ASKED, CALLED)
    assert len(read_toolace(given | {"tools": TOOLS}).tools) == 2
    with pytest.raises(RowRejected) as rejected:
        read_toolace(given | {"tools": TOOLS[:1]})
    assert rejected.value.reason is Reason.INVALID_TOOL


@pytest.mark.parametrize("system", ["[{" * 500_000, '[{"a":' * 200_000])
def test_hostile_lists_are_refused_quickly(system: str) -> None:
    start = time.process_time()
    with pytest.raises(RowRejected) as rejected:
        read_toolace(row(ASKED, ("assistant", "No."), system=system))
    assert rejected.value.reason is Reason.TOOLS_NOT_JSON
    assert time.process_time() - start < 1


@pytest.mark.parametrize("text", ["a. " * 300_000, "\n \n" * 300_000, "[" * 1_000_000, "[a" * 500_000])
def test_hostile_texts_are_read_quickly(text: str) -> None:
    start = time.process_time()
    draft = read_toolace(row(ASKED, ("assistant", text), system=BEFORE + text))
    assert draft.messages[-1].content == text
    assert time.process_time() - start < 1


ODD_TOOLS = [
    {
        "name": "Plate Number (PN) Lookup, v2",
        "description": "Looks [up] (plates).",
        "parameters": {
            "type": "dict",
            "properties": {"state": {"type": "string"}, "filter[kind]": {"type": "string"}},
            "required": ["state"],
        },
        "required": None,
    },
    {"name": "Shop's Goods", "description": "", "parameters": {"type": "dict", "properties": {}, "required": []}},
    {"name": "plates/get-2.5", "description": "", "parameters": {"type": "dict", "properties": {}, "required": []}},
]


def odd_row(reply: str) -> dict[str, Any]:
    return row(ASKED, ("assistant", reply), system=BEFORE + json.dumps(ODD_TOOLS) + AFTER)


def test_names_with_brackets_commas_and_quotes() -> None:
    calls = '[Plate Number (PN) Lookup, v2(state="CA", filter[kind]="car"), Shop\'s Goods(), plates/get-2.5()]'
    draft = read_toolace(odd_row(calls))
    assert [(call.function.name, call.function.arguments) for call in draft.messages[-1].tool_calls] == [
        ("Plate_Number__PN__Lookup__v2", {"state": "CA", "filter[kind]": "car"}),
        ("Shop_s_Goods", {}),
        ("plates_get-2_5", {}),
    ]
    assert draft.original_names["Plate_Number__PN__Lookup__v2"] == "Plate Number (PN) Lookup, v2"
    assert [message.role for message in draft.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ('Let me see. [Plate Number (PN) Lookup, v2(state="CA")]', Reason.CALL_IN_TEXT),
        ('Plate Number (PN) Lookup, v2(state="CA")', Reason.CALL_IN_TEXT),
        ("Shop's Goods()", Reason.CALL_IN_TEXT),
        ('[Plate Number (PN) Lookup, v2(state="CA", country="US")]', Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA),
        ('[Plate Number (PN) Lookup, v2(state="CA")] This looks the plate up.', Reason.CALL_NOT_PYTHONIC),
    ],
)
def test_calls_that_are_not_quite_calls(reply: str, reason: Reason) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_toolace(odd_row(reply))
    assert rejected.value.reason is reason


def test_links_and_names_in_brackets_are_words() -> None:
    reply = "See [Shop's Goods](https://example.com) or [the list] (short)."
    assert read_toolace(odd_row(reply)).messages[-1].content == reply
