"""What notations share that write calls between tokens in a section of their own, as DeepSeek V3 and Kimi K2 do.

    prose SECTION CALL head {...} CALL_END CALL head {...} CALL_END SECTION_END prose

Any text in the place of a call is an attempt: each CALL, text in a section that is no call, and an empty section. The
last call of a section that is not closed is a problem, because the reply was cut there.
"""

import re
from dataclasses import dataclass

from orchestrator.chat.formats.reply import (
    Attempt,
    Found,
    ParseProblem,
    clip,
    decode_value,
    named_call,
    not_a_call,
    problem,
    sort_out,
)
from orchestrator.notation.strict_json import JSON_SPACE, first_fault


@dataclass(frozen=True)
class Sections:
    """The tokens of one notation.

    Args:
        section: What opens and closes a section of calls.
        call: What opens and closes a call.
        head: All that stands between the opening of a call and the JSON of its arguments, with the group `name` and, if
            calls have ids, `id`.
        tail: What closes a call after that JSON.
        one_line: Whether that JSON has to stand on one line.
    """

    section: tuple[str, str]
    call: tuple[str, str]
    head: re.Pattern[str]
    tail: re.Pattern[str]
    one_line: bool = False

    @property
    def marks(self) -> re.Pattern[str]:
        """Finds the next token."""
        return re.compile("|".join(map(re.escape, (*self.section, *self.call))))

    def read(self, text: str) -> Found:
        """The calls of a reply, its problems, and the text outside sections."""
        marks, attempts, prose, place = self.marks, list[Attempt](), list[str](), 0
        while mark := marks.search(text, place):
            prose.append(text[place : mark.start()])
            if mark.group() == self.section[0]:
                found, place = self._read_section(text, mark.end(), marks)
                attempts += found
            elif mark.group() == self.call[0]:
                _, place = self._read_call(text, mark.end(), marks)
                attempts.append(not_a_call("the call stands outside a section of calls"))
            else:
                place = mark.end()
                attempts.append(problem("unclosed_tag", f"nothing opens what {mark.group()} closes"))
        prose.append(text[place:])
        return sort_out(attempts, "".join(prose))

    def _read_section(self, text: str, place: int, marks: re.Pattern[str]) -> tuple[list[Attempt], int]:
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
            if mark.group() == self.call[0]:
                attempt, place = self._read_call(text, mark.end(), marks)
            else:
                attempt, place = problem("unclosed_tag", f"nothing opens what {mark.group()} closes"), mark.end()
            attempts.append(attempt)

    def _read_call(self, text: str, start: int, marks: re.Pattern[str]) -> tuple[Attempt, int]:
        """Read the call whose opening ends at `start`; also the place from which to read on."""
        head = self.head.match(text, start)
        if head is None:
            return self._broken(text, start, marks, not_a_call("no name stands before the arguments"))
        decoded = decode_value(text, head.end(), marks)
        tail = self.tail.match(text, decoded.end)
        fault = decoded.fault
        if fault is None and (found := first_fault(list(head.groups()))):
            fault = problem("not_strict_json", found.detail)
        if not decoded.is_read or tail is None:
            stands = clip(text[decoded.end : decoded.end + 200].strip(JSON_SPACE))
            inside = problem("text_inside_tag", f"after the arguments stands {stands}")
            return self._broken(text, decoded.end, marks, fault or inside)
        if fault is None and self.one_line and "\n" in text[head.end() : decoded.end]:
            fault = problem("not_json", "the arguments do not stand on one line")
        groups = head.groupdict()
        return fault or named_call(groups["name"], decoded.value, id=groups.get("id")), tail.end()

    def _broken(self, text: str, start: int, marks: re.Pattern[str], fault: ParseProblem) -> tuple[Attempt, int]:
        """The fault of a call that goes wrong at `start`, or that it is not closed; also where to read on."""
        mark = marks.search(text, start)
        if mark is None:
            return problem("unclosed_tag", f"the reply ends inside the call {clip(text[start:])}"), len(text)
        if mark.group() == self.call[1]:
            return fault, mark.end()
        return problem("unclosed_tag", "the call is not closed"), mark.start()
