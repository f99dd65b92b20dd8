"""Ids of calls, for chat templates that print them or want them to be of nine letters and digits (Mistral's).

Some templates (Kimi K2's) write nothing of a call's name but its id, which then is `functions.name:number`, counted
over the conversation. Any other made id comes from the place and content of its call, so that a conversation has the
same ids wherever it ends.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from orchestrator.core.records import Message, ToolCall

CallIds = Literal["as given", "any", "nine", "functions"]
"""What a template wants: the ids of the data, some id for every call, one of nine letters and digits, or its name."""
ID_CHARS = 9
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


class _Asked(NamedTuple):
    """A call that waits for its result: as the data has it, and with its id."""

    given: ToolCall
    call: ToolCall

    def is_answered_by(self, result: Message) -> bool:
        """Whether the result names this call, by its id if it has one."""
        if result.tool_call_id is not None:
            return result.tool_call_id in (self.given.id, self.call.id)
        return result.name in (None, self.given.function.name)


def with_call_ids(messages: Sequence[Message], wanted: CallIds) -> list[Message]:
    """Messages whose calls have the ids that are wanted, and whose results name them.

    A result without an id, or with one that no call has, belongs to the first call before it that waits.
    """
    if wanted == "as given":
        return list(messages)
    changed: list[Message] = []
    waiting: list[_Asked] = []
    num_calls = 0
    for place, message in enumerate(messages):
        if message.tool_calls:
            if wanted == "functions":
                calls = [_named(call, number) for number, call in enumerate(message.tool_calls, num_calls)]
            else:
                calls = [_with_id(call, place, number, wanted) for number, call in enumerate(message.tool_calls)]
            num_calls += len(calls)
            waiting = [_Asked(*pair) for pair in zip(message.tool_calls, calls, strict=True)]
            changed.append(message.model_copy(update={"tool_calls": tuple(calls)}))
        elif message.role == "tool" and waiting:
            asked = next((asked for asked in waiting if asked.is_answered_by(message)), waiting[0])
            waiting.remove(asked)
            changed.append(message.model_copy(update={"tool_call_id": asked.call.id}))
        else:
            changed.append(message)
    return changed


def _named(call: ToolCall, number: int) -> ToolCall:
    return call.model_copy(update={"id": f"functions.{call.function.name}:{number}"})


def _with_id(call: ToolCall, place: int, number: int, wanted: CallIds) -> ToolCall:
    """The call with its own id where that is one that is wanted."""
    if call.id and (wanted == "any" or _NINE.fullmatch(call.id)):
        return call
    content = json.dumps([place, number, call.function.name, call.function.arguments], sort_keys=True)
    return call.model_copy(update={"id": hashlib.sha256(content.encode()).hexdigest()[:ID_CHARS]})
