import json
from pathlib import Path

import pytest
from builders import assistant, make_call, make_sample, make_tool, make_trial, user
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.core.errors import DataError
from orchestrator.core.files import dump_jsonl, dump_line, parse_line, read_jsonl
from orchestrator.core.records import AdapterRecord, EvalPoint, Message, QuarantinedRow, Sample, ToolCall, TrialRecord
from orchestrator.data.card import KindTokens, LeftOut, TokenCard
from orchestrator.run.folder import Ledger, StageEntry
from orchestrator.training.outcome import Progress

CALL = make_call("f", city="Zürich", unit=None, filter={"max": None, "tags": [None, 1]})
FULL_SAMPLE = make_sample(
    Message(role="system", content="Help."),
    user("Rome\nand\u2028Paris"),
    assistant("", CALL.model_copy(update={"id": "c1"})),
    Message(role="tool", content="{}", tool_call_id="c1", name="f"),
    assistant("Done."),
    kind="answer",
    tools=(make_tool("f", unit={"type": ["string", "null"], "default": None, "enum": ["c", None]}),),
    tags=("a", "b"),
)
POINT, BARE_POINT = EvalPoint(step=1, eval_loss=0.5, train_loss=0.25), EvalPoint(step=2, eval_loss=1e-9)
RECORDS: list[BaseModel] = [
    CALL,
    FULL_SAMPLE,
    make_sample(user("hi"), tools=(), kind="refusal"),
    QuarantinedRow(source="a", line=3, reason="r", detail="d", raw="{"),
    QuarantinedRow(source="a", reason="r", detail="", raw=""),
    AdapterRecord(
        id="ab",
        base="tiny",
        r=4,
        alpha=8,
        target_modules=("q_proj",),
        sha256="abcd",
        learning_rate=1e-3,
        eval_loss=0.1,
        step=4,
        trial_id="t",
    ),
    POINT,
    make_trial(eval_loss=None, step=None),
    TrialRecord(
        trial_id="t",
        status="failed",
        hyperparameters={"r": 8, "learning_rate": 2e-4},
        curve=(POINT, BARE_POINT),
        best_eval_loss=0.5,
        best_step=1,
        adapter_id="ab",
        duration_s=1.5,
        error="x",
        steps=1,
        tokens=2,
        device_s=0.5,
        stop_reason="failed",
    ),
    StageEntry(status="running", input_digest="d", started_at="2026-01-01T00:00:00+00:00"),
    Ledger(),
    Ledger(stages={"train": StageEntry(status="done", input_digest="d", started_at="t", duration_s=0.1)}, commit="c"),
    Progress(step=3, diverged=False, curve=(POINT, BARE_POINT), tokens=7),
    TokenCard(
        samples=1,
        rows=2,
        tokens=5,
        learned_tokens=2,
        longest=5,
        shortened=1,
        unlearned_turns=2,
        by_kind={"answer": KindTokens(samples=1, tokens=5, learned_tokens=2)},
        histogram=((32, 1),),
        left_out=(LeftOut(kind="answer", id="a", source="s", tokens=9, reason="too_long", detail="is long"),),
    ),
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_from_its_file_as_it_was(record: BaseModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(dump_jsonl([record, record]), encoding="utf-8")
    assert list(read_jsonl(path, type(record))) == [record, record]


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4))
def test_any_arguments_come_back_and_stay_on_one_line(arguments: dict[str, object]) -> None:
    call = ToolCall.model_validate({"function": {"name": "f", "arguments": arguments}})
    line = dump_line(call)
    assert "\n" not in line
    assert parse_line(line, ToolCall, where="x").function.arguments == arguments


def test_absent_fields_are_left_out_and_null_arguments_are_kept() -> None:
    assert json.loads(dump_line(CALL)) == {
        "type": "function",
        "function": {
            "name": "f",
            "arguments": {"city": "Zürich", "unit": None, "filter": {"max": None, "tags": [None, 1]}},
        },
    }
    assert "Zürich" in dump_line(CALL)


def test_null_defaults_and_choices_of_a_tools_schema_are_kept() -> None:
    stored = json.loads(dump_line(FULL_SAMPLE))["tools"][0]["function"]["parameters"]["properties"]["unit"]
    assert stored == {"type": ["string", "null"], "default": None, "enum": ["c", None]}


def test_empty_lines_are_skipped_and_no_record_is_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"\n{dump_line(POINT)}\n  \n{dump_line(BARE_POINT)}", encoding="utf-8")
    assert list(read_jsonl(path, EvalPoint)) == [POINT, BARE_POINT]
    assert dump_jsonl([]) == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "Invalid JSON"),
        ('{"step": 1}', "eval_loss: Field required"),
        ('{"step": "x", "eval_loss": 1}', "step: "),
        ('{"step": 1, "eval_loss": 1, "los": 2}', "los: "),
    ],
)
def test_an_error_names_file_and_line(line: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{dump_line(POINT)}\n\n{line}\n", encoding="utf-8")
    rows = read_jsonl(path, EvalPoint)
    assert next(rows) == POINT
    with pytest.raises(DataError, match=says) as caught:
        next(rows)
    assert caught.value.where == f"{path}:3"


def test_the_place_inside_a_line_is_a_path(tmp_path: Path) -> None:
    content = json.loads(dump_line(make_sample()))
    content["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{}"
    with pytest.raises(DataError, match=r"^a:1: messages\.1\.tool_calls\.0\.function\.arguments: "):
        parse_line(json.dumps(content), Sample, where="a:1")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        list(read_jsonl(tmp_path / "none.jsonl", Sample))
    assert caught.value.where == str(tmp_path / "none.jsonl")
