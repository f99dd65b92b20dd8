"""A client of an OpenAI server: what it sends, and what it gets back, streamed or at once."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2

from orchestrator.core.errors import EvaluationError, InputError
from orchestrator.core.records import JsonObject
from orchestrator.core.text import duration_text
from orchestrator.models.adapters import SETTINGS

KEY = "VLLM_API_KEY"
"""The environment variable with the server's key, which vLLM reads too."""
ANSWER_S, CONNECT_S = 600.0, 10.0
"""How long one reply, and one connection, may take."""
ERROR_CHARS = 300
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


class Refused(Exception):
    """The server refuses one request and goes on, for the reason that it gives. Caught where cases are asked."""


class Answer(NamedTuple):
    """What a client got for one request.

    `prompt` and `tokens` are token ids; `likely` has for each token of the reply the log probabilities (natural) of the
    likeliest ones by their ids, empty where they were not asked for. `calls` are names and arguments, as text.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    content: str
    thinking: str | None
    calls: tuple[tuple[str, str], ...]
    finish_reason: str | None
    likely: tuple[dict[int, float], ...] = ()


class Model(NamedTuple):
    """A model that a server offers: its name, what it was loaded from, and the base that it is an adapter on."""

    name: str
    root: str | None
    parent: str | None


@dataclass
class Server:
    """An OpenAI server at `url`, asked for one of its models at a time.

    Raises:
        InputError: If the address is none.
    """

    url: str
    answer_s: float = ANSWER_S
    _client: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{self.url!r} is no address", where="--url", allowed="such as http://127.0.0.1:8000")
        self.url = self.url.rstrip("/").removesuffix("/v1")
        key = os.environ.get(KEY)
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(self.answer_s, connect=CONNECT_S),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def models(self) -> list[Model]:
        """What the server offers."""
        with self._told():
            try:
                found = self._read(self._client.get(f"{self.url}/v1/models"))
            except Refused as refusal:
                what = f"what answers there does not say which models it has: {refusal}"
                raise EvaluationError(what, where=self.url, fix="Give the address of a vLLM server") from refusal
            return [Model(card["id"], card.get("root"), card.get("parent")) for card in found["data"]]

    def adapter_settings(self, model: Model) -> JsonObject | None:
        """An adapter's settings as PEFT writes them, where the server runs on this machine and read them from a folder.

        A folder that is relative to where the server was started cannot be found from here.
        """
        folder = Path(model.root or "")
        if urlsplit(self.url).hostname not in THIS_MACHINE or not folder.is_absolute():
            return None
        try:
            found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """Send one chat completion, streamed if it says so.

        Raises:
            Refused: If the server takes other requests, but not this one.
            EvaluationError: If it cannot be reached, breaks, or does not answer as vLLM does.
        """
        sent = {**request, "return_token_ids": True}
        place = f"{self.url}/v1/chat/completions"
        with self._told():
            if not request.get("stream"):
                return _whole(self._read(self._client.post(place, json=sent)))
            with self._client.stream("POST", place, json=sent) as response:
                if not response.is_success:
                    response.read()
                    self._read(response)
                return _streamed(self._events(response))

    def _read(self, response: httpx2.Response) -> JsonObject:
        if response.status_code in (400, 422):
            raise Refused(_message(response))
        if not response.is_success:
            fix = f"Give its key in {KEY}" if response.status_code in (401, 403) else None
            what = f"the server answers with HTTP {response.status_code}: {_message(response)}"
            raise EvaluationError(what, where=self.url, fix=fix)
        found: JsonObject = response.json()
        return found

    def _events(self, response: httpx2.Response) -> Iterator[JsonObject]:
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise EvaluationError(f"the stream broke off: {str(event['error'])[:ERROR_CHARS]}", where=self.url)
                yield event

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a client meets, as one line."""
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            fix = "Start it, or leave --url out"
            raise EvaluationError("no server answers there", where=self.url, fix=fix) from error
        except httpx2.TimeoutException as error:
            what = f"the server did not answer within {duration_text(self.answer_s)}"
            raise EvaluationError(what, where=self.url) from error
        except httpx2.TransportError as error:
            what = f"the connection to the server broke ({type(error).__name__})"
            raise EvaluationError(what, where=self.url) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = "what answers there is no vLLM server, or one that gives no token ids"
            raise EvaluationError(what, where=self.url, fix="Give the address of a vLLM server") from error


def _message(response: httpx2.Response) -> str:
    """What an error says, whatever its form."""
    try:
        found = response.json()
        told = found.get("error", found)
        text = told.get("message", told) if isinstance(told, dict) else told
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:ERROR_CHARS]


def _whole(found: JsonObject) -> Answer:
    (choice,) = found["choices"]
    message = choice["message"]
    return Answer(
        prompt=tuple(found["prompt_token_ids"]),
        tokens=tuple(choice["token_ids"]),
        content=message.get("content") or "",
        thinking=message.get("reasoning"),
        calls=tuple(
            (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()
        ),
        finish_reason=choice["finish_reason"],
        likely=tuple(_by_id(entry) for entry in (choice.get("logprobs") or {}).get("content") or ()),
    )


def _by_id(entry: JsonObject) -> dict[int, float]:
    """Log probabilities by token id, as `return_tokens_as_token_ids` names them."""
    return {int(one["token"].removeprefix("token_id:")): one["logprob"] for one in entry["top_logprobs"]}


def _streamed(events: Iterator[JsonObject]) -> Answer:
    prompt: list[int] = []
    tokens: list[int] = []
    content, thinking = "", ""
    calls: dict[int, tuple[str, str]] = {}
    reason: str | None = None
    for event in events:
        prompt += event.get("prompt_token_ids") or ()
        for choice in event["choices"]:
            delta = choice["delta"]
            tokens += choice.get("token_ids") or ()
            content += delta.get("content") or ""
            thinking += delta.get("reasoning") or ""
            reason = choice.get("finish_reason") or reason
            for part in delta.get("tool_calls") or ():
                name, arguments = calls.get(part["index"], ("", ""))
                more = part.get("function") or {}
                calls[part["index"]] = name + (more.get("name") or ""), arguments + (more.get("arguments") or "")
    if reason is None:
        raise ValueError("a stream without an end")
    return Answer(tuple(prompt), tuple(tokens), content, thinking or None, tuple(calls.values()), reason)
