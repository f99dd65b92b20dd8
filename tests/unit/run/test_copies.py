"""Data files and bases in a bucket, on moto's server."""

from pathlib import Path

import pytest
from s3_server import S3Server

from orchestrator.config.data import SourceConfig
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import DataError, StorageRefusedError
from orchestrator.data.read.sources import RawRow, read_source
from orchestrator.models.base import base_folder, load_tokenizer
from orchestrator.run.bucket import Bucket
from orchestrator.run.copies import local_copy

pytest.importorskip("moto.server")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    local_copy.cache_clear()


def test_rows_are_read_from_a_bucket_and_named_by_its_url(server: S3Server, tmp_path: Path) -> None:
    Bucket(server.url("data")).put("rows.jsonl", b'{"messages": []}\n')
    source = SourceConfig(path=server.url("data/rows.jsonl"))
    rows = list(read_source(source, base_dir=tmp_path))
    assert rows == [RawRow(source.path, 1, '{"messages": []}')]


def test_what_changed_in_the_bucket_is_read_anew_by_the_next_process(server: S3Server) -> None:
    bucket, url = Bucket(server.url("data")), server.url("data/changing.jsonl")
    bucket.put("changing.jsonl", b"1\n")
    first = local_copy(url)
    bucket.put("changing.jsonl", b"one\n")
    assert local_copy(url) == first, "a process sees one version"
    local_copy.cache_clear()
    assert (first.read_text(), local_copy(url).read_text()) == ("1\n", "one\n")


def test_a_base_is_read_from_a_bucket(server: S3Server, model_folder: Path) -> None:
    bucket = Bucket(server.url("bases/small"))
    for path in model_folder.iterdir():
        bucket.put_file(path.name, path)
    folder = base_folder(ModelConfig(base=server.url("bases/small")))
    assert folder.name == "small"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in model_folder.iterdir()
    }
    assert load_tokenizer(folder, trust_remote_code=False)("a")["input_ids"]


def test_what_is_not_there_is_named(server: S3Server) -> None:
    with pytest.raises(DataError, match="there is no such file or folder in the bucket"):
        local_copy(server.url("data/none.jsonl"))
    with pytest.raises(StorageRefusedError, match="there is no such bucket"):
        local_copy(server.url("data/none.jsonl", bucket="nowhere"))
