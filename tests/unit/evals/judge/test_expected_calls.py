"""Equality of given calls with expected ones."""

import random
from typing import Any

import pytest
from builders import make_call
from hypothesis import given
from hypothesis import strategies as st

from evals.judge.expected_calls import ArgumentCounts, count_expected, match_expected, values_match
from evals.records import FailureReason, Problem
from orchestrator.core.records import JsonObject, ToolCall

BREW: JsonObject = {
    "type": "object",
    "properties": {
        "leaf": {"type": "string", "default": "oolong"},
        "cups": {"type": "integer"},
        "degrees": {"type": "number", "default": 95},
        "extras": {"type": "array", "default": []},
        "label": {"type": "string"},
    },
    "required": ["leaf", "cups"],
}
SCHEMAS = {"brew": BREW, "boil": {}}

MISSING_REQUIRED: FailureReason = "simple_function_checker:missing_required"
MISSING_OPTIONAL: FailureReason = "simple_function_checker:missing_optional"
UNEXPECTED_PARAM: FailureReason = "simple_function_checker:unexpected_param"


def reason_of(calls: list[ToolCall], expected: list[ToolCall]) -> FailureReason | None:
    found = match_expected(calls, expected, SCHEMAS)
    return None if found is None else found.reason


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (2**53 + 1, float(2**53), False),
        (10**15, 10**15 + 1, False),
        (0.1 + 0.2, 0.3, True),
        (1 / 3, 0.3333333333, True),
        (1 / 3, 0.33333333, False),
        (2.9999999999999996, 3, True),
        (0.0, 1e-12, False),
        (1e-12, 2e-12, False),
        (-0.5, 0.5, False),
        (True, 1, False),
        (False, 0, False),
        (True, True, True),
        (True, 1.0000000001, False),
        (None, False, False),
        (None, None, True),
        ("1", 1, False),
        ("a", "A", False),
        ({"a": 1, "b": {"c": [1.0]}}, {"b": {"c": [1]}, "a": 1}, True),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, True),
        ({"a": None}, {}, False),
        ([True], [1], False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ([], {}, False),
        ({"a": False}, {"a": 0}, False),
    ],
)
def test_equality_of_json_values(left: object, right: object, equal: bool) -> None:
    assert values_match(left, right) is equal
    assert values_match(right, left) is equal


@pytest.mark.parametrize(
    ("given", "expected", "reason"),
    [
        ({"leaf": "mint", "cups": 2}, {"cups": 2.0, "leaf": "mint"}, None),
        ({"cups": 2}, {"leaf": "mint", "cups": 2}, MISSING_REQUIRED),
        ({"cups": 2}, {"leaf": "oolong", "cups": 2}, MISSING_REQUIRED),
        ({"leaf": "mint", "cups": 2, "label": "x"}, {"leaf": "mint", "cups": 2}, UNEXPECTED_PARAM),
        ({"leaf": "mint", "cups": 2, "label": None}, {"leaf": "mint", "cups": 2}, UNEXPECTED_PARAM),
        ({"leaf": "mint", "cups": 2}, {"leaf": "mint", "cups": 2, "label": "x"}, MISSING_OPTIONAL),
        ({"leaf": "mint", "cups": 2, "degrees": 95.0}, {"leaf": "mint", "cups": 2}, None),
        ({"leaf": "mint", "cups": 2}, {"leaf": "mint", "cups": 2, "degrees": 95, "extras": []}, None),
        ({"leaf": "mint", "cups": 2, "degrees": 94}, {"leaf": "mint", "cups": 2}, UNEXPECTED_PARAM),
        ({"leaf": "mint", "cups": 2}, {"leaf": "mint", "cups": 2, "degrees": 94}, MISSING_OPTIONAL),
        ({"leaf": "mint", "cups": "2"}, {"leaf": "mint", "cups": 2}, "type_error:simple"),
        ({"leaf": "mint", "cups": True}, {"leaf": "mint", "cups": 1}, "type_error:simple"),
        ({"leaf": None, "cups": 1}, {"leaf": "mint", "cups": 1}, "type_error:simple"),
        ({"leaf": "Mint", "cups": 1}, {"leaf": "mint", "cups": 1}, "value_error:string"),
        ({"leaf": "mint", "cups": 3}, {"leaf": "mint", "cups": 1}, "value_error:others"),
        ({"label": False}, {"label": True}, "value_error:others"),
        ({"extras": [1, 2]}, {"extras": [2, 1]}, "value_error:list/tuple"),
        ({"extras": [1]}, {"extras": [2, 1]}, "value_error:list/tuple"),
        ({"extras": ["1"]}, {"extras": [1]}, "type_error:nested"),
        ({"extras": [{"a": 1}]}, {"extras": [{"a": 1}, {"a": 1}]}, "value_error:list_dict_count"),
        ({"extras": [{"a": 1}]}, {"extras": [{"a": 2}]}, "value_error:list/tuple"),
        ({"extras": {"a": 1}}, {"extras": {"b": 1}}, "value_error:dict_key"),
        ({"extras": {"a": 1}}, {"extras": {"a": 2}}, "value_error:dict_value"),
        ({"leaf": "x", "label": "y"}, {"leaf": "mint", "label": "y", "cups": 1}, MISSING_REQUIRED),
    ],
)  # fmt: skip
def test_one_expected_call(given: JsonObject, expected: JsonObject, reason: FailureReason | None) -> None:
    assert reason_of([make_call("brew", **given)], [make_call("brew", **expected)]) == reason


@pytest.mark.parametrize(
    ("calls", "expected", "problem"),
    [
        ([], ["boil"], ("multiple_function_checker:wrong_count", "0 calls where 1 are expected")),
        (["boil"] * 2, ["boil"], ("multiple_function_checker:wrong_count", "2 calls where 1 are expected")),
        (["boil"], ["boil"] * 2, ("parallel_function_checker_no_order:wrong_count", "1 calls where 2 are expected")),
        (["brew"], ["boil"], ("simple_function_checker:wrong_func_name", "calls brew where boil is expected")),
        (
            ["boil", "boil"],
            ["boil", "brew"],
            ("parallel_function_checker_no_order:cannot_find_match", "calls boil where brew is expected"),
        ),
    ],
)
def test_which_tools_are_called(calls: list[str], expected: list[str], problem: tuple[FailureReason, str]) -> None:
    found = match_expected([make_call(name) for name in calls], [make_call(name) for name in expected], SCHEMAS)
    assert found == Problem(reason=problem[0], detail=problem[1])


def test_a_wrong_count_with_one_tool_is_that_of_a_simple_question() -> None:
    found = match_expected([], [make_call("boil")], {"boil": {}})
    assert found is not None
    assert found.reason == "simple_function_checker:wrong_count"


def test_the_detail_says_what_differs() -> None:
    one = match_expected([make_call("boil", litres=2)], [make_call("boil", litres=3)], SCHEMAS)
    assert one == Problem(reason="value_error:others", detail="boil: litres: 2 where 3 is expected")
    several = match_expected(
        [make_call("boil", litres=1), make_call("boil", litres=4)],
        [make_call("boil", litres=1), make_call("boil", litres=3)],
        SCHEMAS,
    )
    assert several == Problem(
        reason="parallel_function_checker_no_order:cannot_find_match",
        detail="boil: litres: 1 where 3 is expected; boil: litres: 4 where 3 is expected",
    )
    twice = match_expected([make_call("boil", a=1)] * 2, [make_call("boil", a=1), make_call("boil", a=2)], SCHEMAS)
    assert twice is not None
    once = match_expected(
        [make_call("boil", a=1), make_call("boil", a=2), make_call("boil", a=1)],
        [make_call("boil", a=1), make_call("boil", a=2), make_call("boil", a=2)],
        SCHEMAS,
    )
    assert once == Problem(
        reason="parallel_function_checker_no_order:cannot_find_match",
        detail="a call is made more often than expected",
    )


def test_a_long_detail_is_cut() -> None:
    found = match_expected([make_call("boil", a="x" * 5_000)], [make_call("boil", a="y")], SCHEMAS)
    assert found is not None
    assert len(found.detail) == 303


def test_a_pairing_is_found_where_taking_the_first_equal_call_would_not() -> None:
    # Numbers that are close are not close in a chain: the middle one is close to both others.
    low, middle, high = 0.5, 0.5 * (1 + 0.8e-9), 0.5 * (1 + 1.6e-9)
    assert values_match(low, middle)
    assert values_match(middle, high)
    assert not values_match(low, high)
    calls = [make_call("boil", a=middle), make_call("boil", a=high)]
    expected = [make_call("boil", a=middle), make_call("boil", a=low)]
    assert match_expected(calls, expected, SCHEMAS) is None


def test_counts_of_one_call() -> None:
    wanted = make_call("brew", leaf="mint", cups=2, degrees=95, label="x")
    assert count_expected(make_call("brew", leaf="mint", cups=3), wanted, SCHEMAS) == ArgumentCounts(3, 2, 1)
    given = make_call("brew", leaf="mint", cups=2, degrees=95, extras=[], note=1)
    assert count_expected(given, wanted, SCHEMAS) == ArgumentCounts(expected=4, given=4, right=3)
    assert count_expected(make_call("boil", leaf="mint"), wanted, SCHEMAS) is None


ARGUMENTS = st.dictionaries(st.sampled_from("ab"), st.sampled_from([0, 1, 1.0, True, "1", None, [1], [True]]))
CALLS = st.lists(
    st.builds(lambda name, arguments: make_call(name, **arguments), st.sampled_from(["brew", "boil"]), ARGUMENTS),
    max_size=5,
)


@given(CALLS, CALLS, st.integers())
def test_matching_ignores_order_and_is_symmetric(left: list[ToolCall], right: list[ToolCall], seed: int) -> None:
    shuffled = random.Random(seed).sample(left, len(left))
    assert match_expected(left, shuffled, SCHEMAS) is None
    matches = match_expected(left, right, SCHEMAS) is None
    assert matches is (match_expected(right, shuffled, SCHEMAS) is None)


@given(ARGUMENTS, st.randoms(use_true_random=False))
def test_a_call_that_matches_has_only_right_arguments(arguments: dict[str, Any], drawn: Any) -> None:
    other = {name: value for name, value in arguments.items() if drawn.random() < 0.8}
    call, wanted = make_call("brew", **other), make_call("brew", **arguments)
    counts = count_expected(call, wanted, SCHEMAS)
    assert counts is not None
    assert (match_expected([call], [wanted], SCHEMAS) is None) is (counts.expected == counts.given == counts.right)
