"""The command that scores replies from a file."""

import gzip
import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import weather_samples

from evals.cases.samples import cases_from_samples
from evals.records import Scores
from evals.score.__main__ import main
from orchestrator.core.files import dump_jsonl

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
    assert scores.metrics["latency_p50_s"].n == 0  # how long it took elsewhere, and under what load, is not known
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"{files / 'generations.jsonl'}: not used: cost, model.",
        "1 of 4 cases not scored; the first is s-Kyiv: there is no generation.",
    ]
    assert "3 of 4 cases scored" in said.out
    # Wilson of 1 of 3: the mirror image of that of 2 of 3.
    assert "tool_call_accuracy          0.33   0.06 to 0.79          3" in said.out
    assert "clarification_accuracy" not in said.out


@pytest.mark.parametrize(("reason", "rate"), [("length", 1.0), ("stop", 0.0), (None, 0.0)])
def test_whether_a_reply_was_cut_off_is_taken_from_the_row_alone(
    files: Path, capsys: pytest.CaptureFixture[str], reason: str | None, rate: float
) -> None:
    assert score(files, {"case_id": "s-Rome", "text": "<tool_call>{", "finish_reason": reason}) == 0
    scores = scores_in(files)
    assert scores.metrics["truncated_rate"].value == rate
    assert scores.verdicts[0].reason == ("cut_off" if rate else "unclosed_tag")
    assert ("No reply gives a finish_reason" in capsys.readouterr().out) is (reason is None)


def test_replies_may_be_in_another_format(files: Path) -> None:
    assert score(files, {"case_id": "s-Rome", "text": call("Rome")}, options=("--reply-format", "json")) == 0
    assert scores_in(files).verdicts[0].correct is True


ROME = {"case_id": "s-Rome", "text": hermes("Rome")}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ROME, {"case_id": "s-Paris", "text": ""}], "generations.jsonl:2: there is no case 's-Paris'."),
        ([ROME, "", ROME], "generations.jsonl:3: the case 's-Rome' has a reply at"),
        ([ROME, '{"case_id": "s-Oslo", "te'], "generations.jsonl:2: the line cannot be read: not JSON"),
        (['{"case_id": "s-Oslo", "text": "", "latency_s": NaN}'], "generations.jsonl:1: the line cannot be read: NaN"),
        (["[1]"], "generations.jsonl:1: the line is no JSON object."),
        (["[" * 100_000], "generations.jsonl:1: the line cannot be read: nested deeper than 64 levels"),
        (['{"case_id": "s-Rome", "text": "a", "text": "b"}'], "generations.jsonl:1: the line cannot be read: the key"),
        ([ROME, {"case_id": "s-Oslo", "text": "", "error": "boom \ud800"}], "generations.jsonl:2: the line cannot be"),
        ([{**ROME, "output_tokens": -1}], "generations.jsonl:1: output_tokens: Input should be greater than or equal"),
        ([{**ROME, "output_tokens": 10**200}], "generations.jsonl:1: output_tokens: "),
        ([{**ROME, "latency_s": -0.5}], "generations.jsonl:1: latency_s: Input should be greater than or equal to 0."),
        ([{**ROME, "latency_s": 1e300}], "generations.jsonl:1: latency_s: Input should be less than or equal to"),
        (['{"case_id": "s-Rome", "text": "", "latency_s": "inf"}'], "generations.jsonl:1: latency_s: "),
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


def test_replies_in_another_format_than_the_given_one_are_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"case_id": f"s-{city}", "text": call(city)} for city in CITIES[:2]]
    assert score(files, *rows, {"case_id": "s-Bern", "text": "Sunny."}) == 0
    said = capsys.readouterr().err
    assert "Warning: none of 3 replies to cases that want a call makes one in the format hermes; as " in said
    best = said.partition("--reply-format ")[2].split(".")[0]
    assert f"as {best}, 2 would." in said
    assert score(files, *rows, options=("--reply-format", best)) == 0
    assert "Warning" not in capsys.readouterr().err
    assert scores_in(files).metrics["tool_call_accuracy"].value == 1.0


@pytest.mark.parametrize(
    ("texts", "warned"),
    [
        (["Sunny.", "Rain."], True),
        (["Sunny.", hermes("Oslo")], False),
        (["Sunny.", "<tool_call>{"], False),
        ([None, None], False),
    ],
)
def test_only_where_no_reply_attempts_a_call_is_the_format_doubted(
    files: Path, capsys: pytest.CaptureFixture[str], texts: list[str | None], warned: bool
) -> None:
    pairs = zip(CITIES, texts, strict=False)
    rows = [{"case_id": f"s-{city}", "text": text or "", "error": None if text else "boom"} for city, text in pairs]
    assert score(files, *rows) == 0
    assert ("in the format hermes, nor in any other" in capsys.readouterr().err) is warned


def test_the_result_never_replaces_what_it_is_made_from(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "link.jsonl").symlink_to(files / "cases.jsonl")
    (files / "hard.jsonl").hardlink_to(files / "cases.jsonl")
    os.mkfifo(files / "pipe")
    (files / "loop").symlink_to(files / "loop")
    before = (files / "cases.jsonl").read_bytes()
    for out in ("cases.jsonl", "generations.jsonl", "link.jsonl", "hard.jsonl", "pipe", ".", "loop"):
        assert score(files, ROME, options=("--out", str(files / out))) == 3
    for out in ("", "/dev/null"):
        assert score(files, ROME, options=("--out", out)) == 3
    assert (files / "cases.jsonl").read_bytes() == before
    assert (files / "generations.jsonl").read_text(encoding="utf-8").count("\n") == 1
    assert stat.S_ISFIFO((files / "pipe").stat().st_mode)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2].partition(".")[0] for line in said[:4]] == [
        "the result would overwrite what it is made from"
    ] * 4
    assert "device or pipe" in said[4]
    assert "folder" in said[5]
    assert "cannot be written" in said[6]
    assert "folder" in said[7]
    assert "device or pipe" in said[8]
    assert len(said) == 9


def test_a_link_is_written_through(files: Path) -> None:
    (files / "real.json").write_text("old", encoding="utf-8")
    (files / "link.json").symlink_to(files / "real.json")
    assert score(files, ROME, options=("--out", str(files / "link.json"))) == 0
    assert (files / "link.json").is_symlink()
    assert Scores.model_validate_json((files / "real.json").read_text(encoding="utf-8")).num_cases == 4


def test_names_that_are_not_text_are_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(files, ROME, options=("--adapter-id", "a\udcff")) == 3
    assert score(files, ROME, options=("--cases", "a\udcff")) == 3
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in said] == [["Error", "--adapter-id"], ["Error", "--cases"]]


def test_replies_may_be_packed(files: Path) -> None:
    (files / "packed.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROME).encode()))
    assert score(files, ROME, options=("--generations", str(files / "packed.jsonl.gz"))) == 0
    assert scores_in(files).verdicts[0].correct is True


def test_what_is_told_hides_nothing_on_a_terminal(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score(files, {**ROME, "\x1b[2Jx": 1}, {"case_id": "s-Oslo", "text": "", "error": "\x1b]0;x\x07"}) == 0
    said = capsys.readouterr().err
    assert "not used: \\x1b[2Jx." in said
    assert "s-Oslo: \\x1b]0;x\\x07." in said
    assert "\x1b" not in said


def test_accepted_calls_of_unknown_types_are_bad_input(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = files / "cases.jsonl"
    first, *others = path.read_text(encoding="utf-8").splitlines()
    accepted = {"name": "get_weather", "arguments": {"city": ["Rome"]}, "types": {"city": "text"}}
    row = {**json.loads(first), "accepted_calls": [accepted]}
    path.write_text("\n".join([json.dumps(row), *others]) + "\n", encoding="utf-8")
    assert score(files, ROME) == 3
    said = capsys.readouterr().err
    assert f"{path}:1: this is no case: accepted_calls.0: city: 'text' is no type of python" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("ending", ["1>&-", "| true", "> ascii.txt", "1>&- 2>&-", "> /dev/full"])
def test_the_end_of_stdout_is_no_fault_of_the_scores(files: Path, ending: str) -> None:
    name = "scores-\u00e9.json"
    (files / "generations.jsonl").write_text(json.dumps(ROME) + "\n", encoding="utf-8")
    python = shlex.quote(sys.executable)
    command = f"{python} -m evals.score --cases cases.jsonl --generations generations.jsonl --out {name} {ending}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), "PYTHONIOENCODING": "ascii"}
    # The shell closes or redirects as a user's would; with pipefail the command's own exit code counts.
    shell = ["bash", "-c", f"set -o pipefail; {command}"]
    ended = subprocess.run(shell, cwd=files, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert ("the summary cannot be shown" in ended.stderr) is ("full" in ending)
    assert (files / name).is_file()
    if "ascii" in ending:
        assert "Written to scores-\\xe9.json." in (files / "ascii.txt").read_text(encoding="ascii")


def test_calls_in_a_notation_that_nothing_reads_are_counted_although_others_are_read(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
    rows = [{"case_id": "s-Oslo", "text": foreign}, {"case_id": "s-Rome", "text": hermes("Rome")}]
    assert score(files, *rows) == 0
    said = capsys.readouterr().err
    assert (
        "Warning: what looks like a call in another notation stands in 1 of 4 replies and is not read as one: 1 "
        in said
    )
    assert sum(scores_in(files).foreign_calls.values()) == 1
    assert score(files, rows[1]) == 0
    assert "Warning" not in capsys.readouterr().err


def message(city: str | None, **fields: Any) -> dict[str, Any]:
    calls = [
        {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": json.dumps({"city": city})}}
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls, **fields}


@pytest.mark.parametrize("reply_format", ["hermes", "mistral", "pythonic"])
def test_calls_that_an_api_gave_as_objects_are_scored_as_given(files: Path, reply_format: str) -> None:
    as_object = {"function": {"name": "get_weather", "arguments": {"city": "Bern"}}}
    rows = [
        {"case_id": "s-Oslo", "message": message("Oslo", content="Here: ```python\n[f(x=1)]\n```")},
        {"case_id": "s-Rome", "choices": [{"message": message("Rome"), "finish_reason": "tool_calls"}]},
        {"case_id": "s-Bern", **message(None, tool_calls=[as_object])},
        {"case_id": "s-Kyiv", "message": message("Rome")},
    ]
    assert score(files, *rows, options=("--reply-format", reply_format)) == 0
    assert [verdict.correct for verdict in scores_in(files).verdicts] == [True, True, True, False]
    assert scores_in(files).metrics["tool_call_validity"].value == 1.0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"city": "Oslo"', "not_json"),
        ('{"city": "Oslo"} x', "not_json"),
        ('{"city": NaN}', "not_strict_json"),
        ('["Oslo"]', "not_a_call_object"),
        ("", "arguments_do_not_fit_schema"),
    ],
)
def test_broken_arguments_of_an_api_are_faults_of_the_reply(files: Path, arguments: str, reason: str) -> None:
    call_object = {"function": {"name": "get_weather", "arguments": arguments}}
    assert score(files, {"case_id": "s-Rome", "message": message(None, tool_calls=[call_object])}) == 0
    assert scores_in(files).verdicts[0].reason == reason


def test_a_message_without_calls_is_its_text(files: Path) -> None:
    parts = [{"type": "text", "text": hermes("Oslo")}]
    rows = [
        {"case_id": "s-Oslo", "message": {"role": "assistant", "content": parts}},
        {"case_id": "s-Rome", "message": {"role": "assistant", "content": hermes("Rome"), "tool_calls": []}},
    ]
    assert score(files, *rows) == 0
    assert [verdict.correct for verdict in scores_in(files).verdicts[:2]] == [True, True]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"message": "hello"}, "the reply is no message"),
        ({"message": {"content": None, "tool_calls": "x"}}, "`tool_calls` is no list of objects"),
        ({"message": {"content": [{"type": "image"}]}}, "`content` is neither text nor a list of text parts"),
        ({"choices": [{}, {}]}, "`choices` is no list of one reply"),
    ],
)
def test_what_is_no_reply_of_an_api_is_named(
    files: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], told: str
) -> None:
    assert score(files, {"case_id": "s-Oslo", **row}) == 3
    said = capsys.readouterr().err
    assert told in said
    assert "generations.jsonl:1" in said
