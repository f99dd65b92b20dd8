"""Calls written like Python, as by ToolACE and some Llama models: one list, and nothing beside it.

    [name(argument="value", other=[1, 2.5, None]), other.name()]

Read by `orchestrator.notation.pythonic`: arguments are keywords with literal values, names may hold spaces and dots,
but no marks such as `<` or quotes, and `true`, `false` and `null` are read as in JSON.

An attempt is a text that begins with `[name(` and goes on with an argument, `)` or a literal, or ends with `)]`; one
that begins with `[name`, has a `=` and ends with `)]`; one that is `name(argument=...)` or `name()` without the list's
brackets; and one in which `[name(argument=` or `[name()` stands, with a name of letters, digits, dots and underscores.
`[1] a note (see below)` and an empty list are prose.
"""

import re

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ReplyFormat,
    Schemas,
    clip,
    marks_calls,
    named_call,
    problem,
    sort_out,
    text_beside,
)
from orchestrator.core.records import JsonObject
from orchestrator.notation.pythonic import PythonicError, opens_like_calls, parse_calls
from orchestrator.notation.strict_json import first_fault

# Every repetition is possessive or bounded, so that a text of brackets alone is searched in linear time.
_NAME = r"[^\W\d][\w.]{0,120}+"
_ARGUMENT = r"(?:\)|[^\W\d]\w{0,120}+\s?=(?!=))"
_LIST_IN_TEXT = re.compile(rf"\[\s?{_NAME}\(\s?{_ARGUMENT}")
_BARE_CALL = re.compile(rf"{_NAME}\(\s*+{_ARGUMENT}")
_LIST_OF_NAMES = re.compile(r"\[\s*+[^\W\d]")
_GOES_ON = re.compile(rf"\[[^()\[\]{{}}=]*+\(\s*+(?:{_ARGUMENT}|[\"'\[{{\d-])")
_WORDS = re.compile(r"[^\s'<>|｜`\\]++(?: ++[^\s'<>|｜`\\]++)*+")
_CALL_IN_TEMPLATE = re.compile(r"\[\w+\(\w+=")


def _is_shown_in(chat_template: str) -> bool:
    """Whether the template shows a list of calls, `[name(argument=...`, and has no mark of another notation."""
    return _CALL_IN_TEMPLATE.search(chat_template) is not None and not marks_calls(chat_template)


def _read(text: str, _schemas: Schemas) -> Found:
    if not _is_attempt(text):
        return Found(prose=text)
    if not text.startswith("[") and (inside := _LIST_IN_TEXT.search(text)):
        beside = text[: inside.start()]
        return Found(problems=(text_beside(beside, ""),), prose=beside)
    try:
        calls = parse_calls(text)
    except PythonicError as error:
        return _refused(text, error)
    return sort_out(_attempts(calls))


def read_python_calls(text: str) -> list[Attempt]:
    """What a list of calls that is all of the text comes to; empty for an empty list."""
    try:
        return _attempts(parse_calls(text))
    except PythonicError as error:
        return [problem("not_pythonic", str(error))]


def _attempts(calls: list[tuple[str, JsonObject]]) -> list[Attempt]:
    if fault := first_fault([list(call) for call in calls]):
        return [problem("not_pythonic", fault.detail)]
    return [_attempt(name, arguments) for name, arguments in calls]


def _attempt(name: str, arguments: JsonObject) -> Attempt:
    odd = next((word for word in (name, *arguments) if not _WORDS.fullmatch(word)), None)
    return named_call(name, arguments) if odd is None else problem("not_pythonic", f"no name is {clip(odd)}")


def _is_attempt(text: str) -> bool:
    ends_list = text.endswith(")]")
    return bool(
        (opens_like_calls(text) and (ends_list or _GOES_ON.match(text)))
        or (ends_list and "=" in text and _LIST_OF_NAMES.match(text))
        or (text.endswith((")", ")]")) and _BARE_CALL.match(text))
        or _LIST_IN_TEXT.search(text)
    )


def _refused(text: str, error: PythonicError) -> Found:
    before, after = text[: error.position], text[error.position :]
    try:
        parse_calls(before)
    except PythonicError:
        return Found(problems=(problem("not_pythonic", str(error)),))
    return Found(problems=(text_beside("", after),), prose=after)


PYTHONIC = ReplyFormat(
    name="pythonic", is_shown_in=_is_shown_in, read=_read, beginnings=("[",), precedence=2, vllm_parser="pythonic"
)
