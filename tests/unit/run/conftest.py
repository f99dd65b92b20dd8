"""A bucket for tests."""

from collections.abc import Iterator

import pytest
from s3_server import CREDENTIALS, S3Server, running_s3


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with pytest.MonkeyPatch.context() as patch, running_s3() as running:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield running
