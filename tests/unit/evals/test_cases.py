"""Which turns become cases, what they are called, and which are drawn."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.cases import cases_from_samples, draw_cases
from evals.records import Case
from orchestrator.errors import DataError
from orchestrator.records import (
    SAMPLE_KINDS,
    FunctionCall,
    FunctionSpec,
    Message,
    Sample,
    SampleKind,
    ToolCall,
    ToolSpec,
)

TOOL = ToolSpec(function=FunctionSpec(name="get_weather"))
CALL = ToolCall(function=FunctionCall(name="get_weather", arguments={"city": "Rome"}))
SYSTEM = Message(role="system", content="You are helpful.")
USER = Message(role="user", content="Weather?")
ASSISTANT_CALLS = Message(role="assistant", tool_calls=(CALL,))
TOOL_RESULT = Message(role="tool", content='{"celsius": 20}')
ASSISTANT_SAYS = Message(role="assistant", content="20 degrees.")


def sample(*messages: Message, kind: SampleKind = "answer", tags: tuple[str, ...] = (), name: str = "s") -> Sample:
    return Sample(id=name, messages=messages, tools=(TOOL,), kind=kind, source="test", tags=tags)


def case(name: str, kind: SampleKind) -> Case:
    return Case(id=name, messages=(USER,), tools=(), kind=kind, tags=(), expected_calls=(), expected_text="")


def test_every_assistant_turn_is_a_case_with_the_messages_before_it() -> None:
    conversation = (SYSTEM, USER, ASSISTANT_CALLS, TOOL_RESULT, ASSISTANT_SAYS)
    early, last = cases_from_samples([sample(*conversation, tags=("harmful", "spanish"))])
    assert early.id == "s#0"
    assert early.kind == "tool_call"
    assert early.tags == ("spanish",)
    assert early.messages == conversation[:2]
    assert early.expected_calls == (CALL,)
    assert last.id == "s"
    assert last.kind == "answer"
    assert last.tags == ("harmful", "spanish")
    assert last.messages == conversation[:4]
    assert last.expected_text == "20 degrees."
    assert early.tools == last.tools == (TOOL,)


def test_an_earlier_turn_without_calls_is_an_answer_without_labels() -> None:
    tags = ("harmful", "benign", "missing_argument", "no_fitting_tool")
    early, last = cases_from_samples([sample(USER, ASSISTANT_SAYS, USER, ASSISTANT_CALLS, kind="tool_call", tags=tags)])
    assert (early.kind, early.tags, early.expected_calls) == ("answer", (), ())
    assert (last.kind, last.tags, last.expected_calls) == ("tool_call", tags, (CALL,))


@pytest.mark.parametrize(
    ("messages", "ids"),
    [
        ((ASSISTANT_SAYS, USER, ASSISTANT_SAYS), ["s"]),
        ((SYSTEM, ASSISTANT_SAYS, USER, ASSISTANT_SAYS), ["s"]),
        ((USER, ASSISTANT_SAYS, ASSISTANT_SAYS), ["s#0"]),
        ((USER, ASSISTANT_SAYS, USER), ["s"]),
        ((USER,), []),
    ],
)
def test_a_turn_that_follows_neither_user_nor_tool_is_no_case(messages: tuple[Message, ...], ids: list[str]) -> None:
    assert [case.id for case in cases_from_samples([sample(*messages)])] == ids


def test_two_cases_with_one_id_are_an_error_that_names_it() -> None:
    twins = [sample(USER, ASSISTANT_SAYS, name="twin"), sample(USER, ASSISTANT_CALLS, name="twin")]
    with pytest.raises(DataError, match="twin: 1 case ids occur more than once"):
        cases_from_samples(twins)


def test_cases_are_drawn_evenly_over_kinds_and_come_sorted() -> None:
    pool = [case(f"{kind}-{number}", kind) for kind in SAMPLE_KINDS for number in range(10)]
    drawn = draw_cases(pool, max_cases=10, seed=0)
    assert Counter(case.kind for case in drawn) == {"tool_call": 3, "refusal": 3, "clarification": 2, "answer": 2}
    assert [case.id for case in drawn] == sorted(case.id for case in drawn)


def test_a_kind_with_few_cases_leaves_its_places_to_the_others() -> None:
    pool = [case("only", "refusal"), *(case(f"c{number}", "tool_call") for number in range(10))]
    drawn = draw_cases(pool, max_cases=6, seed=0)
    assert Counter(case.kind for case in drawn) == {"refusal": 1, "tool_call": 5}


def test_the_seed_changes_the_draw() -> None:
    pool = [case(str(number), "answer") for number in range(50)]
    draws = {tuple(case.id for case in draw_cases(pool, max_cases=5, seed=seed)) for seed in range(5)}
    assert len(draws) == 5


def test_without_a_limit_all_cases_are_drawn() -> None:
    pool = [case("b", "answer"), case("a", "tool_call")]
    assert [case.id for case in draw_cases(pool, max_cases=None, seed=0)] == ["a", "b"]
    assert [case.id for case in draw_cases(iter(pool), max_cases=99, seed=0)] == ["a", "b"]


@given(
    kinds=st.lists(st.sampled_from(SAMPLE_KINDS), max_size=25),
    max_cases=st.integers(min_value=0, max_value=30),
    seed=st.integers(),
)
def test_a_draw_does_not_depend_on_the_order_and_grows_with_the_limit(
    kinds: list[SampleKind], max_cases: int, seed: int
) -> None:
    pool = [case(str(number), kind) for number, kind in enumerate(kinds)]
    shuffled = random.Random(seed).sample(pool, len(pool))
    drawn = draw_cases(pool, max_cases=max_cases, seed=seed)
    assert draw_cases(shuffled, max_cases=max_cases, seed=seed) == drawn
    assert len(drawn) == min(max_cases, len(pool))
    assert {case.id for case in drawn} <= {case.id for case in draw_cases(pool, max_cases=max_cases + 1, seed=seed)}
