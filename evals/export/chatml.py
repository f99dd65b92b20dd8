"""A ChatML chat template with calls in Hermes' notation, taken apart, and written as the Go template that Ollama wants.

What differs between such templates is read off what they render: texts around a system message, around the tools, and
before a reply. The rest is the same in all of them, and whatever else a template does is noticed by comparing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from orchestrator.chat.template_input import RowLeftOut, rendered
from orchestrator.core.records import JsonObject

_END = "<|im_end|>\n"
_USER = "<|im_start|>user\n"
_REPLY = "<|im_start|>assistant\n"


class ChatMl(NamedTuple):
    """The texts of one template."""

    default: str
    """Before the first message where there is neither a system message nor a tool."""
    system: tuple[str, str]
    """Around a system message, without tools."""
    tools_alone: str
    """Before the first tool, without a system message."""
    tools_after: tuple[str, str]
    """Before the system message, and between it and the first tool."""
    tools_end: str
    said: str
    """Before an earlier reply."""
    asked: str
    """Before the reply that is asked for."""


def _tool(name: str) -> JsonObject:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": "Tells it.", "parameters": schema}}


def _call(name: str, city: str) -> JsonObject:
    return {"type": "function", "function": {"name": name, "arguments": {"city": city, "days": [1, 2]}}}


def _says(role: str, content: str, *calls: JsonObject) -> JsonObject:
    return {"role": role, "content": content} | ({"tool_calls": list(calls)} if calls else {})


_TOOLS = (_tool("weather_now"), _tool("weather_then"))
_SYSTEM, _ASKED, _SAID = _says("system", "Be brief."), _says("user", "And in Rome?"), _says("assistant", "It is mild.")
_CALLED = _says("assistant", "", _call("weather_now", "Rome"))
_CALLED_TWICE = _says("assistant", "I look.", _call("weather_now", "Oslo"), _call("weather_then", "Bergen"))
_RESULT, _OTHER = _says("tool", '{"sky": "clear"}'), _says("tool", "none")
TALKS: tuple[tuple[JsonObject, ...], ...] = (
    (_ASKED,),
    (_ASKED, _SAID, _ASKED),
    (_ASKED, _CALLED, _RESULT),
    (_ASKED, _CALLED, _RESULT, _SAID, _ASKED, _CALLED_TWICE, _RESULT, _OTHER, _SAID, _ASKED),
    (_ASKED, _CALLED_TWICE, _RESULT, _OTHER),
)
"""Conversations that hold all that a template may do with one, each as it is and behind a system message."""


def chatml_of(tokenizer: PreTrainedTokenizerBase) -> ChatMl | None:
    """The texts of the tokenizer's chat template; None if it is of another kind, or does anything else."""
    names, template = tokenizer.special_tokens_map, str(tokenizer.chat_template)

    def shown(messages: Sequence[JsonObject], tools: Sequence[JsonObject] = (), *, asks: bool = True) -> str:
        return rendered(names, template, messages, list(tools) or None, add_generation_prompt=asks)[0]

    try:
        form = _taken_apart(shown)
        same = form is not None and all(
            shown(talk, tools) == as_rendered(form, talk, tools)
            for messages in TALKS
            for talk in (messages, (_SYSTEM, *messages))
            for tools in ((), _TOOLS[:1], _TOOLS)
        )
    except (RowLeftOut, ValueError):
        return None
    return form if same else None


def _taken_apart(shown: Any) -> ChatMl | None:
    """The texts, or a ValueError or None where they are not found."""
    question = f"{_USER}{_ASKED['content']}{_END}"
    first_tool = f"\n{json.dumps(_TOOLS[0])}"

    def before_question(*args: Any) -> str:
        head, found, _ = shown(*args, asks=False).partition(question)
        if not found:
            raise ValueError
        return str(head)

    before, after = before_question([_SYSTEM, _ASKED]).split(_SYSTEM["content"])
    alone, end = before_question([_ASKED], _TOOLS[:1]).split(first_tool)
    with_system, _ = before_question([_SYSTEM, _ASKED], _TOOLS[:1]).split(first_tool)
    opening, between = with_system.split(_SYSTEM["content"])
    said, ended = shown([_ASKED, _SAID], asks=False).partition(question)[2].split(_SAID["content"])
    asked = shown([_ASKED]).removeprefix(shown([_ASKED], asks=False))
    form = ChatMl(before_question([_ASKED]), (before, after), alone, (opening, between), end, said, asked)
    return form if ended == _END and said.startswith(_REPLY) else None


def as_rendered(form: ChatMl, messages: Sequence[Mapping[str, Any]], tools: Sequence[JsonObject]) -> str:
    """What a template with these texts renders, a reply asked for."""
    first = messages[0]["content"] if messages[0]["role"] == "system" else None
    if tools:
        text = form.tools_alone if first is None else first.join(form.tools_after)
        text += "".join(f"\n{json.dumps(tool, ensure_ascii=False)}" for tool in tools) + form.tools_end
    else:
        text = form.default if first is None else first.join(form.system)
    before = ""
    for message in messages if first is None else messages[1:]:
        role, content = message["role"], message["content"]
        if role == "tool":
            text += f"{'' if before == 'tool' else _USER[:-1]}\n<tool_response>\n{content}\n</tool_response>"
        else:
            text += _END if before == "tool" else ""
            text += (form.said if role == "assistant" else f"<|im_start|>{role}\n") + content
            for number, call in enumerate(message.get("tool_calls", ())):
                name = call["function"]["name"]
                arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
                text += "\n" if number or content else ""
                text += f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
            text += _END
        before = role
    return text + (_END if before == "tool" else "") + form.asked


_GO = (
    '{{ $system := false }}{{ if .Messages }}{{ $system = eq (index .Messages 0).Role "system" }}{{ end }}'
    "{{ if .Tools }}{{ if $system }}TOOLS_BEFORE{{ (index .Messages 0).Content }}TOOLS_BETWEEN"
    "{{ else }}TOOLS_ALONE{{ end }}"
    '{{ range .Tools }}{{ "\\n" }}{"type": "function", "function": {{ .Function }}}{{ end }}TOOLS_END'
    "{{ else if $system }}SYSTEM_BEFORE{{ (index .Messages 0).Content }}SYSTEM_AFTER{{ else }}DEFAULT{{ end }}"
    '{{ $before := "" }}{{ range $i, $m := .Messages }}{{ if eq .Role "tool" }}'
    '{{ if ne $before "tool" }}<|im_start|>user{{ end }}{{ "\\n" }}<tool_response>\n{{ .Content }}\n</tool_response>'
    '{{ else }}{{ if eq $before "tool" }}END{{ end }}'
    '{{ if eq .Role "assistant" }}SAID{{ .Content }}'
    '{{ if .ToolCalls }}{{ range $j, $call := .ToolCalls }}{{ if or $j $m.Content }}{{ "\\n" }}{{ end }}'
    '<tool_call>\n{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}\n</tool_call>'
    "{{ end }}{{ end }}END"
    '{{ else if or $i (ne .Role "system") }}<|im_start|>{{ .Role }}\n{{ .Content }}END{{ end }}'
    '{{ end }}{{ $before = .Role }}{{ end }}{{ if eq $before "tool" }}END{{ end }}ASKED'
)


def go_template(form: ChatMl) -> str:
    """The template in Go's language, over what Ollama gives: Messages and Tools.

    The first text behind `if .ToolCalls` is the tag by which Ollama finds calls in replies.
    """
    texts = {
        "TOOLS_BEFORE": form.tools_after[0],
        "TOOLS_BETWEEN": form.tools_after[1],
        "TOOLS_ALONE": form.tools_alone,
        "TOOLS_END": form.tools_end,
        "SYSTEM_BEFORE": form.system[0],
        "SYSTEM_AFTER": form.system[1],
        "DEFAULT": form.default,
        "SAID": form.said,
        "ASKED": form.asked,
        "END": _END,
    }
    quoted = {name: f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else "" for name, text in texts.items()}
    return re.sub("|".join(texts), lambda name: quoted[name[0]], _GO)
