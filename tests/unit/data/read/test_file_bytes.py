import gzip
import io
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import DataError
from orchestrator.data.read import file_bytes
from orchestrator.data.read.file_bytes import MAX_LINE_BYTES, bounded_lines, open_bytes


@given(st.lists(st.binary(max_size=20)), st.booleans())
def test_lines_end_at_newlines_alone(parts: list[bytes], ends_with_newline: bool) -> None:
    parts = [part.replace(b"\n", b"\r") for part in parts]
    data = b"\n".join(parts) + (b"\n" if ends_with_newline else b"")
    lines = list(bounded_lines(io.BytesIO(data)))
    expected = data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]
    assert [line.data for line in lines] == expected
    assert [line.number for line in lines] == list(range(1, len(expected) + 1))
    assert not any(line.is_too_long for line in lines)


@pytest.mark.parametrize("end", [b"", b"\n", b"\nnext"])
def test_a_line_at_the_limit_is_whole_and_one_beyond_it_is_cut(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(file_bytes, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(file_bytes, "HEAD_BYTES", 10)
    at_limit, *_ = bounded_lines(io.BytesIO(b"x" * 100 + end))
    assert (at_limit.data, at_limit.num_bytes, at_limit.is_too_long) == (b"x" * 100, 100, False)
    beyond, *rest = bounded_lines(io.BytesIO(b"x" * 101 + end))
    assert (beyond.data, beyond.num_bytes, beyond.is_too_long) == (b"x" * 10, 101, True)
    assert [(line.number, line.data) for line in rest] == [(2, b"next")] * (end == b"\nnext")


def test_a_huge_line_under_gzip_takes_little_memory(tmp_path: Path) -> None:
    path, part = tmp_path / "rows.jsonl.gz", b"a" * 2**22
    path.write_bytes(gzip.compress(part, 1) * 40 + gzip.compress(b"\n{}\n"))
    tracemalloc.start()
    with open_bytes(path) as file:
        lines = list(bounded_lines(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(line.number, line.num_bytes, line.is_too_long) for line in lines] == [(1, 40 * 2**22, True), (2, 2, False)]
    assert peak < 3 * MAX_LINE_BYTES < 40 * 2**22


def test_gzip_that_expands_like_a_bomb_is_refused_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_bytes, "FREE_EXPANDED_BYTES", 2**22)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b"\0" * 2**26))
    sizes: list[int] = []
    tracemalloc.start()
    with open_bytes(path) as file, pytest.raises(DataError, match="zip bomb") as caught:
        sizes.extend(len(data) for data in iter(lambda: file.read(2**16), b""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    limit = max(2**22, 200 * path.stat().st_size)
    assert limit - 2**20 < sum(sizes) <= limit < 2**26
    assert peak < 2**22
    assert str(path) in str(caught.value)
    assert caught.value.fix


def test_gzip_may_shrink_any_amount_up_to_the_free_size(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"\0" * 2**22))
    assert path.stat().st_size * 200 < 2**22
    with open_bytes(path) as file:
        assert len(file.read()) == 2**22
