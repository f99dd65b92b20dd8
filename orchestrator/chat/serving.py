"""vLLM's own tool-call parsers: what would a client of `vllm serve` get for a reply?"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.chat.formats import CONFIG_KEY
from orchestrator.chat.formats.reply import ServedReply, without_lone_surrogates
from orchestrator.chat.rendering import plain_tools
from orchestrator.core.errors import EvaluationError
from orchestrator.core.records import ToolSpec

_ERROR_CHARS = 300


ServingReader = Callable[[str, Sequence[ToolSpec]], ServedReply]
"""From the text of a reply and the offered tools to what a client would get."""


def serving_reader(name: str, tokenizer: Any) -> ServingReader:
    """What a client of `vllm serve --tool-call-parser NAME` would get for a reply to a request with these tools.

    The reply has the parser's `error` where it raises, or where what it reads cannot be sent as UTF-8. No reasoning
    parser is used, so a think block is text like any other. The parser's log messages are silenced in this process.
    Some parsers want their marks in the vocabulary of the base's `tokenizer`.

    Raises:
        ImportError: If vLLM is not installed here.
        EvaluationError: If vLLM has no such parser, or the parser does not take the tokenizer.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)  # its messages about GPUs on import do not matter to a parser
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    for parsers in ("vllm.tool_parsers", "vllm.parser"):
        logging.getLogger(parsers).setLevel(logging.CRITICAL + 1)

    def made(tools: Sequence[ToolSpec]) -> tuple[Any, Any]:
        request = ChatCompletionRequest(messages=[], model="", tools=plain_tools(tools))
        return kind(tokenizer, request.tools), request

    try:
        kind = ToolParserManager.get_tool_parser(name)
        made(())
    except (KeyError, RuntimeError, ValueError) as error:
        raise EvaluationError(
            f"vLLM's parser {name} cannot be used with this base: {_line(error)}",
            where=CONFIG_KEY,
            fix=f"Set {CONFIG_KEY} to the format of the base's family, whose marks its tokenizer knows",
        ) from error

    def read(text: str, tools: Sequence[ToolSpec]) -> ServedReply:
        try:
            parser, request = made(tools)
            found = parser.extract_tool_calls(text, request)
            reply = ServedReply(parser=name, calls=(), content=text)
            if found.tools_called:
                calls = tuple((call.function.name, call.function.arguments) for call in found.tool_calls)
                content = found.content if (found.content or "").strip() else ""
                reply = ServedReply(parser=name, calls=calls, content=content)
            reply.model_dump_json().encode()  # what a server could not send, its client does not get
        except Exception as error:  # noqa: BLE001 - the parser's failure is the answer that a client gets
            return ServedReply(parser=name, calls=(), content=without_lone_surrogates(text), error=_line(error))
        return reply

    return read


def _line(error: Exception) -> str:
    """The class and message of an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_ERROR_CHARS]
