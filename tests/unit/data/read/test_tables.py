import datetime
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator.config.schema import SourceConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject, QuarantinedRow
from orchestrator.data.read import tables
from orchestrator.data.read.sources import RawRow, parse_row, read_source
from orchestrator.data.read.tables import value_row
from orchestrator.data.rejection import RowRejected


def read(path: Path) -> list[RawRow | QuarantinedRow]:
    return list(read_source(SourceConfig(path=path.name), base_dir=path.parent))


def values(path: Path) -> list[JsonObject]:
    return [parse_row(row) for row in read(path) if isinstance(row, RawRow)]


def csv_file(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def parquet_file(folder: Path, table: pa.Table) -> Path:
    path = folder / "rows.parquet"
    parquet.write_table(table, path, row_group_size=2)
    return path


def test_csv_cells_are_text_but_for_json_and_empty_ones(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": 'say "é",\nplease'}]
    cell = json.dumps(turns, ensure_ascii=False, indent=1).replace('"', '""')
    path = csv_file(
        tmp_path, f'\ufeffid,messages,tags,note,output\r\n1,"{cell}",[],"[sic]","{{""a"": 1}}"\r\n\r\n,,,x,\r\n,,,,\r\n'
    )
    assert values(path) == [
        {"id": "1", "messages": turns, "tags": [], "note": "[sic]", "output": '{"a": 1}'},
        {"note": "x"},
    ]
    assert [row.line for row in read(path)] == [2, 9]


def test_a_csv_cell_of_turns_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "messages\n\"[{'role': 'user'}\"\n")
    (row,) = read(path)
    assert isinstance(row, RawRow)
    with pytest.raises(RowRejected, match="`messages` is not JSON") as caught:
        parse_row(row)
    assert caught.value.reason == "malformed_json"


def test_a_csv_cell_of_turns_may_be_a_list_that_python_printed(tmp_path: Path) -> None:
    (row,) = read(csv_file(tmp_path, "messages\n\"[{'role': 'user', 'content': None}]\"\n"))
    assert isinstance(row, RawRow)
    assert parse_row(row) == {"messages": [{"role": "user", "content": None}]}


@pytest.mark.parametrize(
    ("line", "detail"), [("1,2,3", "3 cells, the header 2"), ("1", "1 cells, the header 2"), ('"a,b"', "1 cells")]
)
def test_a_ragged_csv_row_is_refused_and_its_neighbours_are_read(tmp_path: Path, line: str, detail: str) -> None:
    path = csv_file(tmp_path, f"a,b\nx,y\n{line}\nv,w\n")
    _, refused, _ = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.line, refused.reason) == (3, "malformed_field")
    assert detail in refused.detail
    assert json.loads(refused.raw)
    assert values(path) == [{"a": "x", "b": "y"}, {"a": "v", "b": "w"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b,a\n1,2,3\n", "the column 'a' stands there twice"),
        (b",a,\n1,2,3\n", "the column '' stands there twice"),
        (b"a;b\n1;2\n", "separated by a semicolon"),
        (b"a\tb\n1\t2\n", "separated by a tab"),
        (b"a,b\n", "holds no rows"),
        (b"\n,\n \n", "holds no rows"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "rows.csv:3: not CSV: unexpected end of data"),
        (b'a,b\n1,"2"x\n', "rows.csv:2: not CSV"),
        (b"a,b\r1,2\r3,4\r", "rows.csv:1: not CSV"),
        ("a,b\n1,é\n".encode("latin-1"), "rows.csv:2: the text is not UTF-8"),
        ("a,b\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_broken_csv_file_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value)
    assert caught.value.fix


def test_a_csv_cell_may_be_long_but_a_quote_never_closed_swallows_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv_file(tmp_path, f"a\n{'x' * 1_000_000}\n")
    assert values(path) == [{"a": "x" * 1_000_000}]
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 1000)
    for row in ('"' + "y\n" * 2000, '"' + "y" * 2000, ",".join('"y\n"' for _ in range(500))):
        csv_file(tmp_path, f"a\nx\n{row}")
        with pytest.raises(DataError, match=r"rows.csv:3: the row is longer than 1000 bytes"):
            read(path)


def test_nested_parquet_columns_become_objects_and_lists(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "n": number}], "tools": None, "x": 0.5} for number in range(5)]
    table = pa.Table.from_pylist(rows, schema=None)
    path = parquet_file(tmp_path, table)
    assert values(path) == rows
    assert [row.line for row in read(path)] == [1, 2, 3, 4, 5]


def test_arrow_json_and_maps_become_the_values_they_stand_for(tmp_path: Path) -> None:
    call = pa.struct([("name", pa.string()), ("arguments", pa.json_())])
    schema = pa.schema([("calls", pa.list_(call)), ("env", pa.map_(pa.string(), pa.int64()))])
    texts = ['{"a": [1, null]}', '"text"', None, '{"a": 1, "a": 2}']
    calls = [[{"name": "f", "arguments": text}] for text in texts]
    storage = pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string())]))
    column = pa.array(calls, storage).cast(schema.field("calls").type)
    env = pa.array([[("k", 1)], None, [], [("k", 1)]], schema.field("env").type)
    path = parquet_file(tmp_path, pa.Table.from_arrays([column, env], schema=schema))
    assert values(path) == [
        {"calls": [{"name": "f", "arguments": {"a": [1, None]}}], "env": {"k": 1}},
        {"calls": [{"name": "f", "arguments": "text"}], "env": None},
        {"calls": [{"name": "f", "arguments": None}], "env": {}},
    ]
    refused = read(path)[3]
    assert isinstance(refused, QuarantinedRow)
    assert (refused.line, refused.reason) == (4, "malformed_json")
    assert "stands twice" in refused.detail


def test_a_parquet_row_that_has_no_value_is_refused_alone(tmp_path: Path) -> None:
    text = pa.array([b"good", b"\xff", b"fine"]).view(pa.string())
    twice = pa.array([[], [], [("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()))
    found = read(parquet_file(tmp_path, pa.table({"a": text, "m": twice})))
    good, no_text, no_map = found
    assert isinstance(good, RawRow)
    assert isinstance(no_text, QuarantinedRow)
    assert isinstance(no_map, QuarantinedRow)
    assert [(row.line, row.reason) for row in (no_text, no_map)] == [(2, "not_utf8"), (3, "malformed_field")]


def test_nan_in_a_parquet_column_is_refused_as_in_json(tmp_path: Path) -> None:
    (row,) = read(parquet_file(tmp_path, pa.table({"a": [float("nan")]})))
    assert isinstance(row, RawRow)
    with pytest.raises(RowRejected, match="NaN is not JSON"):
        parse_row(row)


def test_a_broken_parquet_file_is_one_error(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, pa.table({"a": ["x" * 100] * 100}))
    content = path.read_bytes()
    broken = [b"PAR1", b"a,b\n1,2\n", content[: len(content) // 2], content[:8] + b"\xff" * 200 + content[208:]]
    for data in broken:
        path.write_bytes(data)
        with pytest.raises(DataError, match="the Parquet file is broken") as caught:
            read(path)
        assert str(path) in str(caught.value)
    parquet_file(tmp_path, pa.table({"a": pa.array([], pa.string())}))
    with pytest.raises(DataError, match="holds no rows"):
        read(path)
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(DataError, match="'a' stands there twice"):
        read(parquet_file(tmp_path, table))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC), "2024-05-01T12:00:00+00:00"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("12.50"), 12.5),
        (Decimal("12.00"), 12),
        ("é".encode(), "é"),
    ],
)
def test_values_that_json_lacks_are_written_as_what_they_mean(value: Any, expected: Any) -> None:
    found = value_row(3, {"a": [value]})
    assert found.refusal is None
    assert isinstance(found.content, str)
    assert (found.line, json.loads(found.content)) == (3, {"a": [expected]})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xd8", "unsupported_content"),
        (object(), "unsupported_content"),
        ({datetime.date(2024, 5, 1): 1}, "malformed_field"),
        ("x" * (16 * 2**20), "line_too_long"),
    ],
)
def test_values_without_a_meaning_in_json_refuse_the_row(value: Any, reason: str) -> None:
    found = value_row(3, {"id": "kept", "a": value})
    assert found.refusal is not None
    assert found.refusal.reason == reason
    assert "kept" in found.content
