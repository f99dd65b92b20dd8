"""Turns in the orders in which people have them: what becomes of each, and what is said of it."""

from collections.abc import Sequence

import pytest
from builders import assistant, make_call, user
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.records import Message
from orchestrator.data.formats.turn_order import in_order

ASK, REPLY = user("Ferry?"), assistant("At nine.")
STOP = user("###STOP###")
BLANK = assistant(" \n")


def system(text: str) -> Message:
    return Message(role="system", content=text)


def calls(*ids: str | None) -> Message:
    made = (make_call(f"find_{number}").model_copy(update={"id": name}) for number, name in enumerate(ids, start=1))
    return assistant("", *made)


def result(text: str, id: str | None = None, name: str | None = None) -> Message:
    return Message(role="tool", content=text, tool_call_id=id, name=name)


def shown(turns: Sequence[Message]) -> list[str]:
    return [f"{turn.role[0]}:{turn.content}{'()' * len(turn.tool_calls)}" for turn in turns]


@pytest.mark.parametrize(
    ("turns", "expected", "codes"),
    [
        ([ASK, REPLY], ["u:Ferry?", "a:At nine."], []),
        ([ASK, REPLY, STOP], ["u:Ferry?", "a:At nine."], ["trimmed_user_turns"]),
        ([ASK, calls("a"), result("x", "a")], ["u:Ferry?", "a:()"], ["trimmed_tool_results"]),
        ([ASK, calls("a"), STOP], ["u:Ferry?", "a:()"], ["trimmed_user_turns"]),
        (
            [ASK, calls("a"), result("x", "a"), BLANK],
            ["u:Ferry?", "a:()"],
            ["trimmed_tool_results", "trimmed_empty_replies"],
        ),
        (
            [ASK, REPLY, system("End."), STOP, STOP],
            ["u:Ferry?", "a:At nine."],
            ["trimmed_system_messages", "trimmed_user_turns"],
        ),
        ([system("a"), system("b"), ASK, REPLY], ["s:a\n\nb", "u:Ferry?", "a:At nine."], ["joined_system_messages"]),
        (
            [ASK, user("Quick."), user("Now."), REPLY],
            ["u:Ferry?\n\nQuick.\n\nNow.", "a:At nine."],
            ["joined_user_turns"],
        ),
        ([ASK, assistant("Wait."), calls("a")], ["u:Ferry?", "a:Wait.()"], ["joined_assistant_turns"]),
        ([ASK, assistant("Wait."), REPLY], ["u:Ferry?", "a:Wait.\nAt nine."], ["joined_assistant_turns"]),
        (
            [ASK, calls("a"), calls("b"), result("x", "a"), result("y", "b"), REPLY],
            ["u:Ferry?", "a:()()", "t:x", "t:y", "a:At nine."],
            ["joined_assistant_turns"],
        ),
        ([REPLY, ASK, REPLY], ["a:At nine.", "u:Ferry?", "a:At nine."], ["assistant_first"]),
        ([system("s"), REPLY, ASK, REPLY], ["s:s", "a:At nine.", "u:Ferry?", "a:At nine."], ["assistant_first"]),
        ([system("Wake up."), calls("a")], ["s:Wake up.", "a:()"], ["no_user_turn"]),
        (
            [ASK, REPLY, system("In."), ASK, REPLY],
            ["u:Ferry?", "a:At nine.", "s:In.", "u:Ferry?", "a:At nine."],
            ["late_system_message"],
        ),
        (
            [ASK, calls("a"), result("x", "a"), ASK, REPLY],
            ["u:Ferry?", "a:()", "t:x", "u:Ferry?", "a:At nine."],
            ["user_after_result"],
        ),
        ([ASK, calls("a"), STOP, REPLY], ["u:Ferry?", "a:()", "u:###STOP###", "a:At nine."], ["unanswered_call"]),
        # What cannot be mended stays as it is, for the checks to refuse.
        ([ASK, BLANK], ["u:Ferry?", "a: \n"], []),
        ([ASK], ["u:Ferry?"], []),
        ([ASK, calls("a"), REPLY], ["u:Ferry?", "a:()", "a:At nine."], ["unanswered_call", "assistant_twice"]),
        ([ASK, result("x"), REPLY], ["u:Ferry?", "t:x", "a:At nine."], []),
    ],
)
def test_turns_are_trimmed_joined_or_left_to_the_template(
    turns: list[Message], expected: list[str], codes: list[str]
) -> None:
    messages, findings = in_order(turns)
    assert shown(messages) == expected
    assert [finding.code for finding in findings] == codes
    assert all(finding.detail for finding in findings)


THREE = calls("a", "b", "c")
IN_ORDER = [("a", "find_1", "1"), ("b", "find_2", "2"), ("c", "find_3", "3")]


@pytest.mark.parametrize(
    ("called", "results", "is_moved"),
    [
        (THREE, [result("1", "a"), result("2", "b"), result("3", "c")], False),
        (THREE, [result("3", "c"), result("1", "a"), result("2", "b")], True),
        (THREE, [result("2", "b"), result("1", name="find_1"), result("3", "c")], True),
        (THREE, [result("3", name="find_3"), result("2", name="find_2"), result("1", name="find_1")], True),
        (THREE, [result("1"), result("2"), result("3")], False),
    ],
)
def test_results_stand_in_the_order_of_their_calls(called: Message, results: list[Message], is_moved: bool) -> None:
    messages, findings = in_order([ASK, called, *results, REPLY])
    assert [(turn.tool_call_id, turn.name, turn.content) for turn in messages[2:5]] == IN_ORDER
    assert [finding.code for finding in findings] == ["reordered_results"] * is_moved


def test_turns_that_differ_in_what_is_learned_or_thought_stay_apart() -> None:
    thought = calls("a").model_copy(update={"reasoning_content": "A port."})
    masked = assistant("Hm.").model_copy(update={"learned": False})
    for turns in ([ASK, REPLY, thought], [ASK, masked, calls("a")]):
        messages, findings = in_order(turns)
        assert messages == turns
        assert [finding.code for finding in findings] == ["assistant_twice"]


made_calls = st.builds(lambda id: make_call("f").model_copy(update={"id": id}), st.sampled_from([None, "a", "b"]))
turns = st.builds(
    lambda role, text, id, made: Message(
        role=role,
        content=text,
        tool_call_id=id if role == "tool" else None,
        tool_calls=made if role == "assistant" else (),
    ),
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.sampled_from(["", "x", "y"]),
    st.sampled_from([None, "a", "b"]),
    st.lists(made_calls, max_size=2).map(tuple),
)


@given(st.lists(turns, max_size=8))
def test_turns_in_order_stay_so_and_no_call_is_lost_before_the_last_reply(given_turns: list[Message]) -> None:
    messages, _ = in_order(given_turns)
    assert in_order(messages).messages == messages
    ids = [call.id for turn in given_turns for call in turn.tool_calls]
    assert [call.id for turn in messages for call in turn.tool_calls] == ids
    if any(turn.role == "assistant" and (turn.content or turn.tool_calls) for turn in given_turns):
        assert messages[-1].role == "assistant"
