"""The command that scores replies from a file."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import weather_samples

from evals.cases import cases_from_samples
from evals.records import Scores
from evals.score import main
from orchestrator.jsonl import dump_jsonl

CITIES = ("Rome", "Oslo", "Bern", "Kyiv")


def call(city: str) -> str:
    return json.dumps({"name": "get_weather", "arguments": {"city": city}})


def hermes(city: str) -> str:
    return f"<tool_call>{call(city)}</tool_call>"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder with the cases of four cities, and where replies and scores go."""
    (tmp_path / "cases.jsonl").write_text(dump_jsonl(cases_from_samples(weather_samples(*CITIES))), encoding="utf-8")
    return tmp_path


def score(folder: Path, *lines: Any, options: tuple[str, ...] = ()) -> int:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "generations.jsonl").write_text(text, encoding="utf-8")
    given = {"--cases": "cases.jsonl", "--generations": "generations.jsonl", "--out": "scores.json"}
    return main([part for name, file in given.items() for part in (name, str(folder / file))] + list(options))


def scores_in(folder: Path) -> Scores:
    return Scores.model_validate_json((folder / "scores.json").read_text(encoding="utf-8"))


def test_replies_are_scored_with_what_they_tell_alone(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"case_id": "s-Oslo", "text": hermes("Rome"), "model": "m", "latency_s": 2.0, "finish_reason": None},
        {"case_id": "s-Rome", "text": hermes("Rome"), "model": "m", "cost": 1},
        {"case_id": "s-Bern", "text": "\ud800"},
    ]
    assert score(files, *rows, options=("--adapter-id", "mine")) == 0
    document = json.loads((files / "scores.json").read_text(encoding="utf-8"))
    assert document["metrics"]["tool_call_accuracy"]["n"] == 3
    found = [(v["case_id"], v["valid"], v["correct"], v["reason"]) for v in document["verdicts"]]
    assert found == [
        ("s-Rome", True, True, None),
        ("s-Oslo", True, False, "value_error:string"),
        ("s-Bern", False, False, "no_call"),
        ("s-Kyiv", None, None, "not_scored"),
    ]
    scores = scores_in(files)
    assert (scores.adapter_id, scores.num_cases, scores.num_unscored) == ("mine", 4, 1)
    assert scores.metrics["latency_p50_s"].n == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"{files / 'generations.jsonl'}: not used: cost, model.",
        "1 of 4 cases are not scored; the first is s-Kyiv: there is no generation.",
    ]
    assert "3 of 4 cases scored" in said.out
    # Wilson of 1 of 3: the mirror image of that of 2 of 3.
    assert "tool_call_accuracy         0.333   0.061 to 0.792        3" in said.out
    assert "clarification_accuracy" not in said.out


@pytest.mark.parametrize(("reason", "rate"), [("length", 1.0), ("stop", 0.0), (None, 0.0)])
def test_whether_a_reply_was_cut_off_is_taken_from_the_row_alone(
    files: Path, capsys: pytest.CaptureFixture[str], reason: str | None, rate: float
) -> None:
    assert score(files, {"case_id": "s-Rome", "text": "<tool_call>{", "finish_reason": reason}) == 0
    scores = scores_in(files)
    assert scores.metrics["truncated_rate"].value == rate
    assert scores.verdicts[0].reason == ("cut_off" if rate else "unclosed_tag")
    assert ("No reply tells its finish_reason" in capsys.readouterr().out) is (reason is None)


def test_replies_may_be_in_another_format(files: Path) -> None:
    assert score(files, {"case_id": "s-Rome", "text": call("Rome")}, options=("--reply-format", "json")) == 0
    assert scores_in(files).verdicts[0].correct is True


ROME = {"case_id": "s-Rome", "text": hermes("Rome")}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ROME, {"case_id": "s-Paris", "text": ""}], "generations.jsonl:2: there is no case 's-Paris'."),
        ([ROME, "", ROME], "generations.jsonl:3: the case 's-Rome' has a reply at"),
        ([ROME, '{"case_id": "s-Oslo", "te'], "generations.jsonl:2: the line is not JSON"),
        (['{"case_id": "s-Oslo", "text": "", "latency_s": NaN}'], "generations.jsonl:1: the line is not JSON (NaN"),
        (["[1]"], "generations.jsonl:1: the line is no JSON object."),
        (["[" * 100_000], "generations.jsonl:1: the line is not JSON"),
        ([{"case_id": "s-Rome"}], "generations.jsonl:1: text: Field required."),
        ([{"case_id": "s-Rome", "text": None}], "generations.jsonl:1: text: Field required."),
        ([{"case_id": "s-Rome", "text": 3}], "generations.jsonl:1: text: Input should be a valid string."),
        ([{"text": "Hi"}], "generations.jsonl:1: case_id: Field required."),
        ([""], "generations.jsonl: the file holds no reply."),
    ],
)
def test_a_line_that_is_no_reply_is_one_line_and_exit_code_3(
    files: Path, capsys: pytest.CaptureFixture[str], lines: list[Any], said: str
) -> None:
    assert score(files, *lines) == 3
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert not (files / "scores.json").exists()


def test_files_that_cannot_be_read_are_exit_code_3(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = files / "rows.jsonl"
    rows.write_bytes(b"\xff\n")
    none = files / "none.jsonl"
    empty = files / "empty.jsonl"
    empty.write_bytes(b"")
    cases = files / "cases.jsonl"
    for given in ([none, rows], [rows, rows], [empty, rows], [cases, none], [cases, rows], [cases, files]):
        pair = ["--cases", str(given[0]), "--generations", str(given[1])]
        assert main([*pair, "--out", str(files / "scores.json")]) == 3
    assert capsys.readouterr().err.count("\n") == 6


def test_cases_that_share_an_id_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (files / "cases.jsonl").read_text(encoding="utf-8")
    (files / "cases.jsonl").write_text(text * 2, encoding="utf-8")
    assert score(files, ROME) == 3
    assert "4 case ids occur more than once" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--reply-format", "xml"), ("--unknown",)])
def test_wrong_options_are_exit_code_3(
    files: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert score(files, ROME, options=options) == 3
    assert "python -m evals.score --help" in capsys.readouterr().err
