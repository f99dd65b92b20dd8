import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.read import json_stream
from orchestrator.data.read.json_stream import BrokenJsonError, JsonStream

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


def stream(text: str, chunk_chars: int = 1) -> JsonStream:
    return JsonStream(io.StringIO(text, newline=""), chunk_chars)


def read_all(reader: JsonStream) -> list[str]:
    elements = list(reader.elements())
    reader.end()
    return elements


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 0, 2]), st.booleans())
def test_a_list_gives_its_elements_whatever_the_chunks(
    values: list[Any], chunk_chars: int, indent: int | None, ascii_only: bool
) -> None:
    reader = stream(f" {json.dumps(values, indent=indent, ensure_ascii=ascii_only)}\r\n", chunk_chars)
    assert [json.loads(text) for text in read_all(reader)] == values


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 2]))
def test_an_object_gives_its_members_whatever_the_chunks(
    value: dict[str, Any], chunk_chars: int, indent: int | None
) -> None:
    reader = stream(json.dumps(value, indent=indent), chunk_chars)
    assert {name: json.loads(reader.value()) for name in reader.keys()} == value  # noqa: SIM118
    reader.end()


@pytest.mark.parametrize("number", ["1e5", "1E+10", "-0.25e-3", "10.5", "0"])
def test_a_number_is_never_cut_at_the_end_of_a_chunk(number: str) -> None:
    for chunk_chars in range(1, 9):
        assert list(stream(f"[{number}, {number}]", chunk_chars).elements()) == [number, number]
        assert stream(number, chunk_chars).value() == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting '[' at line 1, column 1; the text ends too early"),
        ("[", "Expecting value at line 1, column 2; the text ends too early"),
        ("[1", "Expecting ',' at line 1, column 3; the text ends too early"),
        ("[1,", "the text ends too early"),
        ('[1,\n "ab', "Unterminated string starting at line 2, column 2; the text ends too early"),
        ("[1\n,\n2,]", "Expecting value at line 3, column 3"),
        ("[1 2]", "Expecting ',' at line 1, column 4"),
        ("[1]\n]", "Extra data at line 2, column 1"),
        ("[tru]", "Expecting value at line 1, column 2"),
        ("[" * 100_000, "nested deeper than 64 levels at line 1, column 2"),
    ],
)
@pytest.mark.parametrize("chunk_chars", [1, 3, 1_000_000])
def test_a_broken_list_is_refused_with_its_place(text: str, message: str, chunk_chars: int) -> None:
    reader = stream(text, max(chunk_chars, len(text) // 100))
    with pytest.raises(BrokenJsonError) as caught:
        read_all(reader)
    assert message in str(caught.value)


def test_a_value_beyond_the_limit_is_refused_before_it_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "MAX_VALUE_CHARS", 100)
    text = io.StringIO('[1, "' + "x" * 100_000)
    reader = JsonStream(text, 10)
    with pytest.raises(BrokenJsonError, match="longer than 100 characters"):
        list(reader.elements())
    assert text.tell() < 1000
    with pytest.raises(BrokenJsonError, match="longer than 100 characters"):
        stream('"' + "x" * 150 + '"', 1000).value()
    assert len(stream('"' + "x" * 98 + '"', 1000).value()) == 100
