"""Calls of Gemma 4: prose, and JSON with keys without quotes and texts between tokens, each call in tags.

    prose <|tool_call>call:name{city:<|"|>Oslo<|"|>,days:[1,2.5],exact:true,unit:null}<tool_call|>

A text holds anything but its token. What is neither a text, an object nor an array is a number or constant of strict
JSON; `None` is read as null, because some of the templates print it so. White space may stand where it may in JSON.

Every `<|tool_call>` outside of a call that is read is an attempt.
"""

import re
from collections.abc import Callable
from typing import Any

from orchestrator.chat.formats.reply import (
    THINK_TAGS,
    Attempt,
    Found,
    ParseFault,
    ReplyFormat,
    Schemas,
    clip,
    end_of_broken,
    named_call,
    problem,
    read_calls,
)
from orchestrator.core.records import JsonObject
from orchestrator.notation.strict_json import JSON_SPACE, MAX_DEPTH, StrictJsonError, first_fault, parse, skip_space

_OPEN_CALL, _CLOSE_CALL = "<|tool_call>", "<tool_call|>"
_HEAD = re.compile(rf"[{JSON_SPACE}]*+call:([^\s{{}}()<>:]++)(?=\{{)")
_WORD = r"[^\s{}\[\]:,<>\"]++"
_KEY = re.compile(rf"{_WORD}(?: ++{_WORD})*+")
_BARE = re.compile(_WORD)


class _BrokenError(ValueError):
    """Arguments are malformed; `reason` is that of the problem."""

    def __init__(self, reason: ParseFault, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


class _Reader:
    """Recursive descent over the arguments of one call, whose texts stand between two `quote`s."""

    def __init__(self, text: str, place: int, quote: str) -> None:
        self.text, self.place, self.quote = text, place, quote

    def take(self, token: str) -> bool:
        self.place = skip_space(self.text, self.place)
        if not self.text.startswith(token, self.place):
            return False
        self.place += len(token)
        return True

    def broken(self, wanted: str) -> _BrokenError:
        return _BrokenError("not_json", f"{wanted} is wanted where {clip(self.text[self.place :])} stands")

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _BrokenError("not_strict_json", f"nested deeper than {MAX_DEPTH} levels")
        if self.take(self.quote):
            return self.quoted()
        if self.take("{"):
            return self.object(depth)
        if self.take("["):
            return self.array(depth)
        bare = _BARE.match(self.text, self.place)
        if bare is None:
            raise self.broken("a value")
        try:
            value = None if bare.group() == "None" else parse(bare.group())
        except StrictJsonError as error:
            raise _BrokenError("not_json", f"{clip(bare.group())} is {error.fault.detail}") from None
        self.place = bare.end()
        return value

    def quoted(self) -> str:
        end = self.text.find(self.quote, self.place)
        if end < 0:
            raise self.broken(f"{self.quote} at the end of a text")
        start, self.place = self.place, end + len(self.quote)
        return self.text[start:end]

    def object(self, depth: int) -> JsonObject:
        entries: JsonObject = {}
        if self.take("}"):
            return entries
        while True:
            key = self.key()
            if key in entries:
                raise _BrokenError("not_strict_json", f"the key {clip(key)} stands twice in one object")
            if not self.take(":"):
                raise self.broken("a colon")
            entries[key] = self.value(depth + 1)
            if self.take("}"):
                return entries
            if not self.take(","):
                raise self.broken("a comma or a closing brace")

    def key(self) -> str:
        if self.take(self.quote):
            return self.quoted()
        key = _KEY.match(self.text, self.place)
        if key is None:
            raise self.broken("a key")
        self.place = key.end()
        return key.group()

    def array(self, depth: int) -> list[Any]:
        items: list[Any] = []
        if self.take("]"):
            return items
        while True:
            items.append(self.value(depth + 1))
            if self.take("]"):
                return items
            if not self.take(","):
                raise self.broken("a comma or a closing bracket")


def brace_reader(opening: str, closing: str, quote: str) -> Callable[[str, Schemas], Found]:
    """The reader of this notation with these tags around a call, and `quote` before and after a text."""
    beginning = re.compile(re.escape(opening))

    def read_call(text: str, start: int) -> tuple[Attempt, int]:
        head = _HEAD.match(text, start)
        try:
            if head is None:
                raise _BrokenError("not_a_call_object", f"no call:name{{ stands in the tag: {clip(text[start:])}")
            reader = _Reader(text, head.end(), quote)
            arguments = reader.value(1)
            if not reader.take(closing):
                raise _BrokenError("text_inside_tag", f"after the call stands {clip(text[reader.place :])}")
        except _BrokenError as error:
            stop, is_closed = end_of_broken(text, start, beginning, closing)
            return problem(error.reason if is_closed else "unclosed_tag", str(error)), stop
        if fault := first_fault([head[1], arguments]):
            return problem("not_strict_json", fault.detail), reader.place
        return named_call(head[1], arguments), reader.place

    return lambda text, _schemas: read_calls(text, beginning, lambda begin: read_call(text, begin.end()))


GEMMA4 = ReplyFormat(
    name="gemma4",
    is_shown_in=lambda template: _OPEN_CALL in template,
    read=brace_reader(_OPEN_CALL, _CLOSE_CALL, '<|"|>'),
    mark=_OPEN_CALL,
    closing_tag=_CLOSE_CALL,
    thoughts=(("<|channel>thought", "<channel|>"), *THINK_TAGS),
    vllm_parser="gemma4",
    reasoning_parser="gemma4",
)
