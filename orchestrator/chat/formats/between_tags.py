"""What notations share that write calls as JSON between two tags, as Command, Hunyuan, InternLM and MiniMax M1 do.

    prose OPENING [{"name": "...", "arguments": {...}}, ...] CLOSING prose

Every opening tag outside the strings of a call is an attempt, as is a closing tag without one. In an array every item
is an attempt. Where objects stand one a line each of them is one, up to the first that is broken.
"""

import re
from collections.abc import Callable
from typing import Any

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    Schemas,
    as_call,
    clip,
    decode_value,
    not_a_call,
    problem,
    read_tagged,
    sort_out,
)
from orchestrator.notation.strict_json import skip_space

_Inside = Callable[[str, int, re.Pattern[str]], tuple[list[Attempt], int]]
"""Reads what stands behind an opening tag; also gives the place from which to read on."""


def value_reader(
    opening: str, closing: str, attempts: Callable[[Any], list[Attempt]]
) -> Callable[[str, Schemas], Found]:
    """The reader of one JSON value between these tags, of which `attempts` makes attempts at calls."""
    return _reader(opening, closing, lambda text, start, tags: read_tagged(text, start, tags, closing, attempts))


def lines_reader(opening: str, closing: str) -> Callable[[str, Schemas], Found]:
    """The reader of JSON objects between these tags, one after the other."""

    def inside(text: str, start: int, tags: re.Pattern[str]) -> tuple[list[Attempt], int]:
        attempts, place = list[Attempt](), skip_space(text, start)
        while not text.startswith(closing, place):
            decoded = decode_value(text, place, tags)
            attempts.append(decoded.fault or as_call(decoded.value))
            place = skip_space(text, decoded.end)
            if place == len(text) or text.startswith(opening, place):
                return [
                    *attempts[:-1],
                    problem("unclosed_tag", f"the calls are not closed: {clip(text[start : start + 200])}"),
                ], place
            if not decoded.is_read:
                following = tags.search(text, place)
                place = following.start() if following else len(text)
                is_closed = text.startswith(closing, place)
                return attempts, place + len(closing) * is_closed
        return attempts or [not_a_call("between the tags stands no call")], place + len(closing)

    return _reader(opening, closing, inside)


def _reader(opening: str, closing: str, inside: _Inside) -> Callable[[str, Schemas], Found]:
    tags = re.compile(f"{re.escape(opening)}|{re.escape(closing)}")

    def read(text: str, _schemas: Schemas) -> Found:
        attempts, prose, place = list[Attempt](), list[str](), 0
        while tag := tags.search(text, place):
            prose.append(text[place : tag.start()])
            if tag.group() == opening:
                found, place = inside(text, tag.end(), tags)
            else:
                found, place = [problem("unclosed_tag", "nothing opens the calls that are closed")], tag.end()
            attempts += found
        prose.append(text[place:])
        return sort_out(attempts, " ".join(prose))

    return read


def array_of(read_item: Callable[[Any], Attempt] = as_call) -> Callable[[Any], list[Attempt]]:
    """Makes attempts of the items of an array."""

    def attempts(value: Any) -> list[Attempt]:
        if not isinstance(value, list):
            return [not_a_call("between the tags stands no array of calls")]
        return [*map(read_item, value)] or [not_a_call("the array of calls is empty")]

    return attempts
