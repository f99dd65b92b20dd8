import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import names_in
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import submit
from orchestrator.config.evaluation import EvalConfig, SuiteConfig
from orchestrator.config.load import load_config
from orchestrator.config.schema import DataConfig, ModelConfig, ResourcesConfig, RunConfig, SourceConfig
from orchestrator.core.errors import InputError, OrchestratorError, SubmissionError
from orchestrator.core.text import escaped
from orchestrator.run.command import Stage
from orchestrator.submit import JOBS, _reachable, _Shown, _warn_of_listeners, exit_code, stage_package, submit_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("status", "driver", "code"),
    [
        *(("SUCCEEDED", 0, 0), ("STOPPED", None, 130), ("STOPPED", 0, 130)),
        *(("FAILED", driver, code) for driver, code in ((2, 2), (3, 3), (1, 1), (None, 1), (-9, 1), (0, 1))),
    ],
)
def test_exit_code(status: str, driver: int | None, code: int) -> None:
    assert exit_code(status, driver) == code


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(f'{{"from": "{folder}"}}\n', encoding="utf-8")
    paths = [f"{tmp_path}/a/rows.jsonl", "synthetic", f"{tmp_path}/b/rows.jsonl", "/on/the/cluster.jsonl"]
    return RunConfig(
        data=DataConfig(sources=tuple(SourceConfig(path=path) for path in paths)),
        resources=ResourcesConfig(address="ray://elsewhere:10001", storage_path="/mnt/runs"),
    )


@pytest.fixture
def package(config: RunConfig, tmp_path: Path) -> Path:
    """The package of `config`."""
    package = tmp_path / "package"
    package.mkdir()
    stage_package(config, package)
    return package


def test_the_package_holds_code_config_and_local_sources(package: Path) -> None:
    assert {path.name for path in package.iterdir()} == {"config.json", "evals", "jobs", "orchestrator", "sources"}
    assert (package / "sources" / "0-rows.jsonl").read_text(encoding="utf-8") == '{"from": "a"}\n'
    assert (package / "sources" / "2-rows.jsonl").read_text(encoding="utf-8") == '{"from": "b"}\n'
    assert not list(package.rglob("__pycache__"))
    for weights in (ROOT / "orchestrator").rglob("*.safetensors"):
        assert (package / weights.relative_to(ROOT)).read_bytes() == weights.read_bytes()


def test_the_packaged_config_finds_its_sources_and_joins_the_jobs_own_cluster(config: RunConfig, package: Path) -> None:
    sent = load_config(package / "config.json")
    assert [source.path for source in sent.data.sources] == [
        str(package / "sources" / "0-rows.jsonl"),
        "synthetic",
        str(package / "sources" / "2-rows.jsonl"),
        "/on/the/cluster.jsonl",
    ]
    assert sent.resources.address is None
    assert sent.resources.storage_path == "/mnt/runs"
    assert sent.train == config.train


def test_suites_and_answers_travel_and_are_found_again(tmp_path: Path) -> None:
    for name in ("q.jsonl", "q_answers.jsonl", "given.jsonl", "tools.json"):
        (tmp_path / name).write_text(f'{{"file": "{name}"}}\n', encoding="utf-8")
    questions = str(tmp_path / "q.jsonl")
    source = SourceConfig(path=questions, answers=str(tmp_path / "given.jsonl"), tools=str(tmp_path / "tools.json"))
    suites = (
        SuiteConfig(name="bfcl", path=questions, format="bfcl"),
        SuiteConfig(name="rows", path=questions, format="messages"),
        SuiteConfig(name="far", path="/on/the/cluster.csv", format="xstest"),
    )
    package = tmp_path / "package"
    package.mkdir()
    stage_package(RunConfig(data=DataConfig(sources=(source,)), eval=EvalConfig(suites=suites)), package)
    sent = load_config(package / "config.json")
    (travelled,) = sent.data.sources
    found = [travelled.path, travelled.answers, travelled.tools]
    found += [path for suite in sent.eval.suites for path in (suite.path, suite.answers)]
    texts = [None if path is None or not Path(path).is_file() else Path(path).read_text("utf-8") for path in found]
    named = ["q.jsonl", "given.jsonl", "tools.json", "q.jsonl", "q_answers.jsonl", "q.jsonl"]
    assert texts == [*(f'{{"file": "{name}"}}\n' for name in named), None, None, None]
    assert all(Path(path).is_relative_to(package) for path in found[:6] if path)
    assert sent.eval.suites[2].path == "/on/the/cluster.csv"


def test_the_module_of_a_function_that_reads_rows_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "rows").mkdir(parents=True)
    for name in ("alone.py", "mine/__init__.py", "mine/rows/chats.py", "other.py"):
        (tmp_path / name).write_text("def convert(row):\n    return row\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = ("alone:convert", "mine.rows.chats:convert", "absent:convert", "evals.records:Case", "auto")
    sources = tuple(SourceConfig(path="hub:owner/name", format=name) for name in names)
    stage_package(RunConfig(data=DataConfig(sources=sources)), tmp_path / "package")
    sent = {path.name for path in (tmp_path / "package").iterdir()}
    assert sent == {"orchestrator", "evals", "jobs", "config.json", "alone.py", "mine"}
    assert (tmp_path / "package/mine/rows/chats.py").is_file()


def test_suites_count_towards_what_may_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "q.csv").write_text("x" * 21, encoding="utf-8")
    config = RunConfig(eval=EvalConfig(suites=(SuiteConfig(name="s", path=str(tmp_path / "q.csv")),)))
    monkeypatch.setattr(submit, "MAX_SOURCES_BYTES", 20)
    with pytest.raises(InputError, match="too large to travel"):
        stage_package(config, tmp_path / "package")


def test_the_packaged_code_runs_where_nothing_is_installed(package: Path) -> None:
    code = "import jobs.pipeline, evals, orchestrator.config.schema as c; print(c.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(package / "orchestrator" / "config" / "schema.py")


def test_data_too_large_to_travel_is_refused(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "MAX_SOURCES_BYTES", 20)
    places = r"data\.sources, eval\.suites, eval\.adapters and train\.init_from"
    with pytest.raises(InputError, match=rf"{places}: .*too large to travel"):
        stage_package(config, tmp_path / "package")


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://head:10001", "auto", "http://", ""])
def test_an_address_that_is_no_url_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is not the address of a job server") as refusal:
        submit_job(RunConfig(), "prepare", address=address)
    assert refusal.value.exit_code == 3
    assert "http://127.0.0.1:8265" in str(refusal.value)


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_that_the_command_line_offers_can_be_submitted(stage: Stage) -> None:
    assert stage.job in JOBS
    # The name of the job is looked at before the address: what is refused is the address.
    with pytest.raises(InputError, match="is not the address of a job server"):
        submit_job(RunConfig(), stage.job, address="nowhere")


def test_an_unknown_job_is_refused() -> None:
    with pytest.raises(InputError, match="prepare, train, search, prefer, evaluate, report, pipeline"):
        submit_job(RunConfig(), "deploy", address="http://127.0.0.1:1")


def test_an_address_where_nothing_answers_is_refused_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(InputError, match="no Ray job server answers"):
            submit_job(RunConfig(), "prepare", address=url)
        # Listening, but silent: what a port forward to a dead host looks like.
        closed.listen()
        started = time.monotonic()
        with pytest.raises(InputError, match="no Ray job server answers"):
            submit_job(RunConfig(), "prepare", address=url)
    assert time.monotonic() - started < 5


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that gives one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (401, b"Unauthorized: Missing authentication token", InputError, "asks for a token and got none"),
        (403, b"Forbidden: Invalid authentication token", InputError, "refuses this token"),
        (404, b"nothing here", SubmissionError, "did not take the request"),
        (200, b"<html>a web page</html>", SubmissionError, "did not take the request"),
    ],
)
def test_what_answers_but_does_not_take_the_job(
    status: int, body: bytes, kind: type[OrchestratorError], told: str
) -> None:
    with answering(status, body) as url, pytest.raises(kind, match=told) as refusal:
        submit_job(RunConfig(model=ModelConfig(base="tiny")), "prepare", address=url)
    assert url in str(refusal.value)
    if kind is InputError:
        assert "RAY_AUTH_MODE=token" in str(refusal.value)


def test_adapters_of_this_machine_travel_and_those_of_the_hub_do_not(tmp_path: Path) -> None:
    adapter = tmp_path / "sweep" / "checkpoint-5"
    adapter.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "optimizer.pt"):
        (adapter / name).write_text(name, encoding="utf-8")
    package = tmp_path / "package"
    stage_package(RunConfig(eval=EvalConfig(adapters=(str(adapter), "owner/name"))), package)
    local, hub = load_config(package / "config.json").eval.adapters
    assert hub == "owner/name"
    assert Path(local) == package / "adapters" / "0" / "sweep" / "checkpoint-5"
    assert names_in(Path(local)) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("host", ["127.0.0.1:8265", "127.8.0.1", "localhost:8265", "[::1]:8265"])
def test_plain_http_on_this_machine_is_no_reason_to_warn(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    _warn_of_listeners(f"http://{host}")
    _warn_of_listeners("https://head.example:8265")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("host", ["head.example:8265", "10.0.0.5", "localhost.example", "0.0.0.0:8265", "[fe80::1]"])
def test_plain_http_over_a_network_is_warned_of_in_one_line(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    _warn_of_listeners(f"http://{host}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Warning: http://{host} is plain HTTP")
    assert "https" in line


def test_a_trailing_slash_is_dropped() -> None:
    with answering(200, b"{}") as url:
        assert _reachable(url + "/") == url


@given(st.text(), st.data())
def test_a_log_that_is_read_again_from_its_start_is_printed_once(log: str, data: st.DataObject) -> None:
    printed: list[str] = []
    shown = _Shown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout.write", printed.append)
        for _ in range(3):
            end = data.draw(st.integers(0, len(log)))
            middle = data.draw(st.integers(0, end))
            shown.print_from(0, log[:middle])
            shown.print_from(middle, log[middle:end])
        shown.print_from(0, log)
    assert "".join(printed) == escaped(log)
