"""What a chat template is given: messages and tools as `vllm serve` gives them to it, with what it needs beside."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from orchestrator.chat.call_ids import CallIds, with_call_ids
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

_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
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


_EACH_MESSAGE = (
    "{%- set given = namespace(messages=[]) %}{%- for message in messages %}"
    "MESSAGE{%- set given.messages = given.messages + [message] %}{%- endfor %}{%- set messages = given.messages %}"
)
_THOUGHTS_AS_THINKING = _EACH_MESSAGE.replace(
    "MESSAGE",
    "{%- if message.reasoning_content %}{%- set message = dict(message, thinking=message.reasoning_content) %}"
    "{%- endif %}",
)
_ARGUMENTS_AS_TEXT = _EACH_MESSAGE.replace(
    "MESSAGE",
    "{%- if message.tool_calls %}{%- set told = namespace(calls=[]) %}{%- for call in message.tool_calls %}"
    "{%- set own = call.function.arguments %}{%- set text = own if own is string else own | tojson %}"
    "{%- set told.calls = told.calls + [dict(call, function=dict(call.function, arguments=text))] %}{%- endfor %}"
    "{%- set message = dict(message, tool_calls=told.calls) %}{%- endif %}",
)


def adapted_template(template: str, names: Mapping[str, Any]) -> str:
    """A template that takes what it is given here and by `vllm serve`, whatever it was written for.

    That are arguments of calls as objects, where it wants text, and thoughts as `reasoning_content`, where it looks for
    `thinking`. A template that takes them as they are is returned as it is.
    """
    asked: JsonObject = {"role": "user", "content": _WORD}
    call = {"type": "function", "function": {"name": _TOOL, "arguments": {_KEY: _WORD}}}
    thought = [asked, {"role": "assistant", "content": _SAID, "reasoning_content": _THOUGHT}]
    called = [asked, {"role": "assistant", "content": "", "tool_calls": [call]}]

    thinking = f"{_THOUGHTS_AS_THINKING}\n{template}"
    if _THOUGHT not in _shown(template, thought, names) and _THOUGHT in _shown(thinking, thought, names):
        template = thinking
    texts, shown = f"{_ARGUMENTS_AS_TEXT}\n{template}", _shown(template, called, names)
    is_refused_or_python = _KEY not in shown or f"'{_KEY}'" in shown
    return texts if is_refused_or_python and f'"{_KEY}"' in _shown(texts, called, names) else template


def _shown(template: str, messages: Sequence[JsonObject], names: Mapping[str, Any]) -> str:
    try:
        return rendered(names, template, messages, None, enable_thinking=True)[0]
    except RowLeftOut:
        return ""


_USUAL_ID, _NINE_ID = "call_8WzLq2nGv0Zx5Jt3Rk7Yp1Bd", "q7Rk2Zp9w"
"""An id as most servers give them, and one as Mistral's."""
_WORD, _TOOL = "orchard", "find_orchard"
_SAID, _THOUGHT, _KEY = "lantern", "meadow", "harvest_kind"
"""Words, and names of a tool and of an argument, that no template writes by itself."""


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
    without, usual, nine = (shown(_called(id), wants, [tool]) for id in (None, _USUAL_ID, _NINE_ID))
    if nine is not None and usual is None:
        return wants._replace(call_ids="nine")
    return wants if without == usual else wants._replace(call_ids="any")


def _called(id: str | None) -> tuple[Message, ...]:
    """A question, a call with this id, and its result."""
    call = ToolCall(id=id, function=FunctionCall(name=_TOOL, arguments={}))
    result = Message(role="tool", content="Found.", name=_TOOL, tool_call_id=id)
    return Message(role="user", content=_WORD), Message(role="assistant", tool_calls=(call,)), result
