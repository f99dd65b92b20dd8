import json

import pytest

from orchestrator.data.strict_json import (
    MAX_DEPTH,
    MAX_NUMBER_DIGITS,
    StrictJsonError,
    dump_loosely,
    parse,
    parse_marked,
)


@pytest.mark.parametrize(
    "text", ["null", "-0.5e3", '"\\u0000"', '"\\ud83d\\ude00"', '{"a": [1, {"b": null}], "é": "\\n"}', str(10**60)]
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
        ("9" * (MAX_NUMBER_DIGITS + 1), "malformed", "digits is too long"),
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


def test_nesting_up_to_the_limit_is_allowed() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse(text)) == text


def test_loose_dump_shows_marked_tokens_and_surrogates() -> None:
    assert dump_loosely(parse_marked('{"a": NaN, "b": "\\ud800é"}')) == '{"a": "NaN", "b": "\\ud800é"}'
