"""Calls of Qwen3-Coder, Qwen3.5 and later, and Nemotron 3: prose, and functions with parameters in tags.

    prose <tool_call>
    <function=name>
    <parameter=city>
    Oslo
    </parameter>
    </function>
    </tool_call>

Values have no types: the module `typed` reads them by the tool's schema. One line break after a parameter's opening tag
and one before its closing tag belong to the tags. A value may hold any text but a tag that begins or ends a parameter
or ends the function. Only white space may stand between tags.

Every `<tool_call>` that is not part of a call that is read is an attempt, as is every `<function=` outside of those.
"""

import re
from collections.abc import Callable

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    clip,
    end_of_broken,
    problem,
    read_calls,
)
from orchestrator.chat.formats.typed import typed_call

_SPACE = r"[ \t\r\n]*+"
_PARAMETER = r"<parameter=([^<>\n]*+)>((?:(?!</?parameter\b|</function>).)*+)</parameter>"
_FUNCTION = re.compile(rf"{_SPACE}<function=([^<>\n]*+)>{_SPACE}((?:{_PARAMETER}{_SPACE})*+)", re.DOTALL)
_PARAMETERS = re.compile(_PARAMETER, re.DOTALL)
_OPEN_CALL, _CLOSE_CALL = "<tool_call>", "</tool_call>"
_OPEN_FUNCTION, _CLOSE_FUNCTION = "<function=", "</function>"


def _between_line_breaks(value: str) -> str:
    return value.removeprefix("\n").removesuffix("\n")


def xml_reader(opening: str, value: Callable[[str], str] = _between_line_breaks) -> Callable[[str, Schemas], Found]:
    """The reader of this notation with calls between `opening` and its closing tag.

    `value` takes the value of a parameter out of the text between its tags.
    """
    closing = opening.replace("<", "</")
    beginning = re.compile(f"{opening}|{_OPEN_FUNCTION}")
    ending = re.compile(f"{_CLOSE_FUNCTION}{_SPACE}{closing}")

    def read(text: str, schemas: Schemas) -> Found:
        return read_calls(text, beginning, lambda begin: read_attempt(text, begin, schemas))

    def read_attempt(text: str, begin: re.Match[str], schemas: Schemas) -> tuple[Attempt, int]:
        start = begin.end()
        if begin.group() == _OPEN_FUNCTION:
            stop, _ = end_of_broken(text, start, beginning, _CLOSE_FUNCTION)
            return problem("unclosed_tag", f"a function stands outside {opening}: {clip(text[begin.start() :])}"), stop
        function = _FUNCTION.match(text, start)
        if function and (end := ending.match(text, function.end())):
            texts = [(key, value(written)) for key, written in _PARAMETERS.findall(function[2])]
            return typed_call(function[1], texts, schemas), end.end()
        stop, is_closed = end_of_broken(text, start, re.compile(opening), closing)
        if not is_closed:
            return problem("unclosed_tag", f"the call is not closed: {clip(text[start:])}"), stop
        if function is None:
            return problem("not_a_call_object", f"the call has no function: {clip(text[start:stop])}"), stop
        rest = text[function.end() : stop]
        if rest.startswith("<parameter="):
            return problem("unclosed_tag", f"a parameter is not closed: {clip(rest)}"), stop
        return problem("text_inside_tag", f"between the tags of the call stands {clip(rest)}"), stop

    return read


def shows_parameters(chat_template: str) -> bool:
    """Whether a chat template writes functions and parameters in tags."""
    return _OPEN_FUNCTION in chat_template and "<parameter=" in chat_template


QWEN_XML = ReplyFormat(
    name="qwen_xml",
    is_shown_in=lambda template: shows_parameters(template) and _OPEN_CALL in template,
    read=xml_reader(_OPEN_CALL),
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    precedence=1,
    vllm_parser="qwen3_coder",
    reasoning_parser="qwen3",
)
