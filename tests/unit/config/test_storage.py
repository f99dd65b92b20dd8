import pytest
from pydantic import ValidationError

from orchestrator.config.schema import ResourcesConfig
from orchestrator.config.storage import below


@pytest.mark.parametrize(
    "place",
    [
        "runs",
        "/mnt/runs",
        "s3://bucket/runs",
        "s3://bucket",
        "s3://bucket/runs?region=eu-west-1&endpoint_override=http://127.0.0.1:5000",
        "gs://bucket/runs",
        "az://container/runs",
    ],
)
def test_a_folder_and_a_place_in_a_bucket_are_storage(place: str) -> None:
    assert ResourcesConfig(storage_path=place).storage_path == place


def test_a_slash_at_the_end_names_the_same_place() -> None:
    assert ResourcesConfig(storage_path="s3://bucket/runs/?region=a").storage_path == "s3://bucket/runs?region=a"


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("http://bucket/runs", "http:// is no storage"),
        ("s3://key:secret@bucket/runs", "a URL holds no keys; give them by AWS_ACCESS_KEY_ID"),
        ("s3://bucket/runs?access_key=abc", "'access_key' cannot be set in a URL of s3://; allowed there: region"),
        ("s3:///runs", "write it as s3://bucket/folder"),
        ("s3://bucket/runs#part", "write it as s3://bucket/folder"),
        ("az://container/runs?region=x", "allowed there: nothing"),
    ],
)
def test_what_is_no_storage_is_refused_with_what_would_be(place: str, what: str) -> None:
    with pytest.raises(ValidationError, match=what.replace("?", r"\?")):
        ResourcesConfig(storage_path=place)


def test_what_lies_below_a_place_is_named_without_its_query() -> None:
    assert below("s3://bucket/runs?region=a", "demo") == "s3://bucket/runs/demo"
