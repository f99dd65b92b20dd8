"""An S3 server of moto's on this machine, and a wire to it that can be cut or overloaded."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

BUCKET = "runs"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing-key",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}
STARTS_S = 60.0
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class S3Server:
    """A server with one empty bucket."""

    port: int

    def url(self, folder: str, *, bucket: str = BUCKET, port: int | None = None) -> str:
        """The URL of a folder in the bucket; by another port where something lies between."""
        return f"s3://{bucket}/{folder}?region=us-east-1&endpoint_override=http://127.0.0.1:{port or self.port}"


@contextmanager
def running_s3(**environment: str) -> Iterator[S3Server]:
    """A server in a process of its own, while the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | environment, **quiet) as server:  # type: ignore[call-overload]
        try:
            deadline = time.monotonic() + STARTS_S
            made = False
            while not made:
                assert server.poll() is None
                assert time.monotonic() < deadline
                with suppress(OSError):
                    request = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
                    made = urllib.request.urlopen(request, timeout=10).status == 200
                time.sleep(0.05)
            yield S3Server(port)
        finally:
            server.kill()


class Wire:
    """A port that passes everything on to the server, until `state` says otherwise."""

    def __init__(self, server: S3Server) -> None:
        self.state: Literal["up", "cut", "busy"] = "up"
        self.refused = 0
        self._server = server
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port)) as far:
            back = threading.Thread(target=self._copy_back, args=(far, near), daemon=True)
            back.start()
            while data := near.recv(65536):
                if self.state != "up":
                    self.refused += 1
                    if self.state == "busy":
                        near.sendall(BUSY)
                    break
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _copy_back(far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
