"""Logs in which every request holds all turns before it: the longest row of each conversation stays."""

import json
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestrator.config.schema import DataConfig, RunConfig, SourceConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import JsonObject, Message, QuarantinedRow, Sample
from orchestrator.data.card import DataCard
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.run.paths import RunDir, SplitName

PARTS: tuple[SplitName, ...] = ("train", "val", "test")
LOOK = {"name": "look", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}}


def call(text: str, number: int) -> JsonObject:
    function = {"name": "look", "arguments": {"q": text}}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": f"c{number}", "function": function}]}


def conversation(task: int, steps: int) -> list[JsonObject]:
    """A task with so many calls and an answer; alone, the rows of one task are near-duplicates of each other."""
    turns: list[JsonObject] = [{"role": "system", "content": "Find it."}, {"role": "user", "content": f"Task {task}"}]
    for step in range(steps):
        turns.append(call(f"part {step} of {task}", step))
        turns.append({"role": "tool", "tool_call_id": f"c{step}", "content": f"found {step}"})
    return [*turns, {"role": "assistant", "content": f"All of {task} is found."}]


def logged(turns: list[JsonObject], **fields: Any) -> list[JsonObject]:
    """A row for every reply, with all turns before it."""
    ends = [place for place, turn in enumerate(turns, start=1) if turn["role"] == "assistant"]
    return [{"messages": turns[:end], "tools": [LOOK], **fields} for end in ends]


def prepared(folder: Path, rows: list[JsonObject], **settings: Any) -> DataCard:
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = RunConfig(data=DataConfig(sources=(SourceConfig(path="a.jsonl"),), **settings))
    return prepare_data(config, RunDir(folder / "run"), base_dir=folder)


def samples_of(folder: Path) -> list[Sample]:
    run = RunDir(folder / "run")
    return [sample for part in PARTS for sample in read_jsonl(run.split(part), Sample)]


def beginning(sample: Sample, end: int) -> str:
    return json.dumps([_bare(message) for message in sample.messages[:end]])


def _bare(message: Message) -> JsonObject:
    return message.model_copy(update={"learned": True}).model_dump()


def taught(samples: list[Sample]) -> Counter[str]:
    """How often each turn is learned, by all turns up to it."""
    return Counter(
        beginning(sample, place)
        for sample in samples
        for place, message in enumerate(sample.messages, start=1)
        if message.role == "assistant" and message.learned
    )


def test_of_rows_that_begin_alike_the_longest_stays_and_each_turn_is_learned_once(tmp_path: Path) -> None:
    rows = [row for task in range(12) for row in logged(conversation(task, 3 + task))]
    Random(0).shuffle(rows)
    card = prepared(tmp_path, rows)
    samples = samples_of(tmp_path)
    assert (card.samples, card.repeats["beginning"].count, card.untaught_turns) == (12, len(rows) - 12, 0)
    assert {sample.messages[-1].content for sample in samples} == {f"All of {task} is found." for task in range(12)}
    assert set(taught(samples).values()) == {1}
    assert len(taught(samples)) == len(rows)
    first = next(read_jsonl(RunDir(tmp_path / "run").quarantine, QuarantinedRow))
    assert first.reason == "beginning"
    assert first.detail.startswith("all that it teaches stands in a row that begins alike, a.jsonl:")


def test_turns_before_a_branch_are_learned_in_the_longer_row(tmp_path: Path) -> None:
    rows = []
    for task in range(12):
        turns = conversation(task, 4)
        rows += [*logged(turns), {"messages": [*turns[:4], call(f"retried {task}", 9)], "tools": [LOOK]}]
    card = prepared(tmp_path, rows, near_duplicate_threshold=None)
    samples = samples_of(tmp_path)
    assert (card.samples, card.untaught_turns) == (24, 12)
    assert set(taught(samples).values()) == {1}
    assert all(sample.messages[-1].learned for sample in samples)
    run = RunDir(tmp_path / "run")
    tasks = [{sample.messages[1].content for sample in read_jsonl(run.split(part), Sample)} for part in PARTS]
    assert sum(map(len, tasks)) == 12, "a turn and the row that teaches it are in one part"


def test_a_turn_that_only_the_shorter_row_teaches_keeps_that_row(tmp_path: Path) -> None:
    masked = [
        {
            "messages": [
                {**turn, "weight": 0} if place == 2 else turn for place, turn in enumerate(conversation(task, 1))
            ]
        }
        for task in range(6)
    ]
    rows = [{**row, "tools": [LOOK]} for row in masked] + [logged(conversation(task, 1))[0] for task in range(6)]
    card = prepared(tmp_path, rows, near_duplicate_threshold=None)
    assert (card.samples, card.repeats) == (12, {})
    assert set(taught(samples_of(tmp_path)).values()) == {1}


@pytest.mark.parametrize(
    ("labels", "kept", "untaught"),
    [({}, 6, 0), ({"kind": "answer"}, 6, 0), ({"kind": "clarification"}, 12, 6), ({"tags": ["benign"]}, 12, 6)],
)
def test_a_row_whose_label_the_longer_one_lacks_stays_and_teaches_its_turn(
    tmp_path: Path, labels: JsonObject, kept: int, untaught: int
) -> None:
    short = [
        [{"role": "user", "content": f"Task {task}"}, {"role": "assistant", "content": "Hm."}] for task in range(6)
    ]
    end = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "Done."}]
    rows = [{"messages": turns, **labels} for turns in short] + [{"messages": turns + end} for turns in short]
    card = prepared(tmp_path, rows, near_duplicate_threshold=None)
    assert (card.samples, card.untaught_turns) == (kept, untaught)
    assert set(taught(samples_of(tmp_path)).values()) == {1}


def test_rows_with_other_tools_or_another_system_text_or_thoughts_do_not_begin_alike(tmp_path: Path) -> None:
    turns = [conversation(task, 2) for task in range(5)]
    other = {**LOOK, "description": "Looks."}
    rows = [{"messages": turn, "tools": [LOOK]} for turn in turns]
    rows += [{"messages": turn[:3], "tools": [other]} for turn in turns]
    rows += [{"messages": [{**turn[0], "content": "Other."}, *turn[1:3]], "tools": [LOOK]} for turn in turns]
    thought = [[*turn[:2], {**turn[2], "reasoning_content": "Hm."}, *turn[3:]] for turn in turns]
    rows += [{"messages": turn[:end], "tools": [LOOK]} for turn in thought for end in (3, 5)]
    card = prepared(tmp_path, rows, near_duplicate_threshold=None, reasoning="keep")
    assert (card.samples, card.repeats) == (len(rows), {})


def test_of_near_duplicates_the_longest_stays(tmp_path: Path) -> None:
    rows = []
    for task in range(6):
        turns = conversation(task, 12)
        for number, row in enumerate(logged(turns)[-2:]):
            later = {"role": "system", "content": f"It is {number} o'clock."}
            rows.append({**row, "messages": [later, *row["messages"][1:]]})
    card = prepared(tmp_path, rows, near_duplicate_threshold=0.8)
    assert card.repeats["near_duplicate"].count == 6
    assert {sample.messages[-1].content for sample in samples_of(tmp_path)} == {
        f"All of {task} is found." for task in range(6)
    }


def test_what_stays_depends_on_no_order(tmp_path: Path) -> None:
    rows = [row for task in range(4) for row in logged(conversation(task, 3))]
    rows += [{"messages": [*conversation(task, 3)[:4], call("again", 7)], "tools": [LOOK]} for task in range(4)]
    prepared(tmp_path, rows)
    before = {sample.id: sample.messages for sample in samples_of(tmp_path)}
    prepared(tmp_path, rows[::-1])
    assert {sample.id: sample.messages for sample in samples_of(tmp_path)} == before
