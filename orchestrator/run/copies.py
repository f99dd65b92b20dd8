"""Data files and bases that lie in a bucket, as copies in the user's cache on this machine."""

import shutil
import uuid
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.config.storage import is_bucket
from orchestrator.core.errors import DataError
from orchestrator.core.files import digest_of, user_cache
from orchestrator.run.bucket import Bucket


def local_path(place: str) -> Path:
    """The path itself, or that of a copy of what a URL names; raises what `local_copy` does."""
    return local_copy(place) if is_bucket(place) else Path(place).expanduser()


@cache
def local_copy(url: str) -> Path:
    """The file or folder that a URL names, copied here. One process sees one version of it.

    What changed in the bucket is copied anew, which shows in sizes and times.

    Raises:
        DataError: If there is nothing.
        StorageRefusedError, StorageUnreachableError: If the bucket cannot be read.
    """
    bucket, name = Bucket(url), Path(urlsplit(url).path).name
    found = bucket.tree()
    if not found:
        bucket.require_there()
        where, fix = url.partition("?")[0], "Correct the URL; a pattern is read in folders of this machine alone"
        raise DataError("there is no such file or folder in the bucket", where=where, fix=fix)
    copies = user_cache() / "copies"
    place = copies / digest_of(url, found)[:16]
    if not place.exists():
        partial = copies / f".{uuid.uuid4().hex}"
        try:
            for key, _, _ in found:
                path = partial / name / key
                path.parent.mkdir(parents=True, exist_ok=True)
                bucket.append_to(key, path)
            if not place.exists():
                partial.replace(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place / name
