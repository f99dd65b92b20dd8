"""Columns that look like turns or tools and were not read: what to name in `data.sources[].fields`."""

from collections.abc import Iterator
from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.notation.strict_json import StrictJsonError, parse

MAX_LEVELS = 3
"""How deep objects are looked into; what people log is never deeper."""
MAX_NAMED = 3
SPEAKERS = ("role", "from", "type", "speaker", "author")
SPOKEN = ("content", "value", "text", "parts", "tool_calls", "kwargs", "data")
NAMES = ("name", "function", "toolSpec")
SCHEMAS = ("parameters", "inputSchema", "input_schema", "function", "toolSpec", "functionDeclarations")


def turns_hint(row: JsonObject) -> str:
    """The end of a sentence that names the columns of a row that look like turns or tools; "" if there are none."""
    found = dict(_found(row))
    turns = [path for path, field in found.items() if field == "messages"]
    tools = [path for path, field in found.items() if field == "tools"]
    if not turns:
        return ""
    fields = f"messages: {turns[0]}" + (f", tools: {tools[0]}" if tools and tools[0] != "tools" else "")
    return f"; {_named(turns)} like turns: set data.sources[].fields to {{{fields}}}"


def tools_hint(row: JsonObject) -> str:
    """The end of a sentence that says where the tools of a row that offers none may be."""
    tools = [path for path, field in _found(row) if field == "tools"]
    if tools:
        return f"; {_named(tools)} like tools: set data.sources[].fields to {{tools: {tools[0]}}}"
    if any(_declares(text) for text in _system_texts(row)):
        return "; the system text seems to hold tools: put them into `tools`, or name a file in data.sources[].tools"
    return "; no column looks like tools: give the row `tools`, or name a file of them in data.sources[].tools"


def _named(paths: list[str]) -> str:
    names = ", ".join(f"`{path[:80]}`" for path in paths[:MAX_NAMED])
    return f"{names} {'look' if len(paths) > 1 else 'looks'}"


def _found(row: JsonObject, above: str = "", level: int = 1) -> Iterator[tuple[str, str]]:
    """Paths of columns with the field that they look like; what has no dots in its name can be named."""
    for name, given in row.items():
        value = _parsed(given)
        if "." in name:
            continue
        if isinstance(value, dict) and level < MAX_LEVELS:
            yield from _found(value, f"{above}{name}.", level + 1)
        elif (field := _looks_like(value)) is not None:
            yield f"{above}{name}", field


def _looks_like(value: Any) -> str | None:
    items = value[:2] if isinstance(value, list) else []
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    if all(_holds(item, SPEAKERS) and _holds(item, SPOKEN) for item in items):
        return "messages"
    return "tools" if all(_holds(item, SCHEMAS) and _holds(item, NAMES) for item in items) else None


def _holds(item: JsonObject, names: tuple[str, ...]) -> bool:
    return any(item.get(name) is not None for name in names)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("[{", "{")):
        return value
    try:
        return parse(value)
    except StrictJsonError:
        return value


def _system_texts(row: JsonObject) -> Iterator[str]:
    """The texts of the system in a row, wherever its turns stand."""
    for value in row.values():
        turns = _parsed(value)
        first = turns[0] if isinstance(turns, list) and turns else None
        if isinstance(first, dict) and "system" in (first.get("role"), first.get("from")):
            yield str(first.get("content") or first.get("value"))
    yield str(row.get("system"))


def _declares(text: str) -> bool:
    return '"name"' in text and any(f'"{key}"' in text for key in SCHEMAS)
