"""A reply taken apart: its calls, its prose, its thoughts, and every attempt at a call that is none."""

from typing import Literal, get_args

from orchestrator.core.records import Record, ToolCall

ReplyFormat = Literal["hermes", "llama_json", "mistral", "pythonic", "mcp", "json"]
"""How a family of models writes its calls; `parse` has one strict reader for each."""
REPLY_FORMATS: tuple[ReplyFormat, ...] = get_args(ReplyFormat)

ParseFault = Literal[
    "unclosed_tag",
    "not_json",
    "not_strict_json",
    "not_a_call_object",
    "text_inside_tag",
    "text_beside_call",
    "not_pythonic",
]
"""What is wrong with an attempt at a call, as text."""


class ParseProblem(Record):
    """Why an attempt at a call is no call."""

    reason: ParseFault
    detail: str


class ParsedReply(Record):
    """A reply taken apart. Produced by `parse.parse_reply`.

    `calls` holds only the calls that are strict JSON objects with a name and an arguments object; every other attempt
    at a call is one entry of `problems`. `prose` is the text outside think blocks and call tags.
    """

    calls: tuple[ToolCall, ...]
    prose: str
    thinking: str | None
    problems: tuple[ParseProblem, ...]


class ServedReply(Record):
    """What vLLM's own parser would return to a client of `vllm serve --tool-call-parser PARSER`.

    `calls` holds name and arguments as the client would get them, the arguments as text. `error` is the parser's own
    exception, as one line, where it raised one.
    """

    parser: str
    calls: tuple[tuple[str, str], ...]
    content: str
    error: str | None = None
