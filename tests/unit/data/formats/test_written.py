import json
import time
from typing import Any

import pytest
from conversation_strategies import json_values as values
from hypothesis import given

from orchestrator.data.formats.written import (
    MAX_LITERAL_CHARS,
    NotALiteralError,
    json_end,
    json_values,
    parse_json_or_literal,
    parse_literal,
    split_reasoning,
    take_calls,
)
from orchestrator.data.rejection import RowRejected
from orchestrator.notation.strict_json import StrictJsonError


@given(values)
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
    with pytest.raises(NotALiteralError):
        parse_literal(text)


def test_a_text_that_is_neither_is_explained_as_json() -> None:
    with pytest.raises(StrictJsonError, match="not JSON: Expecting"):
        parse_json_or_literal("{'a': it}")


def test_values_one_after_the_other_end_where_something_else_begins() -> None:
    assert json_values(' {"a": 1}\n\n[2], {"b": 3} and more', 0) == ([{"a": 1}, [2], {"b": 3}], 24)
    assert json_values("and more", 0) == ([], 0)


def test_a_think_block_without_an_end_is_refused() -> None:
    with pytest.raises(RowRejected, match="turn 2: the <think> block has no end"):
        split_reasoning(" <think>Hm.", "turn 2")


@pytest.mark.parametrize("text", ["Use <think> and </think>.", "<tool_call>{}</tool_call></think>", " plain "])
def test_a_text_that_has_no_leading_block_is_left_as_it_is(text: str) -> None:
    assert split_reasoning(text, "turn 2") == (None, text)


def test_a_text_without_calls_is_left_as_it_is() -> None:
    assert take_calls(" plain\n", "<call>", lambda _, start: ([], start)) == (" plain\n", ())


@pytest.mark.parametrize("piece", ["[", "{'a':", "-", "'", '"', "\\\n", "'a' ", "1,", " ", "(", "'''", "#\n", "\n "])
def test_a_long_hostile_literal_is_decided_at_once(piece: str) -> None:
    for size in (MAX_LITERAL_CHARS, 1_000_000):
        begin = time.process_time()
        with pytest.raises(StrictJsonError):
            parse_json_or_literal("[" + piece * (size // len(piece)))
        assert time.process_time() - begin < 1
