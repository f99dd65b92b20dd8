"""What notations share that write calls in a section of their own, as DeepSeek, Kimi K2 and MiniMax M2 do.

    prose SECTION CALL body CALL_END CALL body CALL_END SECTION_END prose

Any text in the place of a call is an attempt: each CALL, text in a section that is no call, and an empty section. The
last call of a section that is not closed is a problem, because the reply was cut there.

A body is a name with JSON, or has parameters in tags, as in

    <invoke name="get_weather"><parameter name="city">Oslo</parameter></invoke>
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ParseProblem,
    Schemas,
    clip,
    decode_value,
    named_call,
    not_a_call,
    problem,
    sort_out,
)
from orchestrator.notation.strict_json import JSON_SPACE, first_fault

_SPACE = f"[{JSON_SPACE}]*+"


class Body(NamedTuple):
    """What the body of a call comes to, and the place after the call; or its fault, and the place that is wrong."""

    attempt: Attempt
    end: int
    is_closed: bool = True


@dataclass(frozen=True)
class Sections:
    """How one notation writes sections and calls.

    Args:
        section: What opens and closes a section of calls.
        call: What opens and closes a call.
        body: Reads the body that begins at a place and the end of its call; also given the marks of all four.
    """

    section: tuple[str, str]
    call: tuple[str, str]
    body: Callable[[str, int, re.Pattern[str], Schemas], Body]

    def read(self, text: str, schemas: Schemas) -> Found:
        """The calls of a reply, its problems, and the text outside sections."""
        marks = re.compile("|".join(map(re.escape, (*self.section, *self.call))))
        attempts, prose, place = list[Attempt](), list[str](), 0
        while mark := marks.search(text, place):
            prose.append(text[place : mark.start()])
            if mark.group() == self.section[0]:
                found, place = self._read_section(text, mark.end(), marks, schemas)
                attempts += found
            elif mark.group() == self.call[0]:
                _, place = self._read_call(text, mark.end(), marks, schemas)
                attempts.append(not_a_call("the call stands outside a section of calls"))
            else:
                place = mark.end()
                attempts.append(problem("unclosed_tag", f"nothing opens what {mark.group()} closes"))
        prose.append(text[place:])
        return sort_out(attempts, "".join(prose))

    def _read_section(
        self, text: str, place: int, marks: re.Pattern[str], schemas: Schemas
    ) -> tuple[list[Attempt], int]:
        """What stands in the section that begins at `place`; also the place after it."""
        attempts: list[Attempt] = []
        while True:
            mark = marks.search(text, place)
            end = mark.start() if mark else len(text)
            if beside := text[place:end].strip(JSON_SPACE):
                attempts.append(problem("text_inside_tag", f"in the section of calls stands {clip(beside)}"))
            if mark is None or mark.group() == self.section[0]:
                if not attempts or not isinstance(attempts[-1], ParseProblem):
                    attempts[-1:] = [problem("unclosed_tag", "the section of calls is not closed")]
                return attempts, end
            if mark.group() == self.section[1]:
                return attempts or [not_a_call("the section of calls is empty")], mark.end()
            place = mark.end()
            if mark.group() == self.call[0]:
                attempt, place = self._read_call(text, place, marks, schemas)
                attempts.append(attempt)
            elif not beside:
                attempts.append(problem("unclosed_tag", f"nothing opens what {mark.group()} closes"))

    def _read_call(self, text: str, start: int, marks: re.Pattern[str], schemas: Schemas) -> tuple[Attempt, int]:
        """Read the call whose opening ends at `start`; also the place from which to read on."""
        body = self.body(text, start, marks, schemas)
        if body.is_closed:
            return body.attempt, body.end
        mark = marks.search(text, body.end)
        if mark is None:
            return problem("unclosed_tag", f"the reply ends inside the call {clip(text[start:])}"), len(text)
        if mark.group() == self.call[1]:
            return body.attempt, mark.end()
        return problem("unclosed_tag", "the call is not closed"), mark.start()


def json_body(
    head: re.Pattern[str], tail: re.Pattern[str], *, one_line: bool = False
) -> Callable[[str, int, re.Pattern[str], Schemas], Body]:
    """Reads a body that is a name with the JSON of its arguments.

    Args:
        head: All that stands before the JSON, with the group `name` and, if calls have ids, `id`.
        tail: All that stands after it, to the end of the call.
        one_line: Whether the JSON has to stand on one line.
    """

    def read(text: str, start: int, marks: re.Pattern[str], _schemas: Schemas) -> Body:
        begin = head.match(text, start)
        if begin is None:
            return Body(not_a_call("no name stands before the arguments"), start, is_closed=False)
        decoded = decode_value(text, begin.end(), marks)
        end = tail.match(text, decoded.end)
        fault = decoded.fault
        if fault is None and (found := first_fault(list(begin.groups()))):
            fault = problem("not_strict_json", found.detail)
        if not decoded.is_read or end is None:
            stands = clip(text[decoded.end : decoded.end + 200].strip(JSON_SPACE))
            inside = problem("text_inside_tag", f"after the arguments stands {stands}")
            return Body(fault or inside, decoded.end, is_closed=False)
        if fault is None and one_line and "\n" in text[begin.end() : decoded.end]:
            fault = problem("not_json", "the arguments do not stand on one line")
        groups = begin.groupdict()
        return Body(fault or named_call(groups["name"], decoded.value, id=groups.get("id")), end.end())

    return read


def invoke_call(prefix: str) -> tuple[str, str]:
    """What opens and closes a call with parameters in tags, whose names begin with `prefix`."""
    return f'<{prefix}invoke name="', f"</{prefix}invoke>"


def invoke_body(
    prefix: str, attributes: str, to_call: Callable[[str, list[tuple[str, ...]], Schemas], Attempt]
) -> Callable[[str, int, re.Pattern[str], Schemas], Body]:
    """Reads a body with parameters in tags. Only white space may stand between tags.

    A value is all text between its tags, which is any but a tag of a parameter or the end of the call.

    Args:
        prefix: What the names of tags begin with.
        attributes: A pattern of what a parameter has beside its name, in groups.
        to_call: Makes the call of a name and its parameters, each with name, groups of `attributes`, and text.
    """
    parameter, end = f"{prefix}parameter", invoke_call(prefix)[1]
    one = rf'<{parameter} name="([^"<>\n]++)"{attributes}>((?:(?!</?{parameter}\b|{end}).)*+)</{parameter}>'
    every = re.compile(one, re.DOTALL)
    whole = re.compile(rf'([^"<>\n]++)">{_SPACE}((?:{one}{_SPACE})*+)', re.DOTALL)

    def read(text: str, start: int, _marks: re.Pattern[str], schemas: Schemas) -> Body:
        found = whole.match(text, start)
        if found is None:
            return Body(not_a_call(f"no name stands in {clip(text[start : start + 200])}"), start, is_closed=False)
        if not text.startswith(end, found.end()):
            beside = clip(text[found.end() : found.end() + 200])
            inside = problem("text_inside_tag", f"where a parameter or the end of the call is due stands {beside}")
            return Body(inside, found.end(), is_closed=False)
        return Body(to_call(found[1], every.findall(found[2]), schemas), found.end() + len(end))

    return read
