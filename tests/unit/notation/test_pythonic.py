import json
import math
import time
from typing import Any

import pytest
from conversation_strategies import json_values
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.notation.pythonic import (
    MAX_LITERAL_CHARS,
    PythonicError,
    first_called,
    opens_like_calls,
    parse_calls,
    parse_json_or_literal,
    parse_literal,
)
from orchestrator.notation.strict_json import StrictJsonError, json_end


def test_names_with_spaces_and_dots_and_several_calls() -> None:
    text = '[Get Weather(city="Oslo", days=3), other.name(), Search_v2( q = [1, {"x": None}] , )]'
    assert parse_calls(text) == [
        ("Get Weather", {"city": "Oslo", "days": 3}),
        ("other.name", {}),
        ("Search_v2", {"q": [1, {"x": None}]}),
    ]
    assert parse_calls(" [ ] ") == []


def value_of(literal: str) -> Any:
    ((_, arguments),) = parse_calls(f"[f(a={literal})]")
    return arguments["a"]


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("\"a, b) ] = 'c' [f(x=1)]\"", "a, b) ] = 'c' [f(x=1)]"),
        ("'it\\'s'", "it's"),
        (r'"tab\t \"q\" \\ \u00e9 \x41 \ud83d\ude00 \d+"', 'tab\t "q" \\ é A 😀 \\d+'),
        ('"two\nlines"', "two\nlines"),
        ('""', ""),
        ("-5", -5),
        ("+2", 2),
        ("1.50", 1.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.6e-19", -1.6e-19),
        ("True", True),
        ("false", False),
        ("null", None),
        ("None", None),
        ("()", []),
        ("(1)", 1),
        ("(1,)", [1]),
        ("(1, (2, 3))", [1, [2, 3]]),
        ("[]", []),
        ("[[1, 2,], [-3.5]]", [[1, 2], [-3.5]]),
        ("{}", {}),
        ("{'a': {'b': [True, 'x']}, \"c\": 1,}", {"a": {"b": [True, "x"]}, "c": 1}),
    ],
)
def test_literals(literal: str, value: Any) -> None:
    parsed = value_of(literal)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[f(1)]", "no `argument=`"),
        ('[f("x")]', "no `argument=`"),
        ("[f(a=b)]", "'b' is not a literal"),
        ("[f(a=g(1))]", "'g' is not a literal"),
        ("[f(a=NaN)]", "'NaN' is not a literal"),
        ("[f(a=-inf)]", "no literal value"),
        ("[f(a=1e999)]", "too large"),
        ("[f(a=1+2)]", "no `)`"),
        ("[f(a==1)]", "no `argument=`"),
        ("[f(a=007)]", "no literal value"),
        ("[f(a=0x10)]", "no literal value"),
        ("[f(a=1, a=2)]", "'a' is given twice"),
        ("[f(a={'x': 1, 'x': 2})]", "'x' is given twice"),
        ("[f(a={1: 2})]", "a key that is not text"),
        ("[f(a={1, 2})]", "a key that is not text"),
        ("[f(a=1)] and more", "text after the list"),
        ("[f(a=1)", "no `]`"),
        ("[f(a=1", "no `)`"),
        ("[f(a='x)]", "a quote that does not close"),
        ("[f(a='x' 'y')]", "no `)`"),
        ("[f(a=r'x')]", "'r' is not a literal"),
        (r"[f(a='C:\Users')]", "incomplete or unknown escape"),
        (r"[f(a='\ud800')]", "lone surrogate"),
        (r"[f(a='\U00110000')]", "no character has the code"),
        ("[(a=1)]", "no name"),
        ("[f]", "no name"),
        ("f(a=1)", "no `[`"),
        ("[,f()]", "no name"),
        ("[f(,)]", "no `argument=`"),
        ("", "no `[`"),
        ("[f(a=" + "9" * 2_000 + ")]", "too long"),
    ],
)
def test_everything_else_is_an_error_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(PythonicError, match="at character") as error:
        parse_calls(text)
    assert problem in str(error.value)
    assert 0 <= error.value.position <= len(text)


def test_nesting_is_bounded() -> None:
    assert value_of("[" * 60 + "]" * 60)
    with pytest.raises(PythonicError, match="nested deeper"):
        value_of("[" * 70 + "]" * 70)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        "[f(a=" + "[" * 1_000_000,
        "[f(a=" + "{'a':" * 200_000,
        "[f(a=" + "('" * 500_000,
        "[f(a='" + "\\" * 999_999,
        "[f(a='" + "\\'" * 500_000,
        "[f(a=" + "\"'" * 500_000,
        "[" + "a " * 500_000,
        "[f(" + "a " * 500_000,
        "[f(" + "a=1," * 250_000 + "b",
        "[f(a=" + "1" * 1_000_000 + "x",
        "[" + " " * 1_000_000,
        "[f(a=1)" * 150_000,
        "[f (" * 250_000,
        "[(" * 500_000,
        "[" + "(" * 1_000_000,
        "[f(" + "=" * 1_000_000,
    ],
)
def test_hostile_texts_end_quickly(text: str) -> None:
    start = time.process_time()
    with pytest.raises(PythonicError):
        parse_calls(text)
    opens_like_calls(text)
    known = {"a (b)": {"x[y]"}, "f": {"a"}}
    with pytest.raises(PythonicError):
        parse_calls(text, known)
    first_called(text, known)
    assert time.process_time() - start < 2


def test_a_long_proper_list_is_read_quickly() -> None:
    start = time.process_time()
    calls = parse_calls("[" + 'Some Tool(a="x, y", b=[1, 2, 3], c={"k": true}),' * 20_000 + "]")
    assert len(calls) == 20_000
    assert calls[-1] == ("Some Tool", {"a": "x, y", "b": [1, 2, 3], "c": {"k": True}})
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("[f(a=1)]", True),
        ("\n [ Get Weather(", True),
        ("[1] a note (see)", False),
        ("f(a=1)", False),
        ('["f(1)"]', False),
        ("[]", False),
    ],
)
def test_what_begins_like_calls(text: str, *, opens: bool) -> None:
    assert opens_like_calls(text) is opens


KNOWN = {
    "Number (long) Lookup": {"code", "filter[type]", "2nd"},
    "Price, Volume": set(),
    'The "best" [of]=all': {"a"},
    "f": {"a"},
    "f(x)": {"b"},
}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            '[Number (long) Lookup(code="x", filter[type]="y", 2nd = 3)]',
            [("Number (long) Lookup", {"code": "x", "filter[type]": "y", "2nd": 3})],
        ),
        ("[Price, Volume(), f(a=1)]", [("Price, Volume", {}), ("f", {"a": 1})]),
        ('[ The "best" [of]=all (a=(1, 2))]', [('The "best" [of]=all', {"a": [1, 2]})]),
        # The longest known name is meant; a shorter one would leave words that are no arguments.
        ("[f(x)(b=2), f(a=1)]", [("f(x)", {"b": 2}), ("f", {"a": 1})]),
        ("[other(a=1)]", [("other", {"a": 1})]),
        ("[f(other=1)]", [("f", {"other": 1})]),
    ],
)
def test_known_names_may_hold_any_character(text: str, calls: Any) -> None:
    assert parse_calls(text, KNOWN) == calls
    assert opens_like_calls(text, KNOWN)


def test_a_name_with_brackets_is_not_guessed() -> None:
    with pytest.raises(PythonicError):
        parse_calls('[Number (long) Lookup(code="x")]')
    with pytest.raises(PythonicError):
        parse_calls('[Number (short) Lookup(code="x")]', KNOWN)


@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("Sure: [f(a=1)] or [Price, Volume(x", "f"),
        ("See [Price, Volume()].", "Price, Volume"),
        ('Number (long) Lookup(code="x")\n', "Number (long) Lookup"),
        ("f (a=1)", "f"),
        ("f(a=1) is how I would ask.", None),
        ("[unknown(a=1)]", None),
        ("[f] and (more)", None),
        ("See [the docs](https://example.com/f(1))", None),
        ("", None),
    ],
)
def test_what_a_text_calls(text: str, called: str | None) -> None:
    assert first_called(text, KNOWN) == called


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_. \-/]{0,12}", fullmatch=True).map(str.strip)
KEYWORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda values: st.one_of(st.lists(values, max_size=4), st.dictionaries(TEXTS, values, max_size=4)),
    max_leaves=12,
)


def write_calls(calls: list[tuple[str, dict[str, Any]]]) -> str:
    written = (f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in calls)
    return f"[{', '.join(written)}]"


@given(st.lists(st.tuples(NAMES, st.dictionaries(KEYWORDS, VALUES, max_size=4)), max_size=4))
def test_what_python_writes_is_read_back(calls: list[tuple[str, dict[str, Any]]]) -> None:
    parsed = parse_calls(write_calls(calls))
    assert parsed == calls
    assert all(
        math.copysign(1, a) == math.copysign(1, b)
        for (_, left), (_, right) in zip(parsed, calls, strict=True)
        for a, b in zip(left.values(), right.values(), strict=True)
        if isinstance(a, float) and isinstance(b, float)
    )


@given(st.text(alphabet="[](){}=,'\"\\ afT1.-:\n", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        calls = parse_calls(text)
    except PythonicError:
        return
    assert parse_calls(write_calls(calls)) == calls


@given(json_values)
def test_a_value_reads_back_from_json_and_from_python(value: Any) -> None:
    assert parse_literal(repr(value)) == value
    assert parse_json_or_literal(json.dumps(value)) == value
    assert json_end(f"x{json.dumps(value)}", 1) == 1 + len(json.dumps(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "f(1)",
        "{'a': it}",
        "{'a': 'it''s'}",
        "{'a': 'x' 'y'}",
        "{'a': 1, 'a': 2}",
        "{'a': (1, 2)}",
        "{'a', 'b'}",
        "{1: 2}",
        "{**{}}",
        "{'a': b'x'}",
        "{'a': f'x'}",
        "{'a': 1 + 2}",
        "{'a': - - 1}",
        "{'a': -'b'}",
        "{'a': 1e999}",
        "{'a': 1j}",
        "{'a': '\\d'}",
        "{'a': '\\ud800'}",
        "{'a': true}",
        "{'a': +1}",
        "{'a': 0x10}",
        "'''a'''",
        "'two\nlines'",
        "'\\ud83d\\ude00'",
        "{'a':\u00a01}",
        "{'a': 1,}",
        "['a',]",
        "{'a': 1} # one",
        "{'a': 1}\n{'b': 1}",
        "{'a': " + "9" * 5000 + "}",
        "[" * 65 + "]" * 65,
        "'" + "x" * MAX_LITERAL_CHARS + "'",
        "'\0'",
    ],
)
def test_what_is_no_json_value_or_may_mean_two_is_not_read(text: str) -> None:
    with pytest.raises(PythonicError):
        parse_literal(text)


def test_a_text_that_is_neither_is_explained_as_json() -> None:
    with pytest.raises(StrictJsonError, match="not JSON: Expecting"):
        parse_json_or_literal("{'a': it}")


@pytest.mark.parametrize("piece", ["[", "{'a':", "-", "'", '"', "\\\n", "'a' ", "1,", " ", "(", "'''", "#\n", "\n "])
def test_a_long_hostile_literal_is_decided_at_once(piece: str) -> None:
    for size in (MAX_LITERAL_CHARS, 1_000_000):
        begin = time.process_time()
        with pytest.raises(StrictJsonError):
            parse_json_or_literal("[" + piece * (size // len(piece)))
        assert time.process_time() - begin < 1
