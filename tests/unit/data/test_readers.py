import json
from pathlib import Path

import pytest

from orchestrator.config import SourceConfig
from orchestrator.data.readers import MAX_RAW_CHARS, RawRow, detect_format, read_source, resolve_path
from orchestrator.data.rejection import RowRejected
from orchestrator.errors import DataError
from orchestrator.records import JsonObject, QuarantinedRow

ROWS: list[JsonObject] = [{"messages": [{"role": "user", "content": f"é {number}"}]} for number in range(3)]


def read(path: Path, *, limit: int | None = None) -> list[RawRow | QuarantinedRow]:
    return list(read_source(SourceConfig(path=path.name, limit=limit), base_dir=path.parent))


def values(rows: list[RawRow | QuarantinedRow]) -> list[JsonObject]:
    return [row.value for row in rows if isinstance(row, RawRow)]


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
        ("object.json", json.dumps({"version": 1, "data": ROWS})),
        ("lines.json", lines(ROWS)),
    ],
)
def test_every_layout_gives_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    rows = read(path)
    assert values(rows) == ROWS
    assert {row.source for row in rows} == {name}


def test_a_json_file_of_one_conversation_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(ROWS[0], indent=2))
    assert values(read(path)) == [ROWS[0]]


def test_line_numbers_count_blank_lines_and_limit_counts_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"a": 1}\n\nbroken\n{"a": 2}\n')
    assert [row.line for row in read(path)] == [2, 4, 5]
    assert [type(row) for row in read(path, limit=2)] == [RawRow, QuarantinedRow]


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x\u2028y\u0085z"}\n', encoding="utf-8")
    assert values(read(path)) == [{"a": "x\u2028y\u0085z"}]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "malformed_json"),
        ("{'a': 1}", "malformed_json"),
        ('{"a": NaN}', "malformed_json"),
        ('{"a": 1e999}', "malformed_json"),
        ('{"a": 1, "a": 2}', "malformed_json"),
        ('{"a": "\0"}', "malformed_json"),
        ('{"a": ' + "1" * 5000 + "}", "malformed_json"),
        ('{"a": 1} {"a": 2}', "malformed_json"),
        ('{"a": "\\udc00"}', "invalid_unicode"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested_too_deeply"),
        ("[" * 100_000, "nested_too_deeply"),
        ("[1]", "row_not_an_object"),
        ("null", "row_not_an_object"),
        ('"text"', "row_not_an_object"),
    ],
)
def test_a_bad_line_is_quarantined_and_its_neighbours_are_read(tmp_path: Path, bad: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 0}}\n{bad}\n{{"a": 1}}\n')
    first, refused, last = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.source, refused.line, refused.reason) == ("rows.jsonl", 2, reason)
    assert refused.raw.startswith(bad[:100])
    assert values([first, last]) == [{"a": 0}, {"a": 1}]


@pytest.mark.parametrize("bad", ["NaN", '{"a": 1, "a": 2}', '{"a": "\\ud800"}', "7", "9" * 5000])
def test_a_bad_element_of_a_json_array_is_quarantined(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f'[{{"a": 0}}, {bad}, {{"a": 1}}]')
    first, refused, last = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert refused.line == 2
    assert values([first, last]) == [{"a": 0}, {"a": 1}]


def test_a_very_long_line_is_read_and_its_quarantined_text_is_cut(tmp_path: Path) -> None:
    path, size = tmp_path / "rows.jsonl", 8_000_000
    path.write_text(f'{{"a": "{"x" * size}"}}\n{{"a": "{"x" * size}\n')
    good, refused = read(path)
    assert isinstance(good, RawRow)
    assert len(good.value["a"]) == size
    assert isinstance(refused, QuarantinedRow)
    assert MAX_RAW_CHARS < len(refused.raw) < MAX_RAW_CHARS + 100


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "the file is empty"),
        ("bom.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("blank.jsonl", b"\n \n", "holds no rows"),
        ("none.json", b"[]", "holds no rows"),
        ("latin.jsonl", '{"a": "é"}'.encode("latin-1"), "latin.jsonl:1: the text is not UTF-8"),
        ("latin.json", '["é"]'.encode("latin-1"), "not UTF-8"),
        ("utf16.jsonl", '{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ("utf16le.json", '{"a": 1}'.encode("utf-16-le"), "not UTF-8"),
        ("broken.json", b'[{"a": 1},', "not JSON"),
        ("blank.json", b"\n \n", "not JSON"),
        ("deep.json", b"[" * 100_000, "nested deeper"),
        ("number.json", b"3", "no single list"),
        ("lists.json", b'{"a": [], "b": []}', "no single list"),
        ("rows.csv", b"a,b", "'.csv' is not known"),
        ("rows", b"{}", "'(none)' is not known"),
    ],
)
def test_an_unreadable_file_is_one_error_that_names_it_and_the_fix(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name) as caught:
        read(path)
    assert message in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("path", "message"), [("absent.jsonl", "does not exist"), (".", "folder"), ("a\0b", "does not exist")]
)
def test_a_path_that_is_no_file_is_an_error(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_source(SourceConfig(path=path), base_dir=tmp_path))


def test_paths_are_relative_to_the_base_absolute_or_under_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_path("a/b.json", base_dir=tmp_path) == tmp_path / "a/b.json"
    assert resolve_path("/a/b.json", base_dir=tmp_path) == Path("/a/b.json")
    assert resolve_path("~/b.json", base_dir=tmp_path) == Path("/home/someone/b.json")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"conversations": [{"from": "human"}]}, "sharegpt"),
        ({"conversations": [{"role": "user"}]}, "messages"),
        ({"messages": [{"from": "human"}], "conversations": None}, "sharegpt"),
        ({"messages": []}, "messages"),
        ({"conversations": []}, "sharegpt"),
    ],
)
def test_format_is_told_by_the_first_turn(row: JsonObject, expected: str) -> None:
    assert detect_format(row) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "unknown_format"),
        ({"text": "hello"}, "unknown_format"),
        ({"messages": [], "conversations": []}, "unknown_format"),
        ({"messages": ["hello"]}, "unknown_format"),
        ({"messages": [{"speaker": "user"}]}, "unknown_format"),
        ({"messages": "hello"}, "malformed_field"),
    ],
)
def test_a_row_of_no_known_format_is_rejected(row: JsonObject, reason: str) -> None:
    with pytest.raises(RowRejected) as caught:
        detect_format(row)
    assert caught.value.reason == reason
