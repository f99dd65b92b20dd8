"""Rows of one tool, in the format `messages`."""

import json
from pathlib import Path
from typing import Any

from orchestrator.core.records import JsonObject

TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
CITIES = ("Rome", "Oslo", "Lima", "Kyiv", "Bern", "Cairo", "Quito", "Sofia", "Tunis", "Minsk", "Paris", "Turin")


def call_for(city: Any) -> JsonObject:
    """A conversation in which the weather in a city is asked for and looked up."""
    call = {"function": {"name": "weather", "arguments": {"city": city}}}
    turns = [{"role": "user", "content": f"Weather in {city}?"}, {"role": "assistant", "tool_calls": [call]}]
    return {"messages": turns, "tools": [TOOL]}


def write(path: Path, rows: list[JsonObject]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
