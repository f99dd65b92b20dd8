"""How vLLM's parsers read replies otherwise than the strict readers, each way by its name."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from gold_calls import Gold

from orchestrator.chat.formats.reply import ParsedReply, ServedReply
from orchestrator.chat.parse import CALL_MARKS, END_OF_TURN, THOUGHTS, serving_differs


class Reading(NamedTuple):
    gold: Gold
    text: str
    strict: ParsedReply
    served: ServedReply

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(call.function.name, call.function.arguments) for call in self.strict.calls]

    @property
    def sent(self) -> list[tuple[str, Any]]:
        return [(name, arguments) for name, arguments in self.served.calls]


def loose(value: Any) -> Any:
    """A value with its types taken away, at any depth."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            return value.strip()
        return inner if isinstance(inner, str) else loose(inner)
    if isinstance(value, dict):
        return {key.strip(): loose(inner) for key, inner in value.items()}
    return [*map(loose, value)] if isinstance(value, list) else str(value)


def same(one: list[tuple[str, Any]], other: list[tuple[str, Any]]) -> bool:
    untyped = ([(name.strip(), loose(given)) for name, given in calls] for calls in (one, other))
    return next(untyped) == next(untyped)


def offered(reading: Reading) -> list[tuple[str, Any]]:
    names = {tool.function.name for tool in reading.gold.tools}
    return [call for call in reading.calls if call[0] in names]


def some_of(sent: list[tuple[str, Any]], calls: list[tuple[str, Any]]) -> bool:
    """Whether the calls that are sent are some of those read, in their order."""
    left = iter(calls)
    return all(any(same([one], [other]) for other in left) for one in sent)


def fewer_arguments(reading: Reading) -> bool:
    if names(reading.sent) != names(reading.calls):
        return False
    pairs = zip(reading.sent, reading.calls, strict=True)
    return all(loose(sent).items() <= loose(read).items() for (_, sent), (_, read) in pairs)


def names(calls: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in calls]


def has_marks(reading: Reading) -> bool:
    """Whether tokens of the vocabulary stand inside of what the strict reader reads as a call."""
    written = json.dumps(reading.calls, ensure_ascii=False)
    return any(mark in written for mark in (*CALL_MARKS, *END_OF_TURN, *(mark for marks in THOUGHTS for mark in marks)))


TYPES = "the schema's type is made, and text of what has none"
OFFERED = "a tool that is not offered is not called"
IN_THOUGHTS = "calls in thoughts are sent"
SOME = "only some of the calls are sent"
FEWER = "arguments whose names are no words are left out"
NONE = "no call is sent"
UNTAGGED = "a call without its marks is sent"
TEXTS = "only texts are read, and some calls not at all"
MARKS = "tokens of the vocabulary are left out of a call, or end it"
NAMED: dict[str, Callable[[Reading], bool]] = {
    TYPES: lambda it: same(it.calls, it.sent),
    OFFERED: lambda it: offered(it) != it.calls and same(offered(it), it.sent),
    IN_THOUGHTS: lambda it: bool(it.strict.thinking),
    NONE: lambda it: it.sent == [],
    SOME: lambda it: some_of(it.sent, it.calls),
    FEWER: fewer_arguments,
    MARKS: has_marks,
    UNTAGGED: lambda it: it.calls == [],
    TEXTS: lambda it: some_of([(name, "") for name in names(it.sent)], [(name, "") for name in names(it.calls)]),
}
"""How vLLM reads a reply otherwise in which the strict reader finds nothing wrong."""

KNOWN: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("deepseek v3", "deepseek_v31", "llama_json"), ()),
    "gpt-oss": (NONE, SOME, IN_THOUGHTS),
    **dict.fromkeys(("qwen 3.5", "qwen 3.8", "seed_oss", "mimo"), (IN_THOUGHTS,)),
    **dict.fromkeys(("gemma 4", "deepseek_v32", "deepseek_v4", "kimi_k2", "granite"), (TYPES, IN_THOUGHTS)),
    **dict.fromkeys(("glm 4", "glm 4.7"), (OFFERED, IN_THOUGHTS, TYPES)),
    "minimax m2": (OFFERED, IN_THOUGHTS, TYPES, FEWER),
    **dict.fromkeys(("pythonic", "llama 4", "granite 4", "xlam"), (NONE,)),
    **dict.fromkeys(("lfm 2", "lfm 2.5"), (NONE, SOME, FEWER, IN_THOUGHTS)),
    "muse glimmer": (TYPES,),
    "mistral": (TYPES, IN_THOUGHTS),
    "mistral v3": (NONE,),
    "functiongemma": (TYPES, OFFERED, TEXTS, NONE, SOME, IN_THOUGHTS),
    "phi 4 mini": (NONE,),
    "phi 4 mini tags": (NONE, OFFERED),
    "qwen 3": (IN_THOUGHTS,),
    **dict.fromkeys(("hunyuan", "gigachat 3"), ()),
    "minimax m3": (IN_THOUGHTS, TYPES),
    "internlm": (),
    "olmo 3": (NONE, OFFERED, UNTAGGED),
}
"""By notation, the differences that there are beside marks inside of calls."""


def unnamed(notation: str, reading: Reading) -> bool:
    """Whether the strict reader finds no fault in a reply that vLLM reads otherwise in a way without a name."""
    if reading.strict.problems or not serving_differs(reading.strict, reading.served):
        return False
    return not any(NAMED[name](reading) for name in (MARKS, *KNOWN[notation]))
