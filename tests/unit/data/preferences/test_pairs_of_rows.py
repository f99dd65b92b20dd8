"""Pairs out of files: every notation of a chosen and a rejected reply, and what becomes of rows that are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import make_tool

from orchestrator.config.schema import DataConfig, SourceConfig
from orchestrator.core.records import Message, Sample
from orchestrator.data.preferences.pair import Candidate, PairEntry
from orchestrator.data.preferences.rows import pairs_of_data, pairs_of_file

TOOLS = [make_tool().model_dump(mode="json")]
ASKED = [{"role": "user", "content": "What is the weather in Rome?"}]
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
GOOD = {"role": "assistant", "content": "", "tool_calls": [CALL]}
BAD = {"role": "assistant", "content": "I do not know."}
OPENAI = {
    "input": {"messages": ASKED, "tools": TOOLS},
    "preferred_output": [GOOD],
    "non_preferred_output": [BAD],
}
ROWS: dict[str, dict[str, Any]] = {
    "explicit prompt": {"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD], "tools": TOOLS},
    "implicit prompt": {"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD], "tools": TOOLS},
    "single messages": {"messages": ASKED, "chosen": GOOD, "rejected": BAD, "tools": TOOLS},
    "tools as text": {"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD], "tools": json.dumps(TOOLS)},
    "a labelled row": {"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD], "tools": TOOLS, "kind": "tool_call"},
    "OpenAI's preferences": OPENAI,
}


def _file(folder: Path, *rows: dict[str, Any]) -> SourceConfig:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return SourceConfig(path=str(path))


def _read(folder: Path, *rows: dict[str, Any]) -> list[Candidate | PairEntry]:
    source = _file(folder, *rows)
    return list(pairs_of_file(source, DataConfig(sources=(source,)), folder))


@pytest.mark.parametrize("name", ROWS)
def test_a_row_gives_the_chosen_sample_and_the_rejected_reply(name: str, tmp_path: Path) -> None:
    (found,) = _read(tmp_path, ROWS[name])
    assert isinstance(found, Candidate), found
    assert found.sample.kind == "tool_call"
    assert found.sample.messages[-1].tool_calls[0].function.arguments == {"city": "Rome"}
    assert isinstance(found.rejected, Message)
    assert (found.rejected.content, found.rejected.tool_calls) == ("I do not know.", ())


def test_when2calls_own_rows_are_pairs(tmp_path: Path) -> None:
    tool = {"name": "get_weather", "description": "Weather.", "parameters": TOOLS[0]["function"]["parameters"]}
    call = '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Rome"}}]</TOOLCALL>'
    row = {
        "messages": ASKED,
        "tools": [json.dumps(tool)],
        "chosen_response": {"role": "assistant", "content": "I cannot look that up."},
        "rejected_response": {"role": "assistant", "content": call},
    }
    (found,) = _read(tmp_path, row)
    assert isinstance(found, Candidate), found
    assert isinstance(found.rejected, Message)
    assert found.rejected.tool_calls[0].function.name == "get_weather"
    assert found.sample.messages[-1].content == "I cannot look that up."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [*ASKED, GOOD], "tools": TOOLS}, "no_rival"),
        ({"prompt": ASKED, "chosen": [GOOD], "rejected": [], "tools": TOOLS}, "no_rival"),
        (
            {"chosen": [*ASKED, GOOD], "rejected": [{"role": "user", "content": "Else?"}, BAD], "tools": TOOLS},
            "prompts_differ",
        ),
        (
            {
                "prompt": ASKED,
                "chosen": [GOOD],
                "rejected": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "no_tool"}}]}],
                "tools": TOOLS,
            },
            "unknown_tool",
        ),
    ],
)
def test_a_row_of_a_file_that_is_no_pair_says_why(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (found,) = _read(tmp_path, row)
    assert isinstance(found, PairEntry)
    assert (found.left_out, found.origin) == (reason, "file")
    assert found.detail


def test_rows_of_the_data_are_pairs_only_where_they_were_dealt_to_train(tmp_path: Path) -> None:
    rows = [ROWS["explicit prompt"], ROWS["implicit prompt"], {"messages": [*ASKED, GOOD], "tools": TOOLS}]
    source = _file(tmp_path, *rows)
    config = DataConfig(sources=(source,))
    (pair, *_) = pairs_of_file(source, config, tmp_path)
    assert isinstance(pair, Candidate)
    assert pair.sample.source == f"{source.path}:1"
    train = [pair.sample.model_copy(update={"id": "as-prepared"})]

    found = list(pairs_of_data(config, tmp_path, lambda: iter(train)))

    kept = [one for one in found if isinstance(one, Candidate)]
    assert [(one.sample.id, one.origin) for one in kept] == [("as-prepared", "data")]
    (other,) = (one for one in found if isinstance(one, PairEntry))
    assert (other.left_out, other.source) == ("not_in_train", f"{source.path}:2")


def test_data_without_pairs_gives_none_and_reads_no_part(tmp_path: Path) -> None:
    source = _file(tmp_path, {"messages": [*ASKED, GOOD], "tools": TOOLS})

    def unread() -> Any:
        raise AssertionError("no sample is needed")

    assert list(pairs_of_data(DataConfig(sources=(source, SourceConfig(path="synthetic"))), tmp_path, unread)) == []


def test_a_sample_keeps_what_stands_before_its_reply(tmp_path: Path) -> None:
    (found,) = _read(tmp_path, ROWS["explicit prompt"])
    assert isinstance(found, Candidate)
    assert Sample.model_validate_json(found.sample.model_dump_json()) == found.sample


LABELLED: dict[str, dict[str, Any]] = {
    "TRL's, conversational": {"prompt": ASKED, "completion": [GOOD], "tools": TOOLS, "label": True},
    "TRL's, as text": {"prompt": "Hi.", "completion": "Hello.", "label": True},
    "LLaMA-Factory's": {"messages": [*ASKED, GOOD], "tools": TOOLS, "kto_tag": True},
    "a table of text": {"messages": [*ASKED, GOOD], "tools": TOOLS, "label": "True"},
    "an instruction": {"instruction": "Say hello.", "output": "Hello.", "kto_tag": True},
}


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("name", LABELLED)
def test_one_reply_with_a_label_is_a_reply_alone(name: str, label: bool, tmp_path: Path) -> None:
    row = dict(LABELLED[name])
    key = "kto_tag" if "kto_tag" in row else "label"
    row[key] = str(label) if isinstance(row[key], str) else label
    (found,) = _read(tmp_path, row)
    assert isinstance(found, Candidate), found
    assert (found.label, found.rejected, found.origin) == (label, None, "file")
    assert found.sample.messages[-1].role == "assistant"


def test_a_bad_reply_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "no_tool"}}]}
    (found,) = _read(tmp_path, {"messages": [*ASKED, call], "tools": TOOLS, "label": False})
    assert isinstance(found, PairEntry)
    assert found.left_out == "unknown_tool"


def test_labelled_rows_of_the_data_are_learned_with_train_and_avoided_wherever_they_stand(tmp_path: Path) -> None:
    good, bad = LABELLED["LLaMA-Factory's"], {"messages": [*ASKED, BAD], "tools": TOOLS, "kto_tag": False}
    source = _file(tmp_path, good, bad, good)
    config = DataConfig(sources=(source,))
    first, *_ = pairs_of_file(source, config, tmp_path)
    assert isinstance(first, Candidate)

    found = list(pairs_of_data(config, tmp_path, lambda: iter([first.sample])))

    alone = {(one.sample.source, one.label) for one in found if isinstance(one, Candidate)}
    assert alone == {(f"{source.path}:1", True), (f"{source.path}:2", False)}
    (other,) = (one for one in found if isinstance(one, PairEntry))
    assert (other.left_out, other.source) == ("not_in_train", f"{source.path}:3")
