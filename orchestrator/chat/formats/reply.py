"""What a reply is read into, what a reply format is, and what the formats share: strict JSON inside a text."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pydantic import Field

from orchestrator.core.records import FunctionCall, JsonObject, Record, ToolCall, ToolSpec
from orchestrator.notation.strict_json import JSON_SPACE, StrictJsonError, first_fault, parse_marked_prefix, skip_space

ParseFault = Literal[
    "unclosed_tag",
    "not_json",
    "not_strict_json",
    "not_a_call_object",
    "text_inside_tag",
    "text_beside_call",
    "not_pythonic",
    "not_schema_type",
]


class ParseProblem(Record):
    """Why an attempt at a call is no call."""

    reason: ParseFault
    detail: str


Attempt = ToolCall | ParseProblem
"""What an attempt at a call comes to."""


class ParsedReply(Record):
    """A reply taken apart by `parse.parse_reply`: each attempt at a call is one of `calls` or one of `problems`.

    `prose` is the text outside think blocks and calls.
    """

    calls: tuple[ToolCall, ...]
    prose: str
    thinking: str | None
    problems: tuple[ParseProblem, ...]


class ServedReply(Record):
    """What vLLM's own parser would return to a client of `vllm serve --tool-call-parser PARSER`.

    `calls` are names and arguments, the arguments as text. `thinking` is what the server's reasoning parser takes for
    thoughts. `error` is the parser's own exception, as one line.
    """

    parser: str
    calls: tuple[tuple[str, str], ...]
    content: str
    error: str | None = None
    thinking: str | None = Field(default=None, exclude_if=lambda value: value is None)


Schemas = Mapping[str, JsonObject]
"""By the name of an offered tool, the JSON Schema of its parameters."""

THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What opens and closes a think block in most families."""


def schemas_of(tools: Iterable[ToolSpec]) -> dict[str, JsonObject]:
    """The schema of each tool's arguments, by its name."""
    return {tool.function.name: tool.function.arguments_schema for tool in tools}


class Found(NamedTuple):
    """What the reader of a format finds in a reply without its think block."""

    calls: tuple[ToolCall, ...] = ()
    problems: tuple[ParseProblem, ...] = ()
    prose: str = ""


@dataclass(frozen=True)
class ReplyFormat:
    """How one family of models writes its calls.

    Args:
        name: Its name in the configuration and on the command line.
        is_shown_in: Whether a chat template, as text, shows calls in this format.
        read: The strict reader of a reply without its think block. It never raises. Formats that write values without
            their types read them by the schemas of the offered tools.
        mark: What opens a call anywhere in a reply; None if a call is known by its shape alone.
        closing_tag: What ends a call that `mark` opened; None if the JSON or Python itself ends it.
        other_marks: Further texts that stand only where calls are written: a second mark, or the parts of a call.
        beginnings: What a call without a mark begins with, if it is the whole reply.
        precedence: The lowest wins where a template shows several formats: 0 for a mark that only this family has,
            more for calls that look like other text.
        thoughts: What opens and closes a think block, most usual first.
        reasoning_parser: PARSER in `vllm serve --reasoning-parser PARSER`, for models that think.
        ends: The tokens that end a turn, if only these do in this format.
        vllm_parser: PARSER in `vllm serve --tool-call-parser PARSER`; None if vLLM has none for the format.
    """

    name: str
    is_shown_in: Callable[[str], bool]
    read: Callable[[str, Schemas], Found]
    mark: str | None = None
    closing_tag: str | None = None
    other_marks: tuple[str, ...] = ()
    beginnings: tuple[str, ...] = ()
    precedence: int = 0
    thoughts: tuple[tuple[str, str], ...] = THINK_TAGS
    reasoning_parser: str = "deepseek_r1"
    ends: tuple[str, ...] = ()
    vllm_parser: str | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        """The texts that stand only where calls are written."""
        return (*(tag for tag in (self.mark, self.closing_tag) if tag is not None), *self.other_marks)

    def opens_call(self, text: str) -> bool:
        """Whether a call begins in the beginning of a reply."""
        return any(tag in text for tag in self.tags if tag != self.closing_tag) or text.startswith(self.beginnings)


UNREAD_MARKS = (
    *("<tool_call", "<functioncall>", "<function_call", "<function=", "<|tool_call"),
    *("<invoke name=", "\u273fFUNCTION\u273f"),
)
"""Marks of calls in replies and data sets that no format here reads."""
_MARK_IN_TEMPLATE = re.compile(
    r"<[|\uff5c]?/?\w{0,20}(?:tool|function)[\w\u2581]{0,20}call[\w\u2581]{0,20}[|\uff5c]?>"
    r"|functools\[|<\w{0,20}TOOLCALL|to=functions",
    re.IGNORECASE,
)


def marks_calls(chat_template: str) -> bool:
    """Whether a chat template marks its calls, as those of Granite, Phi-4, DeepSeek, LFM2, Gemma 4 and gpt-oss do."""
    return _MARK_IN_TEMPLATE.search(chat_template) is not None


class Decoded(NamedTuple):
    """The JSON value at a place of a reply, and the place after it.

    With broken syntax `is_read` is False and `end` is where the value should have begun. A value with another fault
    may hold marks in place of what is not JSON.
    """

    value: Any
    end: int
    fault: ParseProblem | None
    is_read: bool = True


def decode_value(text: str, start: int, marks: re.Pattern[str] | None = None) -> Decoded:
    """Decode the JSON value at `start`, after any white space.

    `marks` are where the next call may begin or this one end. Only text before the next mark outside a string of the
    value is looked at, so a reply of many broken calls is read in linear time.
    """

    def next_mark(start: int) -> int:
        mark = marks.search(text, start) if marks else None
        return mark.start() if mark else len(text)

    begin = skip_space(text, start)
    stop = next_mark(begin)
    while True:
        try:
            value, length = parse_marked_prefix(text[begin:stop])
        except StrictJsonError as error:
            if error.ends_in_string and stop < len(text):
                # At least twice as far each time, so that what is read again adds up to no more than a constant factor.
                stop = next_mark(begin + 2 * (stop - begin))
                continue
            reason: ParseFault = "not_strict_json" if error.fault.code == "too_deep" else "not_json"
            return Decoded(None, begin, problem(reason, error.fault.detail), is_read=False)
        fault = first_fault(value)
        return Decoded(value, begin + length, problem("not_strict_json", fault.detail) if fault else None)


def read_tagged(
    text: str, start: int, tags: re.Pattern[str], closing: str, attempts: Callable[[Any], list[Attempt]]
) -> tuple[list[Attempt], int]:
    """What `attempts` makes of the JSON value in the tag that ends at `start`; also the place from which to read on.

    `tags` finds all tags of the notation, and `closing` ends this one.
    """
    decoded = decode_value(text, start, tags)
    tag = tags.search(text, decoded.end)
    if tag is None:
        return [problem("unclosed_tag", f"the reply ends inside the call {clip(text[start:])}")], len(text)
    if tag.group() != closing:
        return [problem("unclosed_tag", "another call begins before this one is closed")], tag.start()
    if decoded.fault:
        return [decoded.fault], tag.end()
    if trailing := text[decoded.end : tag.start()].strip(JSON_SPACE):
        return [problem("text_inside_tag", f"after the call stands {clip(trailing)}")], tag.end()
    return attempts(decoded.value), tag.end()


def as_call(
    value: object, *, name_keys: tuple[str, ...] = ("name",), arguments_keys: tuple[str, ...] = ("arguments",)
) -> Attempt:
    """The call that a JSON value stands for: an object of exactly one of `name_keys` and one of `arguments_keys`."""
    if not isinstance(value, dict):
        return not_a_call(f"a call is an object, not {json_type(value)}")
    names = [key for key in name_keys if key in value]
    arguments = [key for key in arguments_keys if key in value]
    if len(value) != 2 or len(names) != 1 or len(arguments) != 1:
        wanted = f"{' or '.join(name_keys)} and {' or '.join(arguments_keys)}"
        return not_a_call(f"a call has the keys {wanted}, not {clip(', '.join(sorted(value)) or 'none')}")
    return named_call(value[names[0]], value[arguments[0]])


def named_call(name: object, arguments: object, *, id: str | None = None) -> Attempt:
    """The call of a name and arguments, or what is wrong with either."""
    if not isinstance(name, str) or not name:
        return not_a_call("name is a non-empty string")
    if not isinstance(arguments, dict):
        return not_a_call(f"arguments are an object, not {json_type(arguments)}")
    return ToolCall(id=id, function=FunctionCall(name=name, arguments=arguments))


def sort_out(attempts: Iterable[Attempt], prose: str = "") -> Found:
    """Attempts at calls, divided into calls and problems."""
    every = list(attempts)
    calls = tuple(attempt for attempt in every if isinstance(attempt, ToolCall))
    return Found(calls, tuple(attempt for attempt in every if isinstance(attempt, ParseProblem)), prose)


def read_calls(text: str, beginning: re.Pattern[str], read: Callable[[re.Match[str]], tuple[Attempt, int]]) -> Found:
    """What is found in a reply in which each `beginning` outside of a call is an attempt.

    `read` gets the beginning, and gives the attempt and the place from which to read on.
    """
    attempts: list[Attempt] = []
    prose: list[str] = []
    place = 0
    while begin := beginning.search(text, place):
        prose.append(text[place : begin.start()])
        attempt, place = read(begin)
        attempts.append(attempt)
    prose.append(text[place:])
    return sort_out(attempts, "".join(prose))


def end_of_broken(text: str, start: int, beginning: re.Pattern[str], closing: str) -> tuple[int, bool]:
    """Where a malformed call ends whose tag ends at `start`, and whether it is closed before another call begins."""
    another = beginning.search(text, start)
    stop = another.start() if another else len(text)
    found = text.find(closing, start, stop)
    return (stop, False) if found < 0 else (found + len(closing), True)


def text_beside(before: str, after: str) -> ParseProblem:
    """The problem of text before or after calls that stand alone in their format."""
    where, words = ("before", before) if before.strip() else ("after", after)
    return problem("text_beside_call", f"{where} the call stands {clip(words.strip())}")


def not_a_call(detail: str) -> ParseProblem:
    """The problem of well-formed text that is no call."""
    return problem("not_a_call_object", detail)


def problem(reason: ParseFault, detail: str) -> ParseProblem:
    """A problem whose detail can be written as UTF-8."""
    return ParseProblem(reason=reason, detail=without_lone_surrogates(detail))


def json_type(value: object) -> str:
    """The type of a JSON value, with its article."""
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


def clip(text: str, length: int = 120) -> str:
    """The beginning of a text as a quotation."""
    return repr(text if len(text) <= length else text[:length] + "...")


def without_lone_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate; two halves that belong together become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
