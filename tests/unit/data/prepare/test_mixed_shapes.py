"""One file whose rows have the shapes of different APIs: each becomes a sample, or is refused for a reason."""

import json
from pathlib import Path
from typing import Any

from orchestrator.config.schema import DataConfig, RunConfig, SourceConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import QuarantinedRow, Sample
from orchestrator.data.prepare.prepare import PARTS, prepare_data
from orchestrator.run.paths import RunDir

SCHEMA = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
TOOL = {"name": "find_ferry", "description": "Ferries.", "parameters": SCHEMA}
SPEC = {"toolSpec": {"name": "find_ferry", "description": "Ferries.", "inputSchema": {"json": SCHEMA}}}


def shapes(number: int) -> dict[str, dict[str, Any]]:
    """Rows that all teach a call, by the format that they are read as; texts differ from row to row."""
    port = {"port": f"port {number}"}
    asked = [f"Which ferry leaves {port['port']} at {number * 7}, as {name}?" for name in "abcdef"]
    call = {"id": "c1", "type": "function", "function": {"name": "find_ferry", "arguments": json.dumps(port)}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    return {
        "messages": {"prompt": [{"role": "user", "content": asked[0]}], "chosen": [said], "tools": [TOOL]},
        "bedrock": {
            "messages": [
                {"role": "user", "content": [{"text": asked[1]}]},
                {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "t", "name": "find_ferry", "input": port}}],
                },
            ],
            "toolConfig": {"tools": [SPEC]},
        },
        "gemini": {
            "contents": [
                {"role": "user", "parts": [{"text": asked[2]}]},
                {"role": "model", "parts": [{"functionCall": {"name": "find_ferry", "args": port}}]},
            ],
            "tools": [{"functionDeclarations": [TOOL]}],
        },
        "responses": {
            "input": asked[3],
            "output": [{"type": "function_call", "call_id": "c", "name": "find_ferry", "arguments": json.dumps(port)}],
            "tools": [{"type": "function", **TOOL}],
        },
        "langchain": {
            "messages": [
                {"type": "human", "content": asked[4]},
                {"type": "ai", "content": "", "tool_calls": [{"name": "find_ferry", "args": port, "id": "c"}]},
            ],
            "tools": [TOOL],
        },
        "api_log": {
            "request": {"messages": [{"role": "user", "content": asked[5]}], "tools": [TOOL]},
            "response": {"choices": [{"message": said, "finish_reason": "tool_calls"}]},
        },
    }


def test_every_row_of_a_mixed_file_has_a_fate_that_is_told(tmp_path: Path) -> None:
    good = [row for number in range(10) for row in shapes(number).values()]
    turns = [{"role": "user", "content": "Boat?"}, {"role": "assistant", "tool_calls": [{"name": "find_ferry"}]}]
    bad = [{"dialog": turns}, {"messages": turns, "meta": {"tools": [TOOL]}}, {"messages": turns, "tools": [TOOL]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*good, *bad]))
    config = RunConfig(data=DataConfig(sources=(SourceConfig(path="a.jsonl"),), near_duplicate_threshold=None))
    run = RunDir(tmp_path / "run")
    card = prepare_data(config, run, base_dir=tmp_path)
    assert {name: count.rows for name, count in card.sources[0].formats.items()} == {
        **dict.fromkeys(shapes(0), 10),
        "messages": 12,
    }
    samples = [sample for part in PARTS for sample in read_jsonl(run.split(part), Sample)]
    calls = [sample.messages[-1].tool_calls[0].function for sample in samples]
    assert sorted(call.arguments["port"] for call in calls) == sorted(f"port {n}" for n in range(10) for _ in range(6))
    first, second, third = read_jsonl(run.quarantine, QuarantinedRow)
    assert (first.line, first.reason) == (61, "unknown_format")
    assert first.detail.endswith("set data.sources[].fields to {messages: dialog}")
    assert (second.line, second.reason) == (62, "unknown_tool")
    assert second.detail.endswith("set data.sources[].fields to {tools: meta.tools}")
    assert (third.line, third.reason) == (63, "arguments_do_not_fit_schema")
