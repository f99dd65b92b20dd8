"""Rows whose columns have names of their own, and the system prompt of conversations that have none."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_config
from orchestrator.config.schema import DataConfig, RunConfig, SourceConfig
from orchestrator.core.errors import ConfigError, DataError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Message, QuarantinedRow, Sample
from orchestrator.data.card import DataCard
from orchestrator.data.prepare.prepare import PARTS, prepare_data
from orchestrator.run.paths import RunDir

TOOL = {"name": "find_ferry", "parameters": {"type": "object", "properties": {"port": {"type": "string"}}}}
FERRY = {"messages": "dialog", "tools": "meta.tools"}
SYSTEM = "You book ferries."


def ferry(number: int, **fields: Any) -> dict[str, Any]:
    call = {"function": {"name": "find_ferry", "arguments": {"port": f"port {number}"}}}
    turns = [{"role": "user", "content": f"A ferry from port {number}?"}, {"role": "assistant", "tool_calls": [call]}]
    return {"dialog": turns, "meta": {"tools": [TOOL], "team": "a"}, **fields}


TURNS = ferry(0)["dialog"]


def prepare(folder: Path, rows: list[Any], fields: dict[str, str], **data: Any) -> DataCard:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig(data=DataConfig(sources=(SourceConfig(path="a.jsonl", fields=fields),), **data))
    return prepare_data(config, RunDir(folder / "run"), base_dir=folder)


def samples(folder: Path) -> list[Sample]:
    run = RunDir(folder / "run")
    return [sample for part in PARTS for sample in read_jsonl(run.split(part), Sample)]


def test_rows_of_other_columns_become_samples(tmp_path: Path) -> None:
    rows = [ferry(number) for number in range(29)] + [ferry(29, labels=["mine"])]
    card = prepare(tmp_path, rows, {**FERRY, "tags": "labels?"})
    assert (card.samples, card.tags, card.kinds) == (30, {"mine": 1}, {"tool_call": 30})
    assert {tool.function.name for sample in samples(tmp_path) for tool in sample.tools} == {"find_ferry"}
    (source,) = card.sources
    assert source.formats["messages"].why == "the turns have `role`, with `fields`"
    assert source.ignored_fields == {}


def test_templates_make_the_texts_of_an_instruction(tmp_path: Path) -> None:
    rows = [
        {"title": f"Task {n}", "description": "Do it.", "examples": [{"out": {"n": n}}], "agent": "a"}
        for n in range(20)
    ]
    fields = {
        "instruction": "{title}\n{description}",
        "output": "{examples.0.out}",
        "system": "You are {agent}.",
    }
    prepare(tmp_path, rows, fields)
    by_task = {sample.messages[1].content: sample for sample in samples(tmp_path)}
    messages = by_task["Task 7\nDo it."].messages
    assert [(message.role, message.content) for message in messages] == [
        ("system", "You are a."),
        ("user", "Task 7\nDo it."),
        ("assistant", '{"n": 7}'),
    ]


def test_a_row_that_lacks_a_column_is_set_aside_with_its_name(tmp_path: Path) -> None:
    rows = [*(ferry(number) for number in range(30)), {**ferry(30), "meta": {"team": "a"}}]
    card = prepare(tmp_path, rows, FERRY)
    assert (card.samples, card.quarantined) == (30, 1)
    (row,) = read_jsonl(RunDir(tmp_path / "run").quarantine, QuarantinedRow)
    assert (row.line, row.reason) == (31, "missing_column")
    why = "nothing in the column 'meta.tools', which `fields` gives for `tools`"
    assert row.detail == f"{why}; the row has dialog, meta"


@pytest.mark.parametrize("column", ["dialogue", "dialogue?", "meta.dialog", "{dialogue}"])
def test_a_column_of_no_row_is_one_error(tmp_path: Path, column: str) -> None:
    field = "messages" if column != "dialogue?" else "tags"
    fields = FERRY | {field: column}
    with pytest.raises(DataError) as caught:
        prepare(tmp_path, [ferry(number) for number in range(30)], fields)
    name = column.strip("{}?")
    assert caught.value.what == f"no row has the column '{name}', which `fields` gives for `{field}`"
    assert caught.value.allowed == "the columns of the first row: dialog, meta"


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        (
            {"dialog": TURNS, "tools": [TOOL]},
            "`dialog` looks like turns: set data.sources[].fields to {messages: dialog}",
        ),
        ({"log": {"traj": TURNS}, "meta": {"tools": [TOOL]}}, "to {messages: log.traj, tools: meta.tools}"),
        ({"dump": json.dumps(TURNS)}, "to {messages: dump}"),
        (
            {"messages": TURNS, "extra": {"api": [TOOL]}},
            "`extra.api` looks like tools: set data.sources[].fields to {tools",
        ),
        ({"messages": TURNS, "spec": json.dumps([{"toolSpec": {"name": "f"}}])}, "`spec` looks like tools"),
        (
            {"messages": [{"role": "system", "content": f"Tools: {json.dumps([TOOL])}"}, *TURNS]},
            "the system text seems to hold tools",
        ),
        (
            {"messages": TURNS, "scores": [{"name": "a", "score": 1}]},
            "no column looks like tools: give the row `tools`",
        ),
    ],
)
def test_a_refusal_names_the_columns_that_look_like_turns_or_tools(tmp_path: Path, row: Any, hint: str) -> None:
    rows = [{"messages": ferry(number)["dialog"], "tools": [TOOL]} for number in range(30)]
    prepare(tmp_path, [*rows, row], {})
    (refused,) = read_jsonl(RunDir(tmp_path / "run").quarantine, QuarantinedRow)
    assert refused.reason in ("unknown_format", "unknown_tool")
    assert hint in refused.detail
    assert "nearest format" not in refused.detail


def test_a_field_that_no_format_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format reads a field 'message'") as caught:
        prepare(tmp_path, [ferry(0)], {"message": "dialog"})
    assert "messages" in str(caught.value.allowed)
    assert "kind_inferred" not in str(caught.value.allowed)


@pytest.mark.parametrize(
    "source", ["{path: synthetic, fields: {id: x}}", "{path: a.jsonl, format: 'a:b', fields: {id: x}}"]
)
def test_what_reads_its_own_rows_takes_no_fields(tmp_path: Path, source: str) -> None:
    (tmp_path / "c.yaml").write_text(f"data: {{sources: [{source}]}}\n")
    with pytest.raises(ConfigError, match="fields are for rows that a format reads"):
        load_config(tmp_path / "c.yaml")


def test_conversations_without_a_system_message_get_the_default_in_every_part(tmp_path: Path) -> None:
    mine = {"role": "system", "content": "Mine."}
    rows = [ferry(number) for number in range(40)]
    rows += [{**row, "dialog": [mine, *row["dialog"]]} for row in (ferry(number) for number in range(40, 50))]
    card = prepare(tmp_path, rows, FERRY, system=SYSTEM)
    assert (card.samples, card.default_systems) == (50, 40)
    firsts = [sample.messages[0] for sample in samples(tmp_path)]
    assert firsts.count(Message(role="system", content=SYSTEM)) == 40
    assert firsts.count(Message(role="system", content="Mine.")) == 10
    run = RunDir(tmp_path / "run")
    held_out = list(read_jsonl(run.split("test"), Sample))
    assert any(sample.messages[0].content == SYSTEM for sample in held_out)


def test_generated_conversations_get_the_default_system_prompt_too(tmp_path: Path) -> None:
    config = RunConfig(data=DataConfig(sources=(SourceConfig(path="synthetic", limit=60),), system=SYSTEM))
    card = prepare_data(config, RunDir(tmp_path / "run"), base_dir=tmp_path)
    found = sum(sample.messages[0].content == SYSTEM for sample in samples(tmp_path))
    assert card.default_systems == found > 0
