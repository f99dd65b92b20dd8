"""Does a client of vLLM get the calls that the strict parser reads?"""

import math
from typing import Any

from orchestrator.chat.reply import ParsedReply, ServedReply
from orchestrator.notation.strict_json import StrictJsonError, parse


def serving_differs(parsed: ParsedReply, served: ServedReply) -> bool:
    """Whether vLLM's parser reads other calls in a reply than the strict parser, or in another order.

    Calls are the same when their names are equal and their arguments are equal as JSON values: objects without regard
    to the order of keys, numbers by value, `true` not as 1. Arguments that are not strict JSON equal none. What stands
    beside the calls, call ids and the parser's own error are not compared.
    """
    if len(parsed.calls) != len(served.calls):
        return True
    return any(
        call.function.name != name or not _is_same(call.function.arguments, _value(arguments))
        for call, (name, arguments) in zip(parsed.calls, served.calls, strict=True)
    )


def _value(arguments: str) -> Any:
    try:
        return parse(arguments)
    except StrictJsonError:
        return math.nan


def _is_same(left: Any, right: Any) -> bool:
    """Equality of JSON values; it goes no deeper than `left`."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_is_same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_is_same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
