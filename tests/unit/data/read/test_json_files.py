import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_rows import parsed, raw, read

from orchestrator.config.schema import SourceConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject, QuarantinedRow
from orchestrator.data.read import json_files
from orchestrator.data.read.json_files import BrokenJsonError, JsonStream
from orchestrator.data.read.sources import read_source

ROWS: list[JsonObject] = [{"messages": [{"role": "user", "content": f"é {number}"}]} for number in range(3)]


def lines(rows: list[JsonObject]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", lines(ROWS)),
        ("rows.ndjson", lines(ROWS) + "\n"),
        ("rows.JSONL", lines(ROWS).replace("\n", "\r\n\r\n")),
        ("bom.jsonl", "\ufeff" + lines(ROWS)),
        ("list.json", json.dumps(ROWS, indent=2)),
        ("bom.json", "\ufeff" + json.dumps(ROWS)),
        ("object.json", json.dumps({"version": 1, "data": ROWS, "license": {"a": 1}}, indent=1)),
        ("one_line_object.json", json.dumps({"data": ROWS})),
        ("list_of_rows_called_conversations.json", json.dumps({"conversations": ROWS}, indent=2)),
        ("list_of_rows_called_messages.json", json.dumps({"messages": ROWS})),
        ("list_of_rows_called_conversation.json", json.dumps({"conversation": ROWS})),
        ("compact.json", '{"data": [\n' + lines(ROWS).replace("\n", ",\n") + "\n]}"),
        ("lines.json", lines(ROWS)),
        ("crlf_lines.json", "\n" + lines(ROWS).replace("\n", "\r\n")),
    ],
)
@pytest.mark.parametrize("is_gzipped", [False, True])
def test_every_layout_gives_the_same_rows(tmp_path: Path, name: str, text: str, is_gzipped: bool) -> None:
    path = tmp_path / (name + ".gz" * is_gzipped)
    path.write_bytes(gzip.compress(text.encode()) if is_gzipped else text.encode())
    assert read(path) == ROWS
    assert {row.source for row in raw(path)} == {path.name}


@pytest.mark.parametrize(
    "row",
    [
        ROWS[0],
        {"messages": [], "id": 1},
        {"conversations": [{"from": "human", "value": "x"}], "tools": "[]"},
        {"conversations": [{"from": "gpt", "value": "x", "input": "y"}]},
        {"question": [[{"role": "user", "content": "x"}]], "function": [{"name": "f"}]},
        {"query": "x", "tools": "[]", "answers": "[]"},
        {"instruction": "x", "output": "y"},
        {"conversation": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"session": [{"jsonrpc": "2.0", "id": 1, "method": "initialize"}, {"role": "user", "content": "x"}]},
        {"tools": [{"name": "f"}], "session": [{"role": "user", "content": "x"}]},
        {"messages": [{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]},
        {"contents": [{"role": "user", "parts": [{"text": "x"}]}], "tools": [{"functionDeclarations": []}]},
        {"request": {"messages": []}, "choices": [{"message": {}}]},
        {"chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "x"}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_of_one_row_is_one_row(tmp_path: Path, row: JsonObject, indent: int | None) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(row, indent=indent))
    assert read(path) == [row]


def test_the_conversations_of_a_file_of_results_are_its_rows(tmp_path: Path) -> None:
    runs = [{"id": number, "messages": [{"role": "user", "content": "x"}]} for number in range(2)]
    results = {"timestamp": "x", "info": {"n": 1}, "tasks": [{"id": "0"}], "simulations": runs}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert read(path) == runs


def test_a_bad_first_line_under_a_json_name_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"a": 0,\n{"a": 1}\n{"a": 2}\n')
    refused, *rest = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.line, refused.reason, refused.raw) == (1, "malformed_json", '{"a": 0,')
    assert rest == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("bad", ["NaN", '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "7", "9" * 5000, '["a"]'])
@pytest.mark.parametrize("document", ['[{{"a": 0}}, {}, {{"a": 1}}]', '{{"data": [{{"a": 0}}, {}, {{"a": 1}}]}}'])
def test_a_bad_element_of_a_list_is_quarantined(tmp_path: Path, bad: str, document: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(document.format(bad))
    first, refused, last = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.line, refused.raw) == (2, bad)
    assert [first, last] == [{"a": 0}, {"a": 1}]


PRETTY = json.dumps(ROWS[0], indent=2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("blank.json", b"\n \n", "holds no rows"),
        ("none.json", b"[]", "holds no rows"),
        ("no_data.json", b'{"data": []}', "holds no rows"),
        ("latin.json", '["é"]'.encode("latin-1"), "not UTF-8"),
        ("latin_object.json", '{"data": [\n"é"]}'.encode("latin-1"), "not UTF-8"),
        ("utf16le.json", '{"a": 1}'.encode("utf-16-le"), "not UTF-8"),
        ("broken.json", b'[{"a": 1},', "not JSON"),
        ("unclosed.json", b'[{"a": 1}, {"a": 2}', "line 1, column 20; the text ends too early (after 2 good rows)"),
        ("cut.json", b'[{"a": 1},\n{"a": "x', "line 2, column 7; the text ends too early (after 1 good row)"),
        ("stray.json", b'[{"a": 1}]\n]', "Extra data at line 2, column 1 (after 1 good row)"),
        ("two_lists.json", b'[{"a": 1}]\n[{"a": 2}]\n', "Extra data at line 2"),
        ("commas.json", b'{"a": 1},\n{"a": 2},\n', "Extra data at line 1, column 9"),
        ("cut_object.json", PRETTY[:40].encode(), "the text ends too early"),
        ("cut_list.json", b'{"data": [\n  {"a": 1},\n  {"a"', "line 3"),
        ("python.json", b"{'a': 1}", "not JSON: Expecting a key in double quotes at line 1, column 2"),
        ("deep.json", b"[" * 100_000, "nested deeper"),
        ("deep_object.json", b'{"a":' * 100_000, "nested deeper"),
        ("words.json", b"hello", "not JSON"),
        ("number.json", b"3", "no single list"),
        ("no_list.json", b'{"a": 1}', "no single list of rows (the object holds no lists)"),
        ("lists.json", b'{"a": [], "b": []}', "no single list of rows (the object holds 2 lists: 'a', 'b')"),
        ("lost.json", b'{"tools": "[]", "data": [{}]}', "`tools` stands beside the list of rows 'data'"),
        ("twice.json", b'{"data": [{}], "data": [{}]}', "the key 'data' stands twice"),
    ],
)
def test_a_broken_document_is_one_error_that_names_it_and_the_fix(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.fix


def test_good_elements_before_a_break_come_before_the_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS)[:-5])
    rows = read_source(SourceConfig(path=path.name), base_dir=tmp_path)
    assert [parsed(next(rows)), parsed(next(rows))] == ROWS[:2]
    with pytest.raises(DataError, match="after 2 good rows"):
        next(rows)
    assert read(path, limit=2) == ROWS[:2]


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
    monkeypatch.setattr(json_files, "MAX_VALUE_CHARS", 100)
    text = io.StringIO('[1, "' + "x" * 100_000)
    reader = JsonStream(text, 10)
    with pytest.raises(BrokenJsonError, match="longer than 100 characters"):
        list(reader.elements())
    assert text.tell() < 1000
    with pytest.raises(BrokenJsonError, match="longer than 100 characters"):
        stream('"' + "x" * 150 + '"', 1000).value()
    assert len(stream('"' + "x" * 98 + '"', 1000).value()) == 100
