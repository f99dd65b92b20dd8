"""The client of `serve-check`, before servers that break, lie or are none."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evals.serve.check import choose_model
from evals.serve.client import Model, Refused, Server
from orchestrator.core.errors import EvaluationError, InputError

REQUEST = {"model": "trial-1", "messages": []}
CALL = {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
CHOICE = {"message": {"content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls", "token_ids": [7, 2]}
WHOLE = {"prompt_token_ids": [1, 5], "choices": [CHOICE]}

Replies = Callable[[BaseHTTPRequestHandler], None]


def sends(content: object, status: int = 200) -> Replies:
    """A server that answers with JSON, or with the text as it is."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def streams(*events: dict[str, Any]) -> Replies:
    return sends("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")


@pytest.fixture
def serve() -> Iterator[Callable[[Replies], Server]]:
    """Starts a server that replies so to every request; gives its client."""
    with ExitStack() as servers:

        def started(reply: Replies) -> Server:
            class Handler(BaseHTTPRequestHandler):
                def log_message(self, *_: Any) -> None:
                    pass

                def do_GET(self) -> None:
                    reply(self)

                def do_POST(self) -> None:
                    self.rfile.read(int(self.headers["Content-Length"]))
                    reply(self)

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.callback(server.server_close)
            servers.callback(server.shutdown)
            return Server(f"http://127.0.0.1:{server.server_port}", answer_s=0.5)

        yield started


def test_an_answer_has_tokens_calls_and_what_was_likely(serve: Callable[[Replies], Server]) -> None:
    near = [{"token": "token_id:7", "logprob": -0.1}, {"token": "token_id:9", "logprob": -2.5}]
    choice = CHOICE | {"logprobs": {"content": [{"token": "token_id:7", "top_logprobs": near}]}}
    answer = serve(sends(WHOLE | {"choices": [choice]})).ask(REQUEST)
    assert (answer.prompt, answer.tokens, answer.content) == ((1, 5), (7, 2), "")
    assert answer.calls == (("get_weather", '{"city": "Oslo"}'),)
    assert answer.finish_reason == "tool_calls"
    assert answer.likely == ({7: -0.1, 9: -2.5},)


def test_a_stream_adds_up_to_an_answer(serve: Callable[[Replies], Server]) -> None:
    def part(**delta: Any) -> dict[str, Any]:
        return {"delta": delta, "token_ids": [7]}

    events: list[dict[str, Any]] = [
        {"prompt_token_ids": [1, 5], "choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [part(reasoning="Hm")]},
        {"choices": [part(reasoning=".", content="Yes")]},
        {"choices": [part(tool_calls=[{"index": 0, "function": {"name": "get_weather", "arguments": '{"ci'}}])]},
        {"choices": [part(tool_calls=[{"index": 0, "function": {"arguments": 'ty": 1}'}}])]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {}},
    ]
    answer = serve(streams(*events)).ask(REQUEST | {"stream": True})
    assert (answer.prompt, answer.tokens) == ((1, 5), (7, 7, 7, 7))
    assert (answer.thinking, answer.content) == ("Hm.", "Yes")
    assert answer.calls == (("get_weather", '{"city": 1}'),)
    assert answer.finish_reason == "tool_calls"


def hang(_: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(2)


def drop(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (hang, "did not answer within 0.5 s"),
        (drop, "the connection to the server broke"),
        (sends({"error": {"message": "out of memory"}}, 500), "answers with HTTP 500: out of memory"),
        (sends("<html>Bad\nGateway</html>", 502), "answers with HTTP 502: <html>Bad Gateway</html>"),
        (sends({"detail": "Not Found"}, 404), "answers with HTTP 404"),
        (sends({"error": "Unauthorized"}, 401), "HTTP 401: Unauthorized. Give its key in VLLM_API_KEY"),
        (sends("Hello"), "no vLLM server, or one that gives no token ids"),
        (sends({"choices": [CHOICE]}), "no vLLM server, or one that gives no token ids"),
        (sends([1]), "no vLLM server"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_breaks_or_is_none_is_one_line(
    serve: Callable[[Replies], Server], reply: Replies, line: str, stream: bool
) -> None:
    with pytest.raises(EvaluationError, match=line) as told:
        serve(reply).ask(REQUEST | {"stream": stream})
    assert "\n" not in str(told.value)


def test_a_stream_that_breaks_off_is_told(serve: Callable[[Replies], Server]) -> None:
    begun = {"prompt_token_ids": [1], "choices": [{"delta": {"content": "Yes"}, "token_ids": [7]}]}
    with pytest.raises(EvaluationError, match="no vLLM server"):
        serve(streams(begun)).ask(REQUEST | {"stream": True})
    with pytest.raises(EvaluationError, match=r"the stream broke off.*engine died"):
        serve(streams(begun, {"error": {"message": "engine died"}})).ask(REQUEST | {"stream": True})


@pytest.mark.parametrize("stream", [False, True])
def test_one_request_may_be_refused(serve: Callable[[Replies], Server], stream: bool) -> None:
    with pytest.raises(Refused, match="too long"):
        serve(sends({"error": {"message": "the prompt is too long"}}, 400)).ask(REQUEST | {"stream": stream})


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "", "http:///v1"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(InputError, match=r"--url.*is no address.*http://127.0.0.1:8000"):
        Server(url)


def test_where_nobody_listens_is_one_line() -> None:
    with pytest.raises(EvaluationError, match=r"no server answers there\. Start it, or leave --url out"):
        Server("http://127.0.0.1:9/v1/").models()


def test_the_model_is_one_that_the_server_has(serve: Callable[[Replies], Server]) -> None:
    cards = [{"id": "base", "root": "/base", "parent": None}, {"id": "tools", "root": "/a", "parent": "base"}]
    server = serve(sends({"data": cards}))
    assert choose_model(server, "tools") == Model("tools", "/a", "base")
    with pytest.raises(InputError, match=r"no model 'trial-1'.*Allowed: base, tools.*--model"):
        choose_model(server, "trial-1")


def test_a_server_that_refuses_to_list_its_models_is_told(serve: Callable[[Replies], Server]) -> None:
    with pytest.raises(EvaluationError, match="does not say which models it has: no such thing"):
        serve(sends({"error": {"message": "no such thing"}}, 400)).models()


def test_the_settings_of_an_adapter_are_read_where_the_server_is_here(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 32}')
    here, there = Server("http://127.0.0.1:1"), Server("http://elsewhere:1")
    adapter = Model("trial-1", str(tmp_path), "base")
    assert here.adapter_settings(adapter) == {"lora_alpha": 32}
    assert there.adapter_settings(adapter) is None
    assert here.adapter_settings(adapter._replace(root="someone/hub-id")) is None
    assert here.adapter_settings(adapter._replace(root=None)) is None
    (tmp_path / "adapter_config.json").write_text("[")
    assert here.adapter_settings(adapter) is None


def test_a_folder_that_only_the_server_can_find_is_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 32}')
    monkeypatch.chdir(tmp_path)
    assert Server("http://localhost:1").adapter_settings(Model("trial-1", ".", "base")) is None
