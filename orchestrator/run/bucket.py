"""A place in a bucket: the door to pyarrow's file systems, with retries and errors of this project."""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from orchestrator.core.errors import StorageRefusedError, StorageUnreachableError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

RETRY_S = 120.0
"""How long one request is repeated while the storage is unreachable, overloaded or in error."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Between two attempts; each pause is about twice the one before."""
PIECE = 8 * 1024 * 1024
"""Bytes that are sent or read at once."""
REFUSALS = (
    (r"NO_SUCH_BUCKET|Bucket '.*' not found|NoSuchBucket|ContainerNotFound", "there is no such bucket",
     "Make it, or name another in resources.storage_path"),
    (r"HTTP status 301|PermanentRedirect|AuthorizationHeaderMalformed|IllegalLocationConstraint",
     "the bucket is in another region", "Add ?region=... to resources.storage_path"),
    (r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|"
     r"EXPIRED_TOKEN|ExpiredToken|MISSING_AUTHENTICATION_TOKEN|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|"
     r"AuthenticationFailed|AuthorizationFailure|Could not create the OAuth2 access token",
     "the storage refuses access", "Give credentials that may list, read, write and delete there: by "
     "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or the machine's role (docs/cluster.md)"),
)  # fmt: skip
"""What no repetition mends: how the libraries say it, what it means, and what to do."""

Result = TypeVar("Result")


class Stored(NamedTuple):
    """An object: its key below the place, and when it was written, by the storage's own clock, in seconds."""

    key: str
    written_s: float


def _open_file_system(url: str) -> tuple["FileSystem", str]:
    from pyarrow.fs import AzureFileSystem, FileSystem

    parts = urlsplit(url)
    if parts.scheme == "az":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise StorageRefusedError("no account is named", where=url, fix="Set AZURE_STORAGE_ACCOUNT to its name")
        key = os.environ.get("AZURE_STORAGE_KEY")
        return AzureFileSystem(account, account_key=key), f"{parts.netloc}{parts.path}"
    delayed = "" if parts.scheme != "s3" else ("&" if parts.query else "?") + "allow_delayed_open=true"
    file_system, path = FileSystem.from_uri(url + delayed)  # with it, a small object is one request
    return file_system, path


class Bucket:
    """Objects below a URL such as `s3://bucket/runs/demo?region=eu-west-1`. Each appears whole, or not at all.

    Every method repeats what the storage cannot do just now, for `patience_s` at most.

    Raises:
        StorageRefusedError: From every method, if bucket, region or credentials are wrong.
        StorageUnreachableError: From every method, if it does not answer in time.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.patience_s = RETRY_S
        self._opened: tuple[FileSystem, str] | None = None

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self._try(lambda files, root: _write(files, _path(root, key), [data]))

    def put_file(self, key: str, path: Path, *, start: int = 0, size: int | None = None) -> None:
        """Write bytes of a file as an object."""
        self._try(lambda files, root: _write(files, _path(root, key), _pieces(path, start, size)))

    def get(self, key: str) -> bytes:
        """An object's content; FileNotFoundError if there is none."""

        def read(files: "FileSystem", root: str) -> bytes:
            with files.open_input_stream(_path(root, key)) as stream:
                return bytes(stream.read())

        return self._try(read)

    def append_to(self, key: str, path: Path) -> None:
        """Add an object's content to the end of a file; FileNotFoundError if there is none."""
        before = path.stat().st_size if path.exists() else 0

        def copy(files: "FileSystem", root: str) -> None:
            with path.open("ab") as file, files.open_input_stream(_path(root, key)) as stream:
                file.truncate(before)
                while piece := stream.read(PIECE):
                    file.write(piece)

        self._try(copy)

    def objects_in(self, folder: str) -> list[Stored]:
        """The objects of a folder, by key; empty if there are none."""

        def look(files: "FileSystem", root: str) -> list[Stored]:
            from pyarrow.fs import FileSelector, FileType

            found = files.get_file_info(FileSelector(f"{root}/{folder}", allow_not_found=True))
            names = (its for its in found if its.type == FileType.File)
            return sorted(Stored(f"{folder}/{its.base_name}", its.mtime.timestamp()) for its in names)

        return self._try(look)

    def tree(self) -> list[tuple[str, int, int]]:
        """Key, bytes and time of writing, in nanoseconds, of all objects below the URL; the key of itself is empty."""

        def look(files: "FileSystem", root: str) -> list[tuple[str, int, int]]:
            from pyarrow.fs import FileSelector, FileType

            itself = files.get_file_info(root)
            found = [itself]
            if itself.type != FileType.File:
                found = files.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
            chosen = [its for its in found if its.type == FileType.File]
            return sorted((its.path[len(root) + 1 :], its.size, its.mtime_ns) for its in chosen)

        return self._try(look)

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""

        def remove(files: "FileSystem", root: str) -> None:
            try:
                files.delete_file(_path(root, key))
            except FileNotFoundError:
                return

        self._try(remove)

    def require_there(self) -> None:
        """Raise StorageRefusedError if there is no such bucket."""

        def look(files: "FileSystem", root: str) -> None:
            from pyarrow.fs import FileSelector

            files.get_file_info(FileSelector(root.partition("/")[0]))

        self._try(look)

    def _try(self, action: Callable[["FileSystem", str], Result]) -> Result:
        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                if self._opened is None:
                    self._opened = _open_file_system(self.url)
                return action(*self._opened)
            except FileNotFoundError:
                raise
            except OSError as error:
                said = " ".join(str(error).split())
                where = self.url.partition("?")[0]
                for pattern, what, fix in REFUSALS:
                    if re.search(pattern, said):
                        raise StorageRefusedError(f"{what} ({_short(said)})", where=where, fix=fix) from None
                if time.monotonic() - began + pause > self.patience_s:
                    what = f"the storage did not answer for {time.monotonic() - began:.0f} s ({_short(said)})"
                    fix = "What was done is kept; give the same command when the storage answers"
                    raise StorageUnreachableError(what, where=where, fix=fix) from None
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause = min(2 * pause, LONGEST_PAUSE_S)


@contextmanager
def impatient(bucket: Bucket, patience_s: float) -> Iterator[None]:
    """Have requests repeated for less long."""
    before, bucket.patience_s = bucket.patience_s, patience_s
    try:
        yield
    finally:
        bucket.patience_s = before


def _path(root: str, key: str) -> str:
    return f"{root}/{key}" if key else root


def _write(files: "FileSystem", path: str, pieces: Any) -> None:
    with files.open_output_stream(path) as stream:
        for piece in pieces:
            stream.write(piece)


def _pieces(path: Path, start: int, size: int | None) -> Iterator[bytes]:
    left = path.stat().st_size - start if size is None else size
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (piece := file.read(min(left, PIECE))):
            left -= len(piece)
            yield piece


def _short(said: str) -> str:
    """What the library says, without the identifiers of the request."""
    told = re.search(r"AWS Error (.*?)(?: \(Request ID.*)?$", said)
    return (told[1] if told else said)[:200].rstrip(".")
