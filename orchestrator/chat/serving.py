"""What `vllm serve` makes of a request, by vLLM's own code: the prompt that it renders, the reply that it reads."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.chat.call_ids import CallIds, with_call_ids
from orchestrator.chat.formats import CONFIG_KEY
from orchestrator.chat.formats.reply import ServedReply, without_lone_surrogates
from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.template import served_template
from orchestrator.chat.template_input import plain_tools
from orchestrator.core.errors import EvaluationError
from orchestrator.core.records import JsonObject, Message, ToolSpec

_ERROR_CHARS = 300
_HARMONY_PARSER = "openai"
"""The parser whose work vLLM does on tokens, outside of the parser."""

ServingRenderer = Callable[[Sequence[Message], Sequence[ToolSpec]], str]
"""From a conversation and the offered tools to the prompt that the model would get."""

ServingReader = Callable[[str, Sequence[ToolSpec]], ServedReply]
"""From the text of a reply and the offered tools to what a client would get."""


def serving_reader(name: str, tokenizer: Any, *, reasoning: str | None = None) -> ServingReader:
    """What a client of `vllm serve --tool-call-parser NAME` would get for a reply to a request with these tools.

    `reasoning` is the server's `--reasoning-parser`; without one a think block is text like any other. The reply has
    the parser's `error` where it raises, or where what it reads cannot be sent as UTF-8. The parser's log messages are
    silenced in this process. Some parsers want their marks in the vocabulary of the base's `tokenizer`.

    Raises:
        ImportError: If vLLM is not installed here.
        EvaluationError: If vLLM has no such parser, or the parser does not take the tokenizer.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)  # its messages about GPUs on import do not matter to a parser
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.parser_manager import ParserManager

    for parsers in ("vllm.tool_parsers", "vllm.parser", "vllm.reasoning"):
        logging.getLogger(parsers).setLevel(logging.CRITICAL + 1)

    def extracted(text: str, tools: Sequence[ToolSpec]) -> ServedReply:
        request = ChatCompletionRequest(messages=[], model="", tools=plain_tools(tools))
        parser, tokens = kind(tokenizer, request.tools), tokens_of(text)
        thoughts, content, calls = parser.parse(text, request, enable_auto_tools=True, model_output_token_ids=tokens)
        found = tuple((call.name, call.arguments) for call in calls or ())
        return ServedReply(parser=name, calls=found, content=content or "", thinking=thoughts)

    try:
        kind = ParserManager.get_parser(name, reasoning, enable_auto_tools=True, is_harmony=name == _HARMONY_PARSER)
        tokens_of = _harmony_tokens() if name == _HARMONY_PARSER else lambda _: ()
        extracted("", ())
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"vLLM's parser {name} cannot be used with this base: {_line(error)}",
            where=CONFIG_KEY,
            fix=f"Set {CONFIG_KEY} to the format of the base's family, whose marks its tokenizer knows",
        ) from error

    def read(text: str, tools: Sequence[ToolSpec]) -> ServedReply:
        try:
            reply = extracted(text, tools)
            reply.model_dump_json().encode()  # what a server could not send, its client does not get
        except Exception as error:  # noqa: BLE001 - the parser's failure is the answer that a client gets
            return ServedReply(parser=name, calls=(), content=without_lone_surrogates(text), error=_line(error))
        return reply

    return read


def reader_or_refusal(name: str, tokenizer: Any, *, reasoning: str | None = None) -> ServingReader:
    """The `serving_reader`, or where the parser does not take the base one whose every reply has that error.

    A server with this parser and base would give its clients no call at all.

    Raises:
        ImportError: If vLLM is not installed here.
    """
    try:
        return serving_reader(name, tokenizer, reasoning=reasoning)
    except EvaluationError as error:
        refusal = error.what
        return lambda text, _: ServedReply(parser=name, calls=(), content=text, error=refusal)


def _harmony_tokens() -> Callable[[str], list[int]]:
    """From the text of a reply of gpt-oss to its tokens, which are those of harmony."""
    from vllm.entrypoints.openai.parser.harmony_utils import get_encoding

    encoding = get_encoding()
    return lambda text: list(encoding.encode(text, allowed_special="all"))


def serving_renderer(
    base: Path, form: ChatFormat, *, trust_remote_code: bool
) -> Callable[[Sequence[Message], Sequence[ToolSpec]], str]:
    """A function from a conversation to the prompt that `vllm serve` renders for it, run as `serve_command` says.

    `base` is the folder of the base. The request is that of a client of the OpenAI API: arguments are JSON texts, and
    every call has an id. What the server would refuse raises EvaluationError.

    Raises:
        ImportError: If vLLM is not installed here.
        EvaluationError: If vLLM does not know the base, or renders for it without a chat template.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)
    from vllm.config import ModelConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.chat_utils import parse_chat_messages
    from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template

    logging.getLogger("vllm.renderers").setLevel(logging.CRITICAL + 1)
    try:
        settings = ModelConfig(model=str(base), trust_remote_code=trust_remote_code)
    except Exception as error:  # the base may be of any kind, and what vLLM raises for it too
        raise EvaluationError(f"vLLM cannot read the base ({_line(error)})", where=str(base)) from error
    if settings.hf_config.model_type == _HARMONY:
        raise EvaluationError("vllm serve renders this family without its chat template", where=str(base))

    tokenizer, template = form.tokenizer, served_template(form.template, thinking=form.thinking)

    def render(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        try:
            request = ChatCompletionRequest.model_validate(client_request(messages, tools, form.wants.call_ids))
            offered = None if request.tools is None else [tool.model_dump() for tool in request.tools]
            taken = {"given_format": form.wants.content or "auto", "tokenizer": tokenizer, "model_config": settings}
            content = resolve_chat_template_content_format(template, offered, **taken)
            conversation, _, _ = parse_chat_messages(request.messages, settings, content_format=content)
            arguments = request.build_chat_params(template, "auto").get_apply_chat_template_kwargs()
            arguments |= {"tools": offered, "tokenize": False}
            return str(safe_apply_chat_template(settings, tokenizer, conversation, **arguments))
        except Exception as error:  # the server's refusal is the answer that a client gets
            raise EvaluationError(f"vllm serve refuses the request: {_line(error)}", where=str(base)) from error

    return render


_HARMONY = "gpt_oss"
"""The type of models that vLLM renders by a library of their own."""


def client_request(messages: Sequence[Message], tools: Sequence[ToolSpec], ids: CallIds) -> JsonObject:
    """A conversation as a client sends it: what it was given before, and the tools as the data describes them.

    `ids` are those that the template wants; a client always has some.
    """
    told = with_call_ids(messages, "any" if ids == "as given" else ids)
    sent = [message.model_dump(mode="json", exclude={"learned"}) for message in told]
    for message in sent:
        if "tool_calls" in message and not message["content"]:
            message["content"] = None  # as the server gave it
        if thoughts := message.pop("reasoning_content", None):
            message["reasoning"] = thoughts
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    offered = [tool.model_dump(mode="json") for tool in tools]
    for tool in offered:
        tool["function"] = {key: value for key, value in tool["function"].items() if value is not None}
    return {"model": "base", "messages": sent} | ({"tools": offered} if offered else {})


def _line(error: Exception) -> str:
    """The class and message of an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_ERROR_CHARS]
