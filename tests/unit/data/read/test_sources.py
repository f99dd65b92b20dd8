import gzip
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from raw_rows import parsed, raw, read

from orchestrator.config.schema import SourceConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import QuarantinedRow
from orchestrator.data.read.sources import (
    MAX_RAW_CHARS,
    RawRow,
    file_name,
    quarantined,
    read_source,
    resolve_path,
    source_files,
)
from orchestrator.data.rejection import Reason


def test_line_numbers_count_blank_lines_and_limit_counts_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"a": 1}\n \t\r\nbroken\n{"a": 2}\n')
    assert [row.line for row in raw(path)] == [2, 4, 5]
    assert [type(row) for row in read(path, limit=2)] == [dict, QuarantinedRow]


def test_a_line_separator_inside_a_string_does_not_end_the_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "x\u2028y\u0085z"}\n', encoding="utf-8")
    assert read(path) == [{"a": "x\u2028y\u0085z"}]


def test_json_is_not_parsed_while_reading_and_rows_can_be_sent(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": NaN}\n')
    assert raw(path) == [RawRow("rows.jsonl", 1, '{"a": NaN}')]
    assert pickle.loads(pickle.dumps(raw(path))) == raw(path)


BAD_ROWS = [
    ("{", "malformed_json"),
    ("{'a': 1}", "malformed_json"),
    ('{"a": NaN}', "malformed_json"),
    ('{"a": 1e999}', "malformed_json"),
    ('{"a": 1, "a": 2}', "malformed_json"),
    ('{"a": "\0"}', "malformed_json"),
    ('{"a": ' + "1" * 5000 + "}", "malformed_json"),
    ('{"a": 1} {"a": 2}', "malformed_json"),
    ('{"a": 1},', "malformed_json"),
    ("\ufeff{}", "malformed_json"),
    ("\u00a0", "malformed_json"),
    ('{"a": "\\udc00"}', "invalid_unicode"),
    ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested_too_deeply"),
    ("[" * 100_000, "nested_too_deeply"),
    ("[1]", "row_not_an_object"),
    ("null", "row_not_an_object"),
    ('"text"', "row_not_an_object"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_bad_line_is_quarantined_and_its_neighbours_are_read(
    tmp_path: Path, bad: str, reason: str, name: str
) -> None:
    path = tmp_path / name
    path.write_text(f'{{"a": 0}}\n{bad}\n{{"a": 1}}\n', encoding="utf-8")
    first, refused, last = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.source, refused.line, refused.reason) == (name, 2, reason)
    assert refused.raw.startswith(bad[:100])
    assert [first, last] == [{"a": 0}, {"a": 1}]


@pytest.mark.parametrize("data", [b'{"a": "\xe9"}', b"\xff\xfe", b'{"a": "\xed\xa0\x80"}'])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_a_line_that_is_not_utf8_is_quarantined_alone(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"a": 0}\n' + data + b'\n{"a": 1}\n')
    first, refused, last = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.line, refused.reason) == (2, "not_utf8")
    assert "\\x" in refused.raw
    assert [first, last] == [{"a": 0}, {"a": 1}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz"])
def test_a_line_of_more_than_16_mib_is_quarantined_alone(tmp_path: Path, name: str) -> None:
    path, size = tmp_path / name, 40_000_000
    data = b'{"a": 0}\n{"a": "' + b"a" * size + b'"}\n{"a": 1}'
    path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    first, refused, last = read(path)
    assert isinstance(refused, QuarantinedRow)
    assert (refused.line, refused.reason) == (2, "line_too_long")
    assert refused.detail == f"the line has {size + 9} bytes, more than 16777216"
    assert MAX_RAW_CHARS < len(refused.raw) < MAX_RAW_CHARS + 100
    assert [first, last] == [{"a": 0}, {"a": 1}]


def test_a_long_line_is_read_and_its_quarantined_text_is_cut(tmp_path: Path) -> None:
    path, size = tmp_path / "rows.jsonl", 8_000_000
    path.write_text(f'{{"a": "{"x" * size}"}}\n{{"a": "{"x" * size}\n')
    good, refused = read(path)
    assert isinstance(good, dict)
    assert len(good["a"]) == size
    assert isinstance(refused, QuarantinedRow)
    assert refused.raw.endswith(f" ... ({size + 7} characters in all)")
    assert len(refused.raw) < MAX_RAW_CHARS + 100


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "the file is empty"),
        ("empty.parquet", b"", "the file is empty"),
        ("empty.jsonl.gz", b"", "the file is empty"),
        ("nothing.jsonl.gz", gzip.compress(b""), "the file is empty"),
        ("bom.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("blank.jsonl", b"\n \n", "holds no rows"),
        ("blank.jsonl.gz", gzip.compress(b"\n\n\n"), "holds no rows"),
        ("utf16.jsonl", '{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ("utf16.json.gz", gzip.compress('{"a": 1}'.encode("utf-16")), "not UTF-8"),
        ("zeros.jsonl", b"\0" * 100, "not UTF-8"),
        ("rows.tsv", b"a\tb", "'.tsv' is not known"),
        ("rows", b"{}", "'(none)' is not known"),
        ("rows.gz", gzip.compress(b"{}"), "'.gz' is not known"),
        ("rows.parquet.gz", gzip.compress(b"PAR1"), "'.parquet.gz' is not known"),
        ("text.jsonl.gz", b'{"a": 1}\n', "gzip data is broken"),
        ("gzip.jsonl", gzip.compress(b"{}"), "compressed with gzip"),
        ("twice.jsonl.gz", gzip.compress(gzip.compress(b"{}")), "compressed with gzip"),
        ("zip.jsonl", b"PK\x03\x04\x14\x00", "zip archive"),
        ("table.json", b"PAR1\x15\x04", "the file is Parquet"),
    ],
)
def test_an_unreadable_file_is_one_error_that_names_it_and_the_fix(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("damage", ["cut", "flipped", "followed"])
def test_damaged_gzip_gives_the_rows_before_it_and_then_one_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.jsonl.gz"
    # Noise compresses badly, so that the damage lies within the rows.
    noise = random.Random(0)
    text = "".join(f'{{"a": "{noise.randbytes(500).hex()}"}}\n' for _ in range(1000))
    data = gzip.compress(text.encode())
    middle = len(data) // 2
    damaged = {
        "cut": data[:middle],
        "flipped": data[:middle] + b"\0" * 4096 + data[middle + 4096 :],
        "followed": data + b"no gzip",
    }
    path.write_bytes(damaged[damage])
    found: list[RawRow | QuarantinedRow] = []
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz:\d+: the gzip data is broken or cut short") as caught:
        found.extend(read_source(SourceConfig(path=path.name), base_dir=tmp_path))
    line = int(str(caught.value).split(".gz:")[1].split(":")[0])
    assert 300 < len(found) <= line


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent.jsonl", "does not exist"),
        (".", "folder"),
        ("folder.jsonl", "folder"),
        ("a\0b.jsonl", "does not exist"),
        ("x" * 5000 + ".jsonl", "cannot be opened"),
        ("/dev/null", "device or pipe"),
        ("pipe.jsonl", "device or pipe"),
        ("dangling.jsonl", "does not exist"),
        ("*.csv", "no file matches"),
        ("absent/*.jsonl", "no file matches"),
        ("a**b/*.jsonl", "no pattern of files"),
        ("folder*", "no file matches"),
    ],
)
def test_a_path_that_is_no_file_is_an_error(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to("nowhere")
    with pytest.raises(DataError, match=message) as caught:
        source_files(SourceConfig(path=path), base_dir=tmp_path)
    assert caught.value.fix


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    path.chmod(0)
    if os.access(path, os.R_OK):  # the administrator may read anything
        monkeypatch.setattr(Path, "open", _forbidden)
    with pytest.raises(DataError, match=r"cannot be opened.*Permission denied"):
        source_files(SourceConfig(path=path.name), base_dir=tmp_path)


def _forbidden(path: Path, *_: Any) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_paths_are_relative_to_the_base_absolute_or_under_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_path("a/b.json", base_dir=tmp_path) == tmp_path / "a/b.json"
    assert resolve_path("/a/b.json", base_dir=tmp_path) == Path("/a/b.json")
    assert resolve_path("~/b.json", base_dir=tmp_path) == Path("/home/someone/b.json")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    base = tmp_path / "[base]"
    for name in ("b.jsonl", "a.jsonl", ".hidden.jsonl", "in/deep/c.jsonl", "in/.cache/d.jsonl", "e.json", "x[1].jsonl"):
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"messages": [], "name": name}) + "\n")
    return base


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl", "x[1].jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("?.json*", ["a.jsonl", "b.jsonl", "e.json"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "in/deep/c.jsonl", "x[1].jsonl"]),
        ("in/**/*.jsonl", ["in/deep/c.jsonl"]),
        ("in/.c*/*", ["in/.cache/d.jsonl"]),
        (".h*", [".hidden.jsonl"]),
        ("x[1].jsonl", ["x[1].jsonl"]),
    ],
)
def test_a_pattern_means_its_files_in_order(tree: Path, pattern: str, names: list[str]) -> None:
    source = SourceConfig(path=pattern)
    files = source_files(source, base_dir=tree)
    assert files == [tree / name for name in names]
    assert [file_name(file, source, base_dir=tree) for file in files] == names
    rows = list(read_source(source, base_dir=tree))
    assert [row.source for row in rows] == names
    assert [parsed(row) for row in rows] == [{"messages": [], "name": name} for name in names]
    assert [row.source for row in read_source(SourceConfig(path=pattern, limit=1), base_dir=tree)] == names[:1]


def test_a_pattern_may_be_absolute_or_above_the_base(tree: Path) -> None:
    absolute = str(tree.parent / "*" / "?.jsonl")
    assert [row.source for row in read_source(SourceConfig(path=absolute), base_dir=tree)] == ["a.jsonl", "b.jsonl"]
    above = [row.source for row in read_source(SourceConfig(path="../deep/c.*"), base_dir=tree / "in/deep")]
    assert above == ["../deep/c.jsonl"]


def test_a_pattern_that_meets_a_file_of_another_type_is_refused(tree: Path) -> None:
    (tree / "README.md").write_text("rows")
    with pytest.raises(DataError, match=r"README\.md: the file type '\.md' is not known"):
        source_files(SourceConfig(path="*"), base_dir=tree)


@pytest.mark.parametrize("path", ["synthetic", "hub:owner/name"])
def test_the_generator_and_the_hub_have_no_files(tmp_path: Path, path: str) -> None:
    assert source_files(SourceConfig(path=path), base_dir=tmp_path) == []


def test_the_generator_has_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not raw rows"):
        read_source(SourceConfig(path="synthetic"), base_dir=tmp_path)


def test_a_quarantined_row_repeats_what_stood_there() -> None:
    row = quarantined(RawRow("a.csv", 3, {"x": "é"}), Reason.UNKNOWN_FORMAT, "why")
    expected = QuarantinedRow(source="a.csv", line=3, reason="unknown_format", detail="why", raw='{"x": "é"}')
    assert row == expected


@pytest.mark.skipif("ORCHESTRATOR_PUBLIC_DATA" not in os.environ, reason="ORCHESTRATOR_PUBLIC_DATA names no folder")
@pytest.mark.parametrize(
    ("name", "num_rows", "field"),
    [
        ("glaive_toolcall_en_demo.json", 300, "conversations"),
        ("reason_tool_use_demo_50.jsonl", 50, "messages"),
        ("bfcl_simple_python.jsonl", 400, "question"),
        ("xstest_prompts.csv", 450, "prompt"),
    ],
)
def test_published_files_are_read_whole(name: str, num_rows: int, field: str) -> None:
    rows = read(Path(os.environ["ORCHESTRATOR_PUBLIC_DATA"]) / name)
    assert len(rows) == num_rows
    assert all(isinstance(row, dict) and row[field] for row in rows)


def hub_source(folder: Path, **settings: Any) -> SourceConfig:
    # The loader of hub data sets also takes a folder: all but the fetching is the same.
    return SourceConfig(path=f"hub:{folder}", **settings)


def test_rows_of_a_data_set_are_read_by_part_and_limit(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = [{"id": number, "messages": [{"role": "user", "content": "x"}]} for number in range(4)]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    parquet.write_table(pa.Table.from_pylist(rows[:1]), folder / "test.parquet")
    found = list(read_source(hub_source(folder, limit=3), base_dir=tmp_path))
    assert [parsed(row) for row in found] == rows[:3]
    assert [(row.source, row.line) for row in found] == [(f"hub:{folder}", place) for place in (1, 2, 3)]
    assert len(list(read_source(hub_source(folder, part="test"), base_dir=tmp_path))) == 1


@pytest.mark.parametrize(
    ("settings", "message", "fix"),
    [
        ({"part": "dev"}, "Bad split: dev", "Correct subset, part or revision"),
        ({"subset": "none"}, "'none' not found", "Correct subset, part or revision"),
    ],
)
def test_a_data_set_without_the_part_is_one_error(
    tmp_path: Path, settings: dict[str, str], message: str, fix: str
) -> None:
    parquet.write_table(pa.table({"a": [1]}), tmp_path / "train.parquet")
    source = hub_source(tmp_path, **settings)
    with pytest.raises(DataError) as caught:
        list(read_source(source, base_dir=tmp_path))
    assert str(caught.value).startswith(f"{source.path}: the data set cannot be read from the hub: ")
    assert message in str(caught.value)
    assert caught.value.fix is not None
    assert fix in caught.value.fix


def test_a_data_set_that_cannot_be_fetched_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hub:owner/name: the data set cannot be read") as caught:
        list(read_source(SourceConfig(path="hub:owner/name"), base_dir=tmp_path))
    assert caught.value.fix is not None
    assert "Connect to the network" in caught.value.fix
    with pytest.raises(DataError, match="Check the id"):
        list(read_source(hub_source(tmp_path / "absent"), base_dir=tmp_path))


def test_a_broken_file_of_a_data_set_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match="the data set cannot be read"):
        list(read_source(hub_source(tmp_path), base_dir=tmp_path))
