"""Replies as an API gives them: a chat completion or its message, with the calls as objects beside the words."""

import json
from typing import Any

from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject

API_FIELDS = frozenset({"message", "choices", "tool_calls", "function_call", "content", "role"})
"""What such a row has, besides `case_id`."""

_SHAPE = (
    '{"case_id": ..., "message": {"content": ..., "tool_calls": [{"function": {"name": ..., "arguments": ...}}]}}, or '
    '"choices" with one such message'
)


def is_api_reply(row: JsonObject) -> bool:
    """Whether a row holds a message, or its calls, and no text."""
    return row.get("text") is None and any(row.get(name) for name in ("message", "choices", "tool_calls", "content"))


def text_and_calls(row: JsonObject, where: str) -> JsonObject:
    """The fields of `Generation` that such a row tells: `text`, `calls` where there are some, `finish_reason`.

    A message without calls is its text, in which calls may be written.

    Raises:
        DataError: If it is no message of an assistant.
    """
    choice = _only_choice(row, where)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise DataError("the reply is no message", where=where, allowed=_SHAPE)
    legacy = message.get("function_call")
    listed = message.get("tool_calls") or ([legacy] if legacy else [])
    if not isinstance(listed, list) or not all(isinstance(call, dict) for call in listed):
        raise DataError("`tool_calls` is no list of objects", where=where, allowed=_SHAPE)
    told = {"text": _text(message.get("content"), where), "finish_reason": choice.get("finish_reason")}
    return {**told, "calls": [_call(call) for call in listed]} if listed else told


def _only_choice(row: JsonObject, where: str) -> JsonObject:
    choices = row.get("choices")
    if choices is None:
        return {"message": row.get("message") or row, "finish_reason": row.get("finish_reason")}
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise DataError("`choices` is no list of one reply", where=where, allowed="one reply for each case")
    return choices[0]


def _text(content: Any, where: str) -> str:
    parts = content if isinstance(content, list) else [content or ""]
    found = (part.get("text") if isinstance(part, dict) else part for part in parts)
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(parts):
        raise DataError("`content` is neither text nor a list of text parts", where=where, allowed=_SHAPE)
    return "".join(texts)


def _call(call: JsonObject) -> tuple[str, str]:
    function = call.get("function")
    said = function if isinstance(function, dict) else call
    name, arguments = said.get("name"), said.get("arguments")
    written = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
    return name if isinstance(name, str) else "", written
