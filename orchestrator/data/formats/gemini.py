"""Gemini's API, in AI Studio and Vertex: `contents` of `parts`, calls as `functionCall`, tools as declarations.

Names in snake case, as the Python client writes them, are read like those in camel case. Source: the API reference of
generateContent, and the description of Vertex's tuning files.
"""

from collections.abc import Iterator
from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.data.formats.common import COMMON_FIELDS, Draft, Format, short
from orchestrator.data.formats.messages import read_messages
from orchestrator.data.formats.turn_lists import peeked
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject

CONTENTS = "contents"
ROLES = {"model": "assistant", "function": "user", "tool": "user"}
"""Results of tools stand in turns of these or of the user."""
SYSTEM = ("systemInstruction", "system_instruction")
DECLARATIONS = ("functionDeclarations", "function_declarations")
CALL = ("functionCall", "function_call")
RESPONSE = ("functionResponse", "function_response")
SCHEMA = ("parameters", "parametersJsonSchema", "parameters_json_schema")


def read_gemini(row: JsonObject) -> Draft:
    """The conversation of a request whose last turn is the model's, or of a row of Vertex's tuning files.

    What a tool answered is the JSON of its `response`. Parts with `thought` are the turn's thoughts.
    """
    return read_messages(as_messages(row))


def as_messages(row: JsonObject) -> JsonObject:
    """The same row in the format `messages`."""
    contents = row.get(CONTENTS)
    if isinstance(contents, str):
        contents = parse_or_reject(contents, Reason.MALFORMED_FIELD, f"`{CONTENTS}` is")
    listed = [contents] if isinstance(contents, dict) else contents
    if not isinstance(listed, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`{CONTENTS}` is {short(contents)}, not a list")
    instruction = _first(row, SYSTEM) or row.get("system")
    system = [{"role": "system", "content": _system(instruction)}] if instruction else []
    turns = [_turn(turn, f"turn {number}") for number, turn in enumerate(listed, start=1)]
    return {"messages": [*system, *turns], "tools": list(_tools(row))}


def _first(value: JsonObject, names: tuple[str, ...]) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _system(instruction: Any) -> Any:
    parts = instruction.get("parts") if isinstance(instruction, dict) else instruction
    if isinstance(parts, dict):
        parts = [parts]
    return [_part(part) for part in parts] if isinstance(parts, list) else parts


def _turn(turn: Any, where: str) -> JsonObject:
    parts = turn.get("parts") if isinstance(turn, dict) else None
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is {short(turn)}, without a list of `parts`")
    role = turn.get("role") or "user"
    flags = {key: value for key, value in turn.items() if key not in ("role", "parts")}
    spoken = ROLES.get(role, role) if isinstance(role, str) else role
    return {**flags, "role": spoken, "content": [_part(part) for part in parts]}


def _part(part: Any) -> Any:
    """A part with a `type`; one that is unknown stays, to be refused as it is."""
    if not isinstance(part, dict):
        return part
    call, response = _first(part, CALL), _first(part, RESPONSE)
    if isinstance(call, dict):
        return {"type": "tool_use", "id": call.get("id"), "name": call.get("name"), "input": call.get("args")}
    if isinstance(response, dict):
        content = response.get("response")
        return {"type": "tool_result", "id": response.get("id"), "name": response.get("name"), "content": content}
    if part.get("text") is not None:
        return {"type": "thinking" if part.get("thought") is True else "text", "text": part["text"]}
    return {key: value for key, value in part.items() if value is not None}


def _tools(row: JsonObject) -> Iterator[Any]:
    given = row.get("tools") or []
    if isinstance(given, str):
        given = parse_or_reject(given, Reason.TOOLS_NOT_JSON, "`tools` is")
    entries = [given] if isinstance(given, dict) else given
    for entry in entries if isinstance(entries, list) else [entries]:
        declared = _first(entry, DECLARATIONS) if isinstance(entry, dict) else None
        if declared is None and (not isinstance(entry, dict) or "name" not in entry):
            detail = f"`tools` holds {short(entry)}, which the API runs itself and no model here can call"
            raise RowRejected(Reason.INVALID_TOOL, detail)
        for tool in declared if isinstance(declared, list) else [entry if declared is None else declared]:
            is_tool = isinstance(tool, dict)
            yield {**tool, **dict.fromkeys(SCHEMA), "parameters": _first(tool, SCHEMA)} if is_tool else tool


def _recognised(row: JsonObject) -> str | None:
    contents = row.get(CONTENTS)
    turns = [contents] if isinstance(contents, dict) else peeked(contents)
    has_parts = bool(turns) and isinstance(turns[0], dict) and "parts" in turns[0]
    return f"`{CONTENTS}` has turns of `parts`" if has_parts else None


FORMAT = Format(
    read_gemini,
    COMMON_FIELDS | {CONTENTS, *SYSTEM},
    reads_system=True,
    hint=(CONTENTS,),
    recognise=_recognised,
    precedence=-4,
)
