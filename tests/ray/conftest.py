"""A real local head with the job server and token authentication, started once for a test module."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class RayHead:
    """A running head. `address` is its job server's URL; `env` is an environment whose processes may talk to it."""

    address: str
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Take the whole cluster down at once, with the jobs that run on it and nothing else."""
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def ray_head() -> Iterator[RayHead]:
    """A head for all tests of a module: two CPUs, free ports, a token of its own."""
    with running_head() as head:
        yield head


@pytest.fixture
def doomed_head() -> Iterator[RayHead]:
    """A head for one test, which may stop it."""
    with running_head() as head:
        yield head


@contextmanager
def running_head() -> Iterator[RayHead]:
    """Start a head, and stop its own processes alone at the end."""
    # Ray puts sockets under this folder, and a socket's path may have at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rh", dir="/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    ports = free_ports(6)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {
        # `python` of the job's command is the one that runs the tests.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder / 'r'}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=200000000"]
    names = ["port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port"]
    names += ["dashboard-agent-grpc-port", "metrics-export-port"]
    command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    log = folder / "log"
    with log.open("wb") as output:
        head = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)
    address = f"http://127.0.0.1:{ports[1]}"
    started = RayHead(address, env, head)
    try:
        wait_until_it_answers(address, head, log)
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(number: int) -> list[int]:
    """Ports that nothing uses now; held together, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_it_answers(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if head.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code == 401:  # it is up, and asks for the token
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the head did not start:\n{log.read_text(encoding='utf-8')}")
