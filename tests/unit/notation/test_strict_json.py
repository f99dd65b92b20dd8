import json

import pytest

from orchestrator.notation.strict_json import (
    MAX_DEPTH,
    StrictJsonError,
    dump_loosely,
    json_equal,
    json_values,
    parse,
    parse_marked,
    parse_marked_prefix,
)

LARGEST = (2**53 - 1) * 2**971
"""The largest double, an integer of 309 digits."""


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "-0.5e3",
        '"\\u0000"',
        '"\\ud83d\\ude00"',
        '{"a": [1, {"b": null}], "é": "\\n"}',
        str(10**60),
        str(LARGEST),
        str(-LARGEST),
        "-0",
    ],
)
def test_strict_text_parses_as_usual(text: str) -> None:
    assert parse(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "code", "detail"),
    [
        ("", "malformed", "Expecting value"),
        ("{'a': 1}", "malformed", "at column 2"),
        ("[1,\n 2,]", "malformed", "at line 2, column 4"),
        ("[1] 2", "malformed", "Extra data"),
        ('"a\0b"', "malformed", "Invalid control character"),
        ("[NaN]", "malformed", "NaN is not JSON"),
        ('{"a": -Infinity}', "malformed", "-Infinity is not JSON"),
        ("1e999", "malformed", "too large"),
        ('[{"a": 1, "b": 2, "a": 3}]', "malformed", "'a' stands twice"),
        ("9" * 309, "malformed", "too large"),
        ("-" + "9" * 309, "malformed", "too large"),
        ("1" + "0" * 309, "malformed", "too large"),
        ("-1" + "0" * 309, "malformed", "311 digits is too long"),
        ("\ufeff{}", "malformed", "a byte order mark (BOM)"),
        ("\u00a01", "malformed", "Expecting value"),
        ('"\\u12"', "malformed", "Invalid"),
        ('["\ud800"]', "invalid_unicode", "lone surrogate"),
        ("9" * 5000, "malformed", "5000 digits"),
        ('{"\\ud800": 1}', "invalid_unicode", "lone surrogate"),
        ('["\\udfff"]', "invalid_unicode", "lone surrogate"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "too_deep", "deeper than"),
        ("[" * 100_000, "too_deep", "deeper than"),
    ],
)
def test_loose_text_is_refused_with_its_fault(text: str, code: str, detail: str) -> None:
    with pytest.raises(StrictJsonError) as caught:
        parse(text)
    assert caught.value.fault.code == code
    assert detail in caught.value.fault.detail


def test_a_value_is_read_from_the_beginning_of_a_text() -> None:
    assert parse_marked_prefix('{"a": "]"}] and more') == ({"a": "]"}, 10)
    assert parse_marked_prefix("12.50,") == (12.5, 5)
    with pytest.raises(StrictJsonError, match="Expecting value"):
        parse_marked_prefix(" 1")


@pytest.mark.parametrize(
    ("text", "ends_in_string"),
    [
        ('{"a": "b', True),
        ('"b\\', True),
        ('"\\u12', True),
        ('"\\u001f', True),
        ('"\\ud83d\\ude', True),
        ('"\\u12x4" and more', False),
        ('{"a": ', False),
        ('"a" "b', False),
        ("", False),
    ],
)
def test_a_text_that_ends_inside_a_string_is_told(text: str, *, ends_in_string: bool) -> None:
    with pytest.raises(StrictJsonError) as caught:
        parse(text)
    assert caught.value.ends_in_string is ends_in_string


def test_nesting_up_to_the_limit_is_allowed() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse(text)) == text


def test_loose_dump_shows_marked_tokens_and_surrogates() -> None:
    assert dump_loosely(parse_marked('{"a": NaN, "b": "\\ud800é"}')) == '{"a": "NaN", "b": "\\ud800é"}'


def test_values_one_after_the_other_end_where_something_else_begins() -> None:
    assert json_values(' {"a": 1}\n\n[2], {"b": 3} and more', 0) == ([{"a": 1}, [2], {"b": 3}], 24)
    assert json_values("and more", 0) == ([], 0)


@pytest.mark.parametrize(
    ("left", "right", "exact", "close"),
    [
        (1, 1.0, True, True),
        (1, True, False, False),
        (0, False, False, False),
        ([1], [True], False, False),
        ({"a": 1, "b": [None]}, {"b": [None], "a": 1.0}, True, True),
        ({"a": None}, {}, False, False),
        ({}, [], False, False),
        ([1, 2], [2, 1], False, False),
        ({"a": [0.1 + 0.2]}, {"a": [0.3]}, False, True),
        (2**60, 2**60 + 1, False, False),
        (1e300, 1.0000001e300, False, False),
    ],
)
def test_values_are_equal_by_json_and_close_only_where_a_tolerance_is_given(
    left: object, right: object, *, exact: bool, close: bool
) -> None:
    for one, other in ((left, right), (right, left)):
        assert json_equal(one, other) is exact
        assert json_equal(one, other, relative_tolerance=1e-9) is close
