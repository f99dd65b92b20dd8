"""Servers that die and servers that never answer, as processes."""

import os
from pathlib import Path

import httpx2
import pytest

from evals.serve.server import serving
from orchestrator.core.errors import EvaluationError

ANSWERS = """python -c "
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/die':
            print('RuntimeError: no memory is left', flush=True)
            os._exit(1)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', int(sys.argv[-1])), H).serve_forever()"
"""


def test_a_server_that_dies_says_why(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    command = "python -c \"print('started'); raise ValueError('no such model')\""
    with (
        pytest.raises(EvaluationError, match=r"ended before it answered: ValueError: no such model"),
        serving(command, log, on_gpu=False),
    ):
        pass
    assert "started" in log.read_text()


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    command = 'python -c "import os, time; print(os.getpid(), flush=True); time.sleep(600)"'
    log = tmp_path / "server.log"
    with (
        pytest.raises(EvaluationError, match=r"did not answer within 3\.0 s"),
        serving(command, log, on_gpu=False, start_s=3.0),
    ):
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text().split()[0]), 0)


def ask(log: Path, path: str) -> None:
    """Ask a server that is up, and fail as a client does."""
    with serving(ANSWERS, log, on_gpu=False) as url:
        try:
            httpx2.get(f"{url}{path}")
        except httpx2.TransportError:
            raise EvaluationError("the connection broke") from None
        raise EvaluationError("the answer is none")


def test_a_server_that_dies_while_it_is_asked_is_the_cause(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"ended while it was asked: RuntimeError: no memory is left"):
        ask(tmp_path / "server.log", "/die")


def test_an_error_before_a_server_that_lives_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="the answer is none"):
        ask(tmp_path / "server.log", "/")
