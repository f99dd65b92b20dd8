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
    problem,
    sort_out,
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
        attempts: list[Attempt] = []
        prose: list[str] = []
        place = 0
        while begin := beginning.search(text, place):
            prose.append(text[place : begin.start()])
            attempt, place = read_attempt(text, begin, schemas)
            attempts.append(attempt)
        prose.append(text[place:])
        return sort_out(attempts, "".join(prose))

    def read_attempt(text: str, begin: re.Match[str], schemas: Schemas) -> tuple[Attempt, int]:
        """What begins at a tag; also the place from which to read on."""
        if begin.group() == _OPEN_FUNCTION:
            following = beginning.search(text, begin.end())
            stop = after(text, _CLOSE_FUNCTION, begin.end(), following.start() if following else len(text))
            return problem("unclosed_tag", f"a function stands outside {opening}: {clip(text[begin.start() :])}"), stop
        function = _FUNCTION.match(text, begin.end())
        if function and (end := ending.match(text, function.end())):
            texts = [(key, value(written)) for key, written in _PARAMETERS.findall(function[2])]
            return typed_call(function[1], texts, schemas), end.end()
        another = text.find(opening, begin.end())
        stop = after(text, closing, begin.end(), another if another >= 0 else len(text))
        if not text.startswith(closing, stop - len(closing)):
            return problem("unclosed_tag", f"the call is not closed: {clip(text[begin.end() :])}"), stop
        if function is None:
            return problem(
                "not_a_call_object", f"in {opening} stands no function: {clip(text[begin.end() : stop])}"
            ), stop
        rest = text[function.end() : stop]
        if rest.startswith("<parameter="):
            return problem("unclosed_tag", f"a parameter is not closed: {clip(rest)}"), stop
        return problem("text_inside_tag", f"between the tags of the call stands {clip(rest)}"), stop

    return read


def after(text: str, tag: str, start: int, stop: int) -> int:
    """The place after the first such tag between two places; the later place if there is none."""
    found = text.find(tag, start, stop)
    return stop if found < 0 else found + len(tag)


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
)
