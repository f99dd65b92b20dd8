"""What a chat template is given: messages and tools as `vllm serve` gives them to it, with what it needs beside."""

import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from orchestrator.chat.call_ids import CallIds, with_call_ids
from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.named_templates import CONFIG_KEY as TEMPLATE_KEY
from orchestrator.chat.named_templates import HERMES
from orchestrator.chat.parse import parse_reply, same_calls
from orchestrator.core.errors import ConfigError
from orchestrator.core.records import (
    ContentFormat,
    FunctionCall,
    FunctionSpec,
    JsonObject,
    LeftOutReason,
    Message,
    ToolCall,
    ToolSpec,
)
from orchestrator.core.text import num_same

_TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError),
)
"""What a template raises on messages that it was not written for."""


class RowLeftOut(Exception):
    """A sample that this template cannot render faithfully. Caught where rows are collected.

    `fix` is what to do, where more is known than the reason tells.
    """

    def __init__(self, reason: LeftOutReason, detail: str, fix: str | None = None) -> None:
        self.reason: LeftOutReason = reason
        self.detail, self.fix = detail, fix
        super().__init__(f"{reason}: {detail}")


class Wants(NamedTuple):
    """What a template has to be given, beside what it is meant for: ids of calls, texts as parts.

    `content` is `--chat-template-content-format` of `vllm serve`; None where all of its values come to the same.
    """

    call_ids: CallIds = "as given"
    content: ContentFormat | None = None


def template_wants(tokenizer: PreTrainedTokenizerBase) -> Wants:
    """What a tokenizer's chat template wants."""
    return _template_wants(str(tokenizer.chat_template), tuple(sorted(tokenizer.special_tokens_map.items())))


def plain_messages(messages: Sequence[Message], wants: Wants, *, thinking: bool) -> list[JsonObject]:
    """Messages as a template takes them, without thoughts unless `thinking`."""
    dropped = {"learned"} if thinking else {"learned", "reasoning_content"}
    shown = with_call_ids(messages, wants.call_ids)
    plain = [message.model_dump(mode="json", exclude_none=True, exclude=dropped) for message in shown]
    if wants.content == "openai":
        for message in plain:
            message["content"] = _as_parts(message)
    return plain


def _as_parts(message: JsonObject) -> str | list[JsonObject]:
    """The content as vLLM gives it: results of tools are texts, and a reply that only calls has no part."""
    content: str = message["content"]
    if message["role"] == "tool":
        return content
    return [{"type": "text", "text": content}] if content or "tool_calls" not in message else []


def plain_tools(tools: Sequence[ToolSpec]) -> list[JsonObject] | None:
    """Tools as a template takes them: None where there is none."""
    return [tool.model_dump(mode="json") for tool in tools] or None


def rendered(
    names: Mapping[str, Any],
    template: str,
    messages: Sequence[JsonObject],
    tools: list[JsonObject] | None,
    **settings: bool,
) -> tuple[str, list[tuple[int, int]]]:
    """A conversation as text, and where the parts stand that the template marks as the assistant's.

    `names` are the tokenizer's special tokens.

    Raises:
        RowLeftOut: If the template raises an error.
    """
    try:
        texts, marks = render_jinja_template([messages], tools=tools, chat_template=template, **names, **settings)
    except _TEMPLATE_ERRORS as error:
        raise RowLeftOut("template_refuses", f"the chat template refuses it: {str(error)[:200]}") from None
    return texts[0], marks[0] if marks else []


_TOOLS_AS_LIST = "{%- set tools = tools or [] %}"
_EACH_MESSAGE = (
    "{%- set given = namespace(messages=[]) %}{%- for message in messages %}"
    "MESSAGE{%- set given.messages = given.messages + [message] %}{%- endfor %}{%- set messages = given.messages %}"
)
_THOUGHTS_AS_THINKING = _EACH_MESSAGE.replace(
    "MESSAGE",
    "{%- if message.reasoning_content %}{%- set message = dict(message, thinking=message.reasoning_content) %}"
    "{%- endif %}",
)
_EACH_CALL = _EACH_MESSAGE.replace(
    "MESSAGE",
    "{%- if message.tool_calls %}{%- set told = namespace(calls=[]) %}{%- for call in message.tool_calls %}"
    "{%- set own = call.function.arguments %}CHANGED"
    "{%- set told.calls = told.calls + [dict(call, function=dict(call.function, arguments=text))] %}{%- endfor %}"
    "{%- set message = dict(message, tool_calls=told.calls) %}{%- endif %}",
)
_ARGUMENTS_AS_TEXT = _EACH_CALL.replace("CHANGED", "{%- set text = own if own is string else own | tojson %}")
_EACH_VALUE = _EACH_CALL.replace(
    "CHANGED",
    "{%- set one = namespace(values={}) %}{%- for key, value in (own if own is mapping else {}) | items %}"
    "{%- set one.values = dict(one.values, **{key: VALUE}) %}{%- endfor %}"
    "{%- set text = one.values if own is mapping else own %}",
)
_ALL_BUT_TEXTS_AS_TEXT = _EACH_VALUE.replace("VALUE", "value if value is string else value | tojson")
_VALUES_AS_TEXT = _EACH_VALUE.replace("VALUE", "value | tojson")
_GIVEN_OTHERWISE = (_ARGUMENTS_AS_TEXT, _ALL_BUT_TEXTS_AS_TEXT, _VALUES_AS_TEXT)


def adapted_template(template: str, names: Mapping[str, Any]) -> str:
    """A template that takes what it is given here and by `vllm serve`, whatever it was written for.

    That are arguments of calls as objects, where it wants them or their values as JSON texts; thoughts as
    `reasoning_content`, where it looks for `thinking`; and None for no tools, where it wants a list. A template that
    takes them as they are is returned as it is.
    """
    return _adapted_template(template, tuple(sorted(names.items())))


def refuse_endless(template: str, names: Mapping[str, Any]) -> None:
    """Refuse a template that does not end, as far as one question shows it. Seen in the main thread only.

    Raises:
        ConfigError: If it takes more than `MAX_SECONDS`.
    """
    try:
        with _within(MAX_SECONDS):
            _shown(template, [{"role": "user", "content": _WORD}], tuple(sorted(names.items())))
    except _TooLongError:
        what = f"the chat template does not end: it was stopped after {MAX_SECONDS:g} s with one question"
        fix = f"Give a template that ends, or set {TEMPLATE_KEY} to {HERMES}"
        raise ConfigError(what, where=TEMPLATE_KEY, fix=fix) from None


MAX_SECONDS = 10.0
"""Of computing, for one question. Templates of families take less than a tenth of one."""


class _TooLongError(Exception):
    """The time of `_within` is over."""


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Stop the body by `_TooLongError` once the process has computed for so long; outside the main thread, never."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before or signal.SIG_DFL)


@lru_cache(maxsize=64)
def _adapted_template(template: str, names: tuple[tuple[str, Any], ...]) -> str:
    asked: JsonObject = {"role": "user", "content": _WORD}
    thought = [asked, {"role": "assistant", "content": _SAID, "reasoning_content": _THOUGHT}]

    listed = f"{_TOOLS_AS_LIST}\n{template}"
    if not _shown(template, [asked], names) and _WORD in _shown(listed, [asked], names):
        template = listed
    thinking = f"{_THOUGHTS_AS_THINKING}\n{template}"
    if _THOUGHT not in _shown(template, thought, names) and _THOUGHT in _shown(thinking, thought, names):
        template = thinking
    try:
        form = detect_reply_format(template)
    except ConfigError:
        return _with_quoted_arguments(template, names)
    ways = (template, *(f"{prelude}\n{template}" for prelude in _GIVEN_OTHERWISE))
    for arguments in (_ODD_ARGUMENTS, {_KEY: _WORD}):
        for way in ways:
            if _is_read(way, arguments, names, form):
                return way
    return _with_quoted_arguments(template, names)


def _is_read(template: str, arguments: JsonObject, names: tuple[tuple[str, Any], ...], form: str) -> bool:
    """Whether a call with these arguments is shown as one that a format's reader gives back."""
    gold = [FunctionCall(name=_TOOL, arguments=arguments)]
    return any(same_calls(_read_back(reply, form), gold) for reply in _written(template, arguments, names))


def _written(template: str, arguments: JsonObject, names: tuple[tuple[str, Any], ...]) -> list[str]:
    """What a template writes for a reply that is one call with these arguments; empty texts if it refuses it.

    Where the prompt opens a think block that the conversation has not, that is the turn with its opening as well.
    """
    asked = [{"role": "user", "content": _WORD}]
    prompt, before = (_shown(template, asked, names, prompt=prompt) for prompt in (True, False))
    ended = _shown(template, [*asked, _calling(arguments)], names)
    begins = [prompt] if ended.startswith(prompt) else [before, prompt]
    replies = [ended[num_same(begin, ended) :] for begin in begins]
    if prompt == before:  # the next turn is always opened
        replies = [reply[: len(reply) - num_same(prompt[::-1], reply[::-1])] for reply in replies]
    return replies


def _read_back(reply: str, form: str) -> list[FunctionCall]:
    tool = ToolSpec(function=FunctionSpec(name=_TOOL, description="", parameters=_ODD_SCHEMA))
    return [call.function for call in parse_reply(reply, format=form, tools=[tool]).calls]


def unread_call(template: str, names: Mapping[str, Any], form: str, ends: re.Pattern[str]) -> str | None:
    """A call as the template writes it, if it shows calls and the format's reader finds none in it.

    `ends` finds the ends of turns.
    """
    arguments = {_KEY: _THOUGHT}
    replies = _written(template, arguments, tuple(sorted(names.items())))
    if any(word not in replies[0] for word in (_TOOL, _THOUGHT)):
        return None
    texts = [text for reply in replies for text in (reply, ends.split(reply, maxsplit=1)[0])]
    return None if any(_read_back(text, form) for text in texts) else replies[0]


def _with_quoted_arguments(template: str, names: tuple[tuple[str, Any], ...]) -> str:
    """The template given arguments as text, if it refuses objects or prints them as Python does."""
    called = [{"role": "user", "content": _WORD}, _calling({_KEY: _WORD})]
    texts, shown = f"{_ARGUMENTS_AS_TEXT}\n{template}", _shown(template, called, names)
    is_refused_or_python = _KEY not in shown or f"'{_KEY}'" in shown
    return texts if is_refused_or_python and f'"{_KEY}"' in _shown(texts, called, names) else template


def _calling(arguments: JsonObject) -> JsonObject:
    call = {"type": "function", "id": _NINE_ID, "function": {"name": _TOOL, "arguments": arguments}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _shown(
    template: str, messages: Sequence[JsonObject], names: tuple[tuple[str, Any], ...], *, prompt: bool = False
) -> str:
    settings = {"enable_thinking": True, "add_generation_prompt": prompt}
    try:
        return rendered(dict(names), template, messages, None, **settings)[0]
    except RowLeftOut:
        return ""


_USUAL_ID, _SHORT_ID, _NINE_ID = "call_8WzLq2nGv0Zx5Jt3Rk7Yp1Bd", "call_0", "q7Rk2Zp9w"
"""An id as most servers give them, one as data sets have them, and one as Mistral's."""
_WORD, _TOOL = "orchard", "find_orchard"
_SAID, _THOUGHT, _KEY = "lantern", "meadow", "harvest_kind"
"""Words, and names of a tool and of an argument, that no template writes by itself."""
_ODD_ARGUMENTS: JsonObject = {_KEY: _WORD, "row_count": 3, "rows": [_SAID, 2], "trees": {"kind": _THOUGHT}}
_ODD_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        _KEY: {"type": "string"},
        "row_count": {"type": "integer"},
        "rows": {"type": "array"},
        "trees": {"type": "object"},
    },
}


@lru_cache(maxsize=16)
def _template_wants(template: str, names: tuple[tuple[str, str], ...]) -> Wants:
    def shown(talk: Sequence[Message], wants: Wants, tools: Sequence[ToolSpec] = ()) -> str | None:
        plain = plain_messages(talk, wants, thinking=False)
        try:
            return rendered(dict(names), template, plain, plain_tools(tools), add_generation_prompt=True)[0]
        except RowLeftOut:
            return None

    asked = (Message(role="user", content=_WORD),)
    text, parts = shown(asked, Wants()), shown(asked, Wants(content="openai"))
    takes_text, takes_parts = (_WORD in (said or "") and "'text'" not in (said or "") for said in (text, parts))
    content: ContentFormat = "string" if takes_text else "openai"
    wants = Wants(content=content if takes_parts else None)

    with_id = shown(_called(_USUAL_ID)[:2], wants) or ""
    if _USUAL_ID in with_id and _TOOL not in with_id:
        return wants._replace(call_ids="functions")
    tool = ToolSpec(function=FunctionSpec(name=_TOOL, description="Finds.", parameters={"type": "object"}))
    ids = (None, _USUAL_ID, _SHORT_ID, _NINE_ID)
    without, usual, short, nine = (shown(_called(id), wants, [tool]) for id in ids)
    if nine is not None and None in (usual, short):
        return wants._replace(call_ids="nine")
    return wants if without == usual else wants._replace(call_ids="any")


def _called(id: str | None) -> tuple[Message, ...]:
    """A question, a call with this id, and its result."""
    call = ToolCall(id=id, function=FunctionCall(name=_TOOL, arguments={}))
    result = Message(role="tool", content="Found.", name=_TOOL, tool_call_id=id)
    return Message(role="user", content=_WORD), Message(role="assistant", tool_calls=(call,)), result
