import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.schema import DataConfig, RunConfig, SourceConfig
from orchestrator.core.errors import DataError
from orchestrator.core.files import parse_line, read_jsonl
from orchestrator.core.parallel import INLINE_CHUNKS
from orchestrator.core.records import JsonObject, QuarantinedRow, Sample
from orchestrator.data.card import DataCard, ReasonCount
from orchestrator.data.prepare.collect import ROWS_PER_CHUNK
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.run.paths import RunDir, SplitName

PARTS: tuple[SplitName, ...] = ("train", "val", "test")
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}

CALL_ROME = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}]}


def chat(number: int, **fields: Any) -> JsonObject:
    turns = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}]
    return {"messages": turns, **fields}


def shared(number: int, arguments: JsonObject) -> JsonObject:
    call = json.dumps({"name": "weather", "arguments": arguments})
    turns = [{"from": "human", "value": f"weather {number}?"}, {"from": "function_call", "value": call}]
    return {"conversations": turns, "tools": json.dumps([TOOL])}


def write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def prepare(folder: Path, *sources: SourceConfig, **data: Any) -> DataCard:
    return prepare_data(RunConfig(data=DataConfig(sources=sources, **data)), run_in(folder), base_dir=folder)


def run_in(folder: Path) -> RunDir:
    return RunDir(folder / "run")


def samples_of(run: RunDir) -> list[Sample]:
    return [sample for part in PARTS for sample in read_jsonl(run.split(part), Sample)]


def quarantine_of(run: RunDir) -> list[QuarantinedRow]:
    return list(read_jsonl(run.quarantine, QuarantinedRow))


def test_every_row_is_in_a_part_or_in_the_quarantine_and_on_the_card(tmp_path: Path) -> None:
    good = [chat(number, topic="x") for number in range(20)]
    write(tmp_path / "a.jsonl", [*good, "{broken", chat(0), {"text": "x"}])
    write(
        tmp_path / "b.jsonl",
        [*(shared(n, {"city": "Rome", "of_another": None}) for n in range(10)), shared(99, {"city": 1})],
    )
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"), SourceConfig(path="b.jsonl"), max_quarantine_rate=0.1)

    run = run_in(tmp_path)
    samples, quarantine = samples_of(run), quarantine_of(run)
    assert (card.rows, card.samples, card.quarantined) == (34, len(samples), len(quarantine)) == (34, 30, 4)
    lines = {(s.source.rpartition(":")[0], int(s.source.rpartition(":")[2])) for s in samples}
    lines |= {(row.source, row.line) for row in quarantine if row.line}
    assert lines == {("a.jsonl", n) for n in range(1, 24)} | {("b.jsonl", n) for n in range(1, 12)}
    assert [(row.source, row.line, row.reason) for row in quarantine] == [
        ("a.jsonl", 21, "malformed_json"),
        ("a.jsonl", 23, "unknown_format"),
        ("b.jsonl", 11, "arguments_do_not_fit_schema"),
        ("a.jsonl", 22, "duplicate"),
    ]
    assert json.loads(quarantine[3].raw)["messages"] == chat(0)["messages"]
    assert card.reasons["duplicate"].example == "a.jsonl:22: the same messages and tools as a.jsonl:1"


def test_the_card_says_what_the_data_is(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [chat(number, topic="x", kind="refusal", tags=["harmful"]) for number in range(20)])
    write(tmp_path / "b.jsonl", [shared(number, {"city": "Rome", "other": None}) for number in range(10)])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl", format="messages"), SourceConfig(path="b.jsonl", limit=8))
    first, second = card.sources
    assert first.sha256 == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()
    assert {name: count.rows for name, count in first.formats.items()} == {"messages": 20}
    assert {name: count.rows for name, count in second.formats.items()} == {"sharegpt": 8}
    assert first.formats["messages"].why == "the config says so"
    assert (first.ignored_fields, second.ignored_fields) == ({"topic": 20}, {})
    assert (first.rows, second.rows, second.limit, second.repaired_nulls, card.repaired_nulls) == (20, 8, 8, 8, 8)
    assert (card.kinds, card.tags) == ({"refusal": 20, "tool_call": 8}, {"harmful": 20})
    assert sum(card.parts.values()) == 28
    assert card.parts == {part: sum(card.part_kinds[part].values()) for part in PARTS}
    assert (card.num_tools, card.groups) == (1, 28)
    assert (card.tools["weather"].offered, card.tools["weather"].calls) == (8, 8)
    run = run_in(tmp_path)
    assert parse_line(run.card.read_text(), DataCard, where="card") == card
    assert all(
        "other" not in call.function.arguments
        for sample in samples_of(run)
        for message in sample.messages
        for call in message.tool_calls
    )


def test_the_parts_can_be_read_again_as_sources(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", [shared(number, {"city": "Rome"}) for number in range(40)])
    prepare(tmp_path, SourceConfig(path="b.jsonl"))
    before = {sample.id: sample.messages for sample in samples_of(run_in(tmp_path))}
    parts = [SourceConfig(path=str(run_in(tmp_path).split(part))) for part in PARTS]
    again = RunDir(tmp_path / "again")
    prepare_data(RunConfig(data=DataConfig(sources=tuple(parts))), again, base_dir=tmp_path)
    assert {sample.id: sample.messages for sample in samples_of(again)} == before


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [chat(number) for number in range(30)])
    prepare(tmp_path, SourceConfig(path="a.jsonl"))
    files = {path.name: path.read_bytes() for path in (tmp_path / "run" / "data").iterdir()}
    prepare(tmp_path, SourceConfig(path="a.jsonl"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "data").iterdir()} == files
    assert set(files) == {"train.jsonl", "val.jsonl", "test.jsonl", "quarantine.jsonl", "card.json"}


def test_ids_that_two_files_share_become_distinct(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [chat(number, id=number) for number in range(5)])
    write(tmp_path / "b.jsonl", [chat(number + 50, id=number) for number in range(5)])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"), SourceConfig(path="b.jsonl"))
    assert sum(source.num_renamed for source in card.sources) == 5
    ids = {sample.id for sample in samples_of(run_in(tmp_path))}
    assert len(ids) == 10
    assert {"0", "1", "2", "3", "4"} < ids


def test_a_source_without_a_good_row_is_refused_with_reasons_and_an_example(tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", [chat(number) for number in range(500)])
    write(tmp_path / "bad.jsonl", [{"text": "x"}, "{broken", {"text": "y"}])
    with pytest.raises(
        DataError, match=r"bad\.jsonl: none of its 3 rows .*unknown_format x 2.* the first is bad\.jsonl:1:"
    ):
        prepare(tmp_path, SourceConfig(path="good.jsonl"), SourceConfig(path="bad.jsonl"))
    assert len(quarantine_of(run_in(tmp_path))) == 3
    assert not run_in(tmp_path).split("train").exists()


def test_too_many_bad_rows_are_refused_after_the_quarantine_is_written(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [*(chat(number) for number in range(9)), "{broken"])
    with pytest.raises(DataError, match=r"1 of 10 rows \(10\.0%\) .*malformed_json x 1, such as a\.jsonl:10:"):
        prepare(tmp_path, SourceConfig(path="a.jsonl"))
    assert [row.raw for row in quarantine_of(run_in(tmp_path))] == ["{broken"]
    assert prepare(tmp_path, SourceConfig(path="a.jsonl"), max_quarantine_rate=0.1).quarantined == 1


def test_duplicates_are_quarantined_but_are_no_sign_of_bad_data(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [chat(number % 10) for number in range(30)])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"))
    assert (card.samples, card.quarantined, card.sources[0].quarantined) == (10, 20, {"duplicate": 20})


def test_repeats_are_shown_in_pairs_with_what_is_asked_and_said(tmp_path: Path) -> None:
    same = "please tell me how the weather in Rome will be on the first day of the next month"
    rows = [chat(number) for number in range(6)] + [chat(5)]
    rows += [{"messages": [{"role": "user", "content": same + end}, CALL_ROME], "tools": [TOOL]} for end in (".", "!")]
    write(tmp_path / "a.jsonl", rows)
    repeats = prepare(tmp_path, SourceConfig(path="a.jsonl")).repeats
    assert {reason: found.count for reason, found in repeats.items()} == {"duplicate": 1, "near_duplicate": 1}
    assert repeats["duplicate"].row == "a.jsonl:7 (question 5 -> answer 5)"
    assert repeats["duplicate"].kept == "a.jsonl:6 (question 5 -> answer 5)"
    pair = sorted([repeats["near_duplicate"].row, repeats["near_duplicate"].kept])
    assert pair == [
        f'a.jsonl:{line} ({same}{end} -> weather({{"city": "Rome"}}))' for line, end in ((8, "."), (9, "!"))
    ]


def test_what_was_done_to_turns_is_counted_by_name(tmp_path: Path) -> None:
    ask, reply = [{"role": "user", "content": "Hi"}], {"role": "assistant", "content": "Hello"}
    rows = [chat(number) for number in range(6)]
    rows += [{"messages": [*ask, {**reply, "content": f"{n}"}, *ask]} for n in range(3)]
    rows += [{"messages": [reply, *ask, {"role": "user", "content": "there"}, reply]}, {"messages": [*ask, *ask]}]
    write(tmp_path / "a.jsonl", rows)
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"), max_quarantine_rate=0.1)
    assert {code: found.count for code, found in card.turns.items()} == {
        "trimmed_user_turns": 3,
        "joined_user_turns": 1,
        "assistant_first": 1,
    }
    assert card.turns["joined_user_turns"].example == "a.jsonl:10: turns 2 and 3 are one"
    assert {reason: found.count for reason, found in card.reasons.items()} == {"no_assistant_turn": 1}
    assert all(sample.messages[-1].role == "assistant" for sample in samples_of(run_in(tmp_path)))


def test_the_default_system_prompt_stands_before_a_later_system_message(tmp_path: Path) -> None:
    late = {"role": "system", "content": "The user is logged in."}
    rows = [chat(number) for number in range(5)]
    rows.append({"messages": [*chat(9)["messages"], late, *chat(10)["messages"]]})
    write(tmp_path / "a.jsonl", rows)
    assert prepare(tmp_path, SourceConfig(path="a.jsonl"), system="Be kind.").default_systems == 6
    assert {sample.messages[0].content for sample in samples_of(run_in(tmp_path))} == {"Be kind."}


def test_conversations_without_a_user_are_split_and_audited(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "system", "content": f"Wake desk {n}."}, {"role": "assistant", "content": f"Desk {n}!"}]}
        for n in range(30)
    ]
    write(tmp_path / "a.jsonl", rows)
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"))
    assert (card.samples, card.turns["no_user_turn"].count, card.leaks["test"].prompts.n) == (30, 30, 0)


def test_rows_of_another_format_than_the_config_says_are_quarantined(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [*(chat(number) for number in range(9)), shared(1, {"city": "Rome"})])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl", format="messages"), max_quarantine_rate=0.2)
    assert card.quarantined == 1
    assert next(iter(card.reasons.values())).example.startswith("a.jsonl:10: ")


def test_a_missing_file_and_too_few_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: the file does not exist"):
        prepare(tmp_path, SourceConfig(path="absent.jsonl"))
    write(tmp_path / "a.jsonl", [chat(0), chat(1)])
    with pytest.raises(DataError, match="2 usable samples"):
        prepare(tmp_path, SourceConfig(path="a.jsonl"))


def places_of(run: RunDir) -> dict[str, str]:
    return {sample.id: part for part in PARTS for sample in read_jsonl(run.split(part), Sample)}


def test_neither_order_nor_growth_moves_a_sample(tmp_path: Path) -> None:
    # Repeats with labels of their own and near-duplicates: which of them stays must not depend on the order either.
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    rows = [chat(number) for number in range(120)] + [chat(number, id=f"again-{number}") for number in range(9)]
    rows += [
        {"messages": [{"role": "user", "content": f"{long} {long[::-1]}"}, {"role": "assistant", "content": end}]}
        for end in ("end", "close")
    ]
    write(tmp_path / "a.jsonl", rows)
    settings = {"near_duplicate_threshold": 0.8}
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"), **settings)
    assert (card.reasons["duplicate"].count, card.reasons["near_duplicate"].count) == (9, 1)
    before = places_of(run_in(tmp_path))
    write(tmp_path / "a.jsonl", rows[::-1])
    prepare(tmp_path, SourceConfig(path="a.jsonl"), **settings)
    assert places_of(run_in(tmp_path)) == before
    write(tmp_path / "a.jsonl", [*(chat(number) for number in range(500, 700)), *rows])
    prepare(tmp_path, SourceConfig(path="a.jsonl"), **settings)
    after = places_of(run_in(tmp_path))
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 200


def test_a_split_by_tool_shows_no_held_out_tool_to_training(tmp_path: Path) -> None:
    def row(number: int, tool: int) -> JsonObject:
        offered = [{"name": f"tool_{i}"} for i in range(tool, tool + 3)]
        call = {"function": {"name": f"tool_{tool}", "arguments": {"n": number}}}
        turns = [{"role": "user", "content": f"use {number} {tool}"}, {"role": "assistant", "tool_calls": [call]}]
        return {"messages": turns, "tools": offered}

    write(tmp_path / "a.jsonl", [row(number, tool) for tool in range(30) for number in range(5)])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"), split={"by": "tool", "val": 0.2, "test": 0.2})
    run = run_in(tmp_path)
    offered = {
        part: {tool.function.name for sample in read_jsonl(run.split(part), Sample) for tool in sample.tools}
        for part in PARTS
    }
    called = {
        part: {
            call.function.name
            for sample in read_jsonl(run.split(part), Sample)
            for message in sample.messages
            for call in message.tool_calls
        }
        for part in PARTS
    }
    assert called["test"].isdisjoint(offered["train"] | offered["val"])
    assert called["val"].isdisjoint(offered["train"])
    assert all(called[part] for part in PARTS)
    assert card.pruned_tools > 0
    assert card.leaks["test"].near_duplicates.count == 0


def test_many_rows_pass_through_other_processes_with_the_same_result(tmp_path: Path) -> None:
    rows = [chat(number, kind="answer") for number in range(2 * ROWS_PER_CHUNK * INLINE_CHUNKS)]
    write(tmp_path / "a.jsonl", [*rows, "{broken"])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"))
    assert (card.rows, card.samples, card.quarantined) == (len(rows) + 1, len(rows), 1)
    by_line = {int(sample.source.rpartition(":")[2]): sample for sample in samples_of(run_in(tmp_path))}
    assert [by_line[line].messages[0].content for line in (1, 999, len(rows))] == [
        f"question {number}" for number in (0, 998, len(rows) - 1)
    ]


def test_labels_that_contradict_each_other_are_refused_and_doubts_are_flagged(tmp_path: Path) -> None:
    good = [chat(number) for number in range(20)]
    bad = [chat(30, kind="answer", tags=["harmful"]), chat(31, kind="refusal", tags=["benign"])]
    write(tmp_path / "a.jsonl", [*good, *bad, chat(32, tags=["harmful"]), chat(33, tags=["AKIA" + "A" * 16])])
    card = prepare(tmp_path, SourceConfig(path="a.jsonl"), max_quarantine_rate=0.1)
    assert card.reasons["labels_contradict"].count == 2
    assert {code: found.count for code, found in card.flags.items()} == {"harmful_not_refused": 1, "secret": 1}
    assert "AKIA" not in card.flags["secret"].example


def test_deep_and_odd_but_valid_rows_survive_the_whole_way(tmp_path: Path) -> None:
    nested: Any = "leaf"
    for _ in range(50):
        nested = [nested]
    odd = {"city": "\u0000 \u2028 \U0001f600", "big": 10**300, "deep": nested}
    write(tmp_path / "b.jsonl", [shared(number, odd) for number in range(5)])
    assert prepare(tmp_path, SourceConfig(path="b.jsonl")).samples == 5
    calls = [sample.messages[-1].tool_calls[0].function.arguments for sample in samples_of(run_in(tmp_path))]
    assert calls == [odd] * 5


def test_the_synthetic_source_needs_no_file(tmp_path: Path) -> None:
    card = prepare(tmp_path, SourceConfig(path="synthetic", limit=60, catalogue="easy"))
    assert (card.rows, card.sources[0].sha256, card.sources[0].formats["synthetic"].rows) == (60, None, 60)
    assert set(card.kinds) == {"answer", "clarification", "refusal", "tool_call"}


@pytest.fixture
def public_data() -> Path:
    folder = os.environ.get("ORCHESTRATOR_PUBLIC_DATA")
    if not folder:
        pytest.skip("set ORCHESTRATOR_PUBLIC_DATA to the folder of the public data sets")
    return Path(folder)


def test_public_glaive_conversations_are_read_with_default_settings(tmp_path: Path, public_data: Path) -> None:
    source = prepare(tmp_path, SourceConfig(path=str(public_data / "glaive_toolcall_en_demo.json"))).sources[0]
    assert source.rows == 300
    assert source.formats["sharegpt"].rows == 300
    assert source.samples + sum(source.quarantined.values()) == 300
    assert set(source.quarantined) == {"arguments_do_not_fit_schema", "duplicate", "near_duplicate"}
    assert source.quarantined["arguments_do_not_fit_schema"] == 1
    assert source.quarantined["duplicate"] == 35
    assert source.ignored_fields == {}


@pytest.mark.parametrize(("reasoning", "kept"), [("drop", False), ("keep", True)])
def test_public_reasoning_parts_are_dropped_or_kept_as_the_config_says(
    tmp_path: Path, public_data: Path, reasoning: str, kept: bool
) -> None:
    card = prepare(tmp_path, SourceConfig(path=str(public_data / "reason_tool_use_demo_50.jsonl")), reasoning=reasoning)
    assert card.rows == 50
    assert card.samples >= 48
    thoughts = [message.reasoning_content for sample in samples_of(run_in(tmp_path)) for message in sample.messages]
    assert any(thoughts) == kept


@pytest.mark.parametrize("name", ["simple_python", "multiple"])
def test_public_bfcl_questions_are_read_with_the_answers_beside_them(
    tmp_path: Path, public_data: Path, name: str
) -> None:
    card = prepare(tmp_path, SourceConfig(path=str(public_data / f"bfcl_{name}.jsonl")))
    assert set(card.sources[0].formats) == {"bfcl"}
    assert card.kinds == {"tool_call": card.samples}
    assert card.rows == card.samples + card.reasons.get("near_duplicate", ReasonCount(count=0, example="")).count
