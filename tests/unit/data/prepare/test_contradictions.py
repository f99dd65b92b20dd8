import json
from pathlib import Path
from typing import Any

from orchestrator.config.schema import DataConfig, RunConfig, SourceConfig
from orchestrator.core.records import JsonObject
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.run.paths import RunDir

TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}
ASK = {"role": "user", "content": "Weather in Oslo?"}


def called(city: str, call_id: str) -> JsonObject:
    function = {"name": "weather", "arguments": {"city": city}}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def flagged(folder: Path, *rows: JsonObject) -> tuple[int, str]:
    """How many contradictions the card counts in these rows beside others, and the first."""
    others = [{"prompt": f"Question {n} {n * n}?", "completion": f"Answer {n} {n**3}."} for n in range(10)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *others]))
    config = RunConfig(data=DataConfig(sources=(SourceConfig(path="a.jsonl"),), near_duplicate_threshold=None))
    found = prepare_data(config, RunDir(folder / "run"), base_dir=folder).flags.get("contradiction")
    return (found.count, found.example) if found else (0, "")


def chat(*turns: JsonObject, tools: Any = (TOOL,)) -> JsonObject:
    return {"messages": list(turns), "tools": list(tools)}


def test_other_replies_to_the_same_conversation_are_flagged_with_both_places(tmp_path: Path) -> None:
    refusal = {"role": "assistant", "content": "I can't help with that."}
    rows = [chat(ASK, called("Oslo", "1")), chat(ASK, called("Bergen", "1")), chat(ASK, refusal)]
    assert flagged(tmp_path, *rows) == (2, "a.jsonl:2: another reply to the same conversation as a.jsonl:1")


def test_the_same_calls_and_other_conversations_are_no_contradiction(tmp_path: Path) -> None:
    result = {"role": "tool", "content": "4 C"}
    said = {"role": "assistant", "content": "Cold."}
    rows = [
        chat(ASK, called("Oslo", "1")),
        chat(ASK, called("Oslo", "2")),
        chat(ASK, called("Oslo", "1"), result, said),
        chat(ASK, said, tools=()),
    ]
    assert flagged(tmp_path, *rows) == (0, "")
