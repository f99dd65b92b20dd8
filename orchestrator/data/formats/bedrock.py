"""Bedrock's Converse API, which Amazon Nova is also tuned with: blocks without a `type`, tools in `toolConfig`.

Source: the API reference of Converse and the schema `bedrock-conversation-2024` of its tuning files.
"""

from typing import Any

from orchestrator.core.records import JsonObject
from orchestrator.data.formats.common import COMMON_FIELDS, Draft, Format, short
from orchestrator.data.formats.messages import read_messages
from orchestrator.data.formats.turn_lists import peeked, turns_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected, parse_or_reject
from orchestrator.notation.strict_json import dump_loosely

TOOL_CONFIG = "toolConfig"
BLOCKS = frozenset({"text", "toolUse", "toolResult", "reasoningContent"})
PASSED_BLOCKS = ("cachePoint",)
"""Blocks that say nothing."""


def read_bedrock(row: JsonObject) -> Draft:
    """The conversation of a Converse request whose last turn is the model's.

    A tool's result is text or JSON; results come before the words beside them. Reasoning becomes the turn's thoughts.
    """
    return read_messages(as_messages(row))


def as_messages(row: JsonObject) -> JsonObject:
    """The same row in the format `messages`."""
    turns = [_turn(turn, f"turn {number}") for number, turn in enumerate(turns_of(row), start=1)]
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": [*(_turn(turn, "`system`") for turn in system), *turns], "tools": _tools(row)}


def _turn(turn: Any, where: str) -> Any:
    content = turn.get("content") if isinstance(turn, dict) else None
    if not isinstance(content, list):
        return turn
    held = [_held(block) for block in content]
    parts = [_part(block, where) for block in held if not _is_passed(block)]
    return {**turn, "content": parts}


def _held(block: Any) -> Any:
    """A block without the nulls that a table fills in."""
    return {key: value for key, value in block.items() if value is not None} if isinstance(block, dict) else block


def _is_passed(block: Any) -> bool:
    return isinstance(block, dict) and any(key in block for key in PASSED_BLOCKS)


def _part(block: Any, where: str) -> Any:
    """A block as a part with a `type`; one that is unknown stays, to be refused as it is."""
    match block:
        case {"type": _}:
            return block
        case {"text": text}:
            return {"type": "text", "text": text}
        case {"toolUse": {"name": name, **use}}:
            return {"type": "tool_use", "id": use.get("toolUseId"), "name": name, "input": use.get("input")}
        case {"toolResult": {"toolUseId": call_id, **result}}:
            return {"type": "tool_result", "tool_use_id": call_id, "content": _result(result.get("content"), where)}
        case {"reasoningContent": reasoning}:
            thoughts = reasoning.get("reasoningText") if isinstance(reasoning, dict) else None
            return {"type": "thinking", "thinking": thoughts.get("text") if isinstance(thoughts, dict) else ""}
    return block


def _result(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    texts = []
    for block in map(_held, content):
        match block:
            case {"text": str(text)}:
                texts.append(text)
            case {"json": value}:
                texts.append(dump_loosely(value))
            case _:
                raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"{where}: a tool's result has the part {short(block)}")
    return "\n".join(texts)


def _tools(row: JsonObject) -> list[Any]:
    config = row.get(TOOL_CONFIG) or {"tools": row.get("tools")}
    if isinstance(config, str):
        config = parse_or_reject(config, Reason.TOOLS_NOT_JSON, f"`{TOOL_CONFIG}` is")
    tools = config.get("tools") if isinstance(config, dict) else config
    if isinstance(tools, str):
        tools = parse_or_reject(tools, Reason.TOOLS_NOT_JSON, "`tools` is")
    if not isinstance(tools or [], list):
        raise RowRejected(Reason.INVALID_TOOL, f"`{TOOL_CONFIG}` is {short(config)}, without a list of tools")
    return [_tool(tool) for tool in map(_held, tools or []) if not _is_passed(tool)]


def _tool(tool: Any) -> Any:
    spec = tool.get("toolSpec") if isinstance(tool, dict) else None
    if not isinstance(spec, dict):
        return tool
    schema = spec.get("inputSchema")
    parameters = schema.get("json", schema) if isinstance(schema, dict) else schema
    return {"name": spec.get("name"), "description": spec.get("description"), "parameters": parameters}


def _recognised(row: JsonObject) -> str | None:
    if row.get(TOOL_CONFIG) is not None:
        return f"the row has `{TOOL_CONFIG}`"
    turns = (turn for key in TURN_LISTS for turn in peeked(row.get(key)))
    contents = (turn.get("content") for turn in turns if isinstance(turn, dict))
    blocks = (block for content in contents if isinstance(content, list) for block in content)
    first: JsonObject = next((_held(block) for block in blocks if isinstance(block, dict)), {})
    kind = next((key for key in first if key in BLOCKS), None)
    return f"the turns have blocks of `{kind}` without a `type`" if kind and "type" not in first else None


FORMAT = Format(
    read_bedrock,
    COMMON_FIELDS | {*TURN_LISTS, TOOL_CONFIG, "schemaVersion"},
    reads_system=True,
    recognise=_recognised,
    precedence=-3,
)
