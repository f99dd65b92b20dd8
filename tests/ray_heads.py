"""Ray heads in processes of their own, with a job server: what tests join or send jobs to."""

import os
import secrets
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
    """A running head. `env` is an environment whose processes may talk to it."""

    address: str
    """Where drivers join it."""
    jobs: str
    """Its job server's URL."""
    env: Mapping[str, str]
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Take the whole cluster down at once, with the jobs that run on it and nothing else."""
        if self.process.poll() is None:
            head = psutil.Process(self.process.pid)
            family = [*head.children(recursive=True), head]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family, timeout=30)
            self.process.wait()


@contextmanager
def running_head(*, asks_for_a_token: bool = False) -> Iterator[RayHead]:
    """Start a head of two CPUs on free ports, and stop its own processes alone at the end."""
    # Ray puts sockets under this folder, and a socket's path may have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="rh", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ports = free_ports(6)
        address = f"127.0.0.1:{ports[0]}"
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {
            # `python` of the job's command is the one that runs the tests.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_worker_maximum_startup_concurrency": "8",  # as of a local cluster of the project
            "HF_HUB_OFFLINE": "1",
        }
        if asks_for_a_token:
            token = folder / "token"
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32), encoding="utf-8")
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        command = ["ray", "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder / 'r'}"]
        command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--object-store-memory=200000000"]
        names = ["port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port"]
        names += ["dashboard-agent-grpc-port", "metrics-export-port"]
        command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        # Ray's own helpers find their cluster by RAY_ADDRESS, whatever else runs on this machine.
        head_env = {**env, "RAY_ADDRESS": address}
        log = folder / "log"
        with log.open("wb") as output:
            head = subprocess.Popen(command, env=head_env, stdout=output, stderr=output, start_new_session=True)
        started = RayHead(address, f"http://127.0.0.1:{ports[1]}", env, head)
        try:
            wait_until_it_answers(started, log)
            yield started
        finally:
            started.stop()


def free_ports(number: int) -> list[int]:
    """Ports that nothing uses now; held together, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until_it_answers(head: RayHead, log: Path) -> None:
    """Wait until the job server is up; the test fails with the log of a head that does not come up."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and head.process.poll() is None:
        try:
            urllib.request.urlopen(f"{head.jobs}/api/version", timeout=2).close()
            return
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code == 401:  # it is up, and asks for the token
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the head did not start:\n{log.read_text(encoding='utf-8')}")
