"""Which reader takes a suite, what cases are called, and what happens to rows that cannot be cases."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from builders import make_sample, weather_samples

from evals.cases.samples import cases_from_samples
from evals.cases.suites import MAX_REFUSED_SHARE, cases_from_file, read_suite
from orchestrator.config.evaluation import SuiteConfig, SuiteFormat
from orchestrator.core.errors import DataError
from orchestrator.core.files import dump_jsonl
from orchestrator.core.records import JsonObject

FUNCTION: JsonObject = {
    "name": "math.area",
    "description": "The area.",
    "parameters": {"type": "dict", "properties": {"base": {"type": "integer"}}, "required": ["base"]},
}
QUESTION: JsonObject = {
    "id": "simple_python_0",
    "question": [[{"role": "user", "content": "The area of 10?"}]],
    "function": [FUNCTION],
}
IRRELEVANT: JsonObject = {**QUESTION, "id": "irrelevance_0"}
ANSWER: JsonObject = {"id": "simple_python_0", "ground_truth": [{"math.area": {"base": [10]}}]}
SAFE: JsonObject = {"id": "1", "prompt": "Kill a process?", "type": "homonyms", "label": "safe"}
CHOICE: JsonObject = {
    "uuid": "u1",
    "question": "And now?",
    "tools": [],
    "answers": {"direct": "Now."},
    "correct_answer": "direct",
}
MCP: JsonObject = {
    "id": "m1",
    "tools": {"tools": [{"name": "now", "inputSchema": {"type": "object"}}]},
    "prompt": "What time is it?",
    "expected": {"name": "now", "arguments": {}},
}


def write(folder: Path, name: str, *rows: JsonObject) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sample_row(city: str) -> JsonObject:
    row: JsonObject = json.loads(dump_jsonl(weather_samples(city)))
    return row


def refusal(path: Path, written: SuiteFormat = "auto", *, answers: Path | None = None) -> str:
    with pytest.raises(DataError) as error:
        cases_from_file(path, written, suite="mine", answers=answers)
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("row", "written", "case_id"),
    [
        (SAFE, "xstest", "1"),
        (CHOICE, "when2call", "u1"),
        (MCP, "mcp", "m1"),
        (IRRELEVANT, "bfcl", "irrelevance_0"),
        (sample_row("Rome"), "canonical", "s-Rome"),
        (json.loads(cases_from_samples(weather_samples("Rome"))[0].model_dump_json()), "cases", "s-Rome"),
    ],
    ids=["xstest", "when2call", "mcp", "bfcl", "canonical", "cases"],
)
def test_the_first_row_decides_the_format(tmp_path: Path, row: JsonObject, written: SuiteFormat, case_id: str) -> None:
    path = write(tmp_path, "rows.jsonl", row)
    (case,) = cases_from_file(path, "auto", suite="mine")
    assert [case] == cases_from_file(path, written, suite="mine")
    assert (case.id, case.suite) == (case_id, "mine")


def test_the_ids_of_a_configured_suite_begin_with_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", SAFE, {**SAFE, "id": "2"}, {**SAFE, "id": "3"})
    cases = read_suite(SuiteConfig(name="xs", path=str(path), limit=2))
    assert [(case.id, case.suite) for case in cases] == [("xs/1", "xs"), ("xs/2", "xs")]


def test_answers_of_bfcl_are_given_or_lie_beside_the_questions(tmp_path: Path) -> None:
    questions = write(tmp_path, "q.jsonl", QUESTION)
    assert "no accepted answer" in refusal(questions)
    given = write(tmp_path, "elsewhere.jsonl", ANSWER)
    (case,) = cases_from_file(questions, "auto", suite="mine", answers=given)
    assert [accepted.arguments for accepted in case.accepted_calls] == [{"base": [10]}]
    write(tmp_path, "q_answers.jsonl", ANSWER)
    assert cases_from_file(questions, "bfcl", suite="mine") == [case]
    assert case.original_names == {"math_area": "math.area"}


def test_irrelevance_asks_for_no_words(tmp_path: Path) -> None:
    (case,) = cases_from_file(write(tmp_path, "q.jsonl", IRRELEVANT), "bfcl", suite="mine")
    assert (case.kind, case.tags) == ("answer", ("no_fitting_tool", "no_call_suffices"))


def test_cases_are_read_as_they_were_written_but_for_their_suite(tmp_path: Path) -> None:
    cases = cases_from_samples(weather_samples("Rome", "Oslo", "Bern"))
    path = tmp_path / "cases.jsonl"
    path.write_text(dump_jsonl(cases), encoding="utf-8")
    read = cases_from_file(path, "cases", suite="mine", limit=2)
    assert read == [case.model_copy(update={"suite": "mine"}) for case in cases[:2]]
    packed = tmp_path / "cases.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert cases_from_file(packed, "auto", suite="mine", limit=2) == read


def test_only_the_last_turns_where_only_they_are_wanted(tmp_path: Path) -> None:
    turns = [{"role": role, "content": f"{role} {n}"} for n in range(2) for role in ("user", "assistant")]
    path = write(tmp_path, "rows.jsonl", {"id": "t", "messages": turns})
    assert [case.id for case in cases_from_file(path, "auto", suite="mine")] == ["t#0", "t"]
    assert [case.id for case in cases_from_file(path, "auto", suite="mine", turns="last")] == ["t"]


def test_a_few_rows_that_cannot_be_cases_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**SAFE, "id": str(number)} for number in range(200)]
    rows[150]["label"] = "neither"
    path = write(tmp_path, "rows.jsonl", *rows)
    assert len(cases_from_file(path, "xstest", suite="mine")) == 199
    assert f"Left out of suite mine: 1 of 200 rows cannot be cases; the first is {path}:151: `label`" in (
        capsys.readouterr().out
    )


def test_what_is_told_of_a_row_hides_nothing_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**SAFE, "id": str(number)} for number in range(100)]
    path = write(tmp_path, "rows.jsonl", *rows, {**SAFE, "label": "\x1b[2J\u202e"})
    cases_from_file(path, "xstest", suite="mine")
    assert '`label` is "\\u001b[2J\\u202e"' in capsys.readouterr().out


def test_accepted_calls_of_unknown_types_are_refused_where_they_are_read(tmp_path: Path) -> None:
    (case,) = cases_from_samples(weather_samples("Rome"))
    accepted = {"name": "get_weather", "arguments": {"city": ["Rome"]}, "types": {"city": "text"}}
    row = {**json.loads(case.model_dump_json()), "accepted_calls": [accepted]}
    path = write(tmp_path, "rows.jsonl", row)
    assert refusal(path).startswith(f"{path}:1: this is no case: accepted_calls.0: city: 'text' is no type of python")


def test_more_refuse_the_suite_with_their_number_and_the_first(tmp_path: Path) -> None:
    rows = [{**SAFE, "id": str(number)} for number in range(20)]
    rows[7]["label"] = rows[9]["label"] = "neither"
    assert MAX_REFUSED_SHARE * 20 == 1
    path = write(tmp_path, "rows.jsonl", *rows)
    assert f"2 of 20 rows cannot be cases; the first is {path}:8: `label`" in refusal(path, "xstest")


@pytest.mark.parametrize("row", [SAFE, {**sample_row("Rome"), "id": None}], ids=["with an id", "without"])
def test_a_row_that_repeats_an_earlier_one_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: JsonObject
) -> None:
    assert len(cases_from_file(write(tmp_path, "rows.jsonl", row, row, row), "auto", suite="mine")) == 1
    assert "Left out of suite mine: 2 of 3 rows that repeat an earlier one." in capsys.readouterr().out


def test_two_rows_of_one_id_and_another_content_are_not_both_cases(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", SAFE, {**SAFE, "prompt": "Another?"})
    assert f"{path}:2: an earlier row has the id '1' and another content" in refusal(path)


def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.jsonl"
    assert f"{missing}: suite mine: there is no such file" in refusal(missing)
    assert "this is a folder, not a file. Name a file in it." in refusal(tmp_path)
    rows = write(tmp_path, "rows.jsonl", SAFE)
    assert f"{missing}: suite mine: there is no such file" in refusal(rows, "bfcl", answers=missing)
    assert "answers belong to format bfcl, not xstest" in refusal(rows, answers=rows)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert "empty.jsonl" in refusal(tmp_path / "empty.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "Köln"}\n'.encode("latin-1"))
    assert "latin.jsonl" in refusal(tmp_path / "latin.jsonl")
    (tmp_path / "rows.txt").write_text("x", encoding="utf-8")
    assert "rows.txt: the file type '.txt' is not known" in refusal(tmp_path / "rows.txt")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a"}', "rows.jsonl:2: this is no case: messages: Field required"),
        ("{", "rows.jsonl:2: not JSON"),
        ("[1]", "rows.jsonl:2: the row is [1], not an object"),
    ],
)
def test_a_broken_case_is_refused_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(dump_jsonl(cases_from_samples([make_sample()])) + line + "\n", encoding="utf-8")
    assert said in refusal(path)


@pytest.mark.skipif("ORCHESTRATOR_PUBLIC_DATA" not in os.environ, reason="ORCHESTRATOR_PUBLIC_DATA names no folder")
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bfcl_simple_python.jsonl", {"tool_call": 400}),
        ("bfcl_multiple.jsonl", {"tool_call": 200}),
        ("bfcl_irrelevance.jsonl", {"answer": 240}),
    ],
)
def test_the_published_questions_of_bfcl_are_all_cases(name: str, kinds: dict[str, int]) -> None:
    cases = cases_from_file(Path(os.environ["ORCHESTRATOR_PUBLIC_DATA"]) / name, "auto", suite="bfcl")
    assert Counter(case.kind for case in cases) == kinds
