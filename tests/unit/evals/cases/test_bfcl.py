"""Questions of the leaderboard's format as cases."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from builders import make_call

from evals.cases.suites import cases_from_bfcl_file
from evals.judge.calls import CallJudgement, judge_calls
from evals.records import AcceptedCall, Case
from orchestrator.chat.formats.reply import ParsedReply
from orchestrator.core.errors import DataError
from orchestrator.core.records import NO_FITTING_TOOL, Message, ToolCall

BREW: dict[str, Any] = {
    "name": "tea.brew",
    "description": "Brews tea.",
    "parameters": {
        "type": "dict",
        "properties": {
            "leaf": {"type": "string"},
            "cups": {"type": "integer"},
            "degrees": {"type": "float"},
            "extras": {"type": "array", "items": {"type": "string"}},
            "pot": {"type": "dict", "properties": {"size": {"type": "integer"}}},
        },
        "required": ["leaf"],
    },
}
BOIL: dict[str, Any] = {
    "name": "boil",
    "description": "Boils water.",
    "parameters": {"type": "dict", "properties": {"litres": {"type": "float"}}, "required": ["litres"]},
}
ASKED = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two cups of mint tea."}]]


def question(identifier: str, *functions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": identifier, "question": ASKED, "function": list(functions) or [BREW], **fields}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def cases_of(folder: Path, *rows: dict[str, Any], name: str = "questions.jsonl") -> list[Case]:
    return cases_from_bfcl_file(write(folder / name, *rows), None, suite="tea", limit=None)


def one_case(folder: Path, identifier: str, *functions: dict[str, Any], truth: Any) -> Case:
    (case,) = cases_of(folder, question(identifier, *functions, ground_truth=truth))
    return case


def judged(case: Case, *calls: ToolCall) -> CallJudgement:
    return judge_calls(case, ParsedReply(calls=calls, prose="", thinking=None, problems=()))


def test_a_simple_question(tmp_path: Path) -> None:
    truth = [{"tea.brew": {"leaf": ["mint", "Mint tea"], "cups": [2], "degrees": ["", 95.0], "pot": [{"size": [1]}]}}]
    case = one_case(tmp_path, "simple_python_7", truth=truth)
    assert (case.id, case.suite, case.kind, case.tags) == ("simple_python_7", "tea", "tool_call", ())
    assert case.messages == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Two cups of mint tea."),
    )
    assert case.original_names == {"tea_brew": "tea.brew"}
    assert case.tools[0].function.name == "tea_brew"
    assert case.tools[0].function.arguments_schema["properties"]["degrees"] == {"type": "number"}
    assert case.accepted_calls == (
        AcceptedCall(
            name="tea_brew",
            arguments=truth[0]["tea.brew"],
            types={"leaf": "string", "cups": "integer", "degrees": "float", "extras": "array", "pot": "dict"},
            item_types={"extras": "string"},
            required=("leaf",),
            language="python",
        ),
    )
    assert case.expected_calls == (make_call("tea_brew", leaf="mint", cups=2, pot={"size": 1}),)


def test_several_questions_with_answers_beside_them(tmp_path: Path) -> None:
    names = ("parallel_0", "parallel_multiple_0", "live_multiple_3-1-0")
    answer = {"tea.brew": {"leaf": ["mint"]}}
    truths = ([answer, answer], [answer, {"boil": {"litres": [1.5]}}], [{"boil": {"litres": [2]}}])
    rows = [question(name, BREW, BOIL) for name in names]
    answers = [{"id": name, "ground_truth": truth} for name, truth in zip(names, truths, strict=True)]
    path = write(tmp_path / "q" / "tea.json", *rows)
    write(tmp_path / "q" / "possible_answer" / "tea.json", *reversed(answers))
    cases = cases_from_bfcl_file(path, None, suite="tea", limit=None)
    assert [case.id for case in cases] == list(names)
    assert [[call.name for call in case.accepted_calls] for case in cases] == [
        ["tea_brew", "tea_brew"],
        ["tea_brew", "boil"],
        ["boil"],
    ]
    assert cases_from_bfcl_file(path, None, suite="tea", limit=2) == cases[:2]
    elsewhere = write(tmp_path / "answers.jsonl", *answers)
    assert cases_from_bfcl_file(path, elsewhere, suite="tea", limit=None) == cases


def test_nothing_fits_so_nothing_must_be_called(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, question("irrelevance_0"), question("live_irrelevance_1-0-0", BOIL))
    for case in cases:
        assert (case.kind, case.tags) == ("answer", (NO_FITTING_TOOL,))
        assert (case.expected_calls, case.accepted_calls) == ((), ())
        assert judged(case).match is None
        called = judged(case, make_call("boil", litres=1)).match
        assert called is not None
        assert called.reason == "unexpected_call"


def test_without_a_function_there_is_still_a_question(tmp_path: Path) -> None:
    (case,) = cases_of(tmp_path, {**question("live_irrelevance_2-0-0"), "function": []})
    assert (case.kind, case.tools) == ("answer", ())


def test_any_call_is_relevant(tmp_path: Path) -> None:
    (case,) = cases_of(tmp_path, question("live_relevance_0-0-0"))
    assert (case.kind, case.tags, case.expected_calls, case.accepted_calls) == ("tool_call", (), (), ())
    assert judged(case, make_call("whatever")).match is None
    assert judged(case).match is not None


@pytest.mark.parametrize("name", ["BFCL_v4_irrelevance.json", "bfcl_irrelevance.jsonl", "live_irrelevance.jsonl"])
def test_the_name_of_the_file_tells_what_the_id_does_not(tmp_path: Path, name: str) -> None:
    (case,) = cases_of(tmp_path, question("my-question"), name=name)
    assert case.tags == (NO_FITTING_TOOL,)


def test_with_one_function_the_name_in_the_answer_does_not_count(tmp_path: Path) -> None:
    case = one_case(tmp_path, "simple_0", BOIL, truth=[{"boil_water": {"litres": [2.0]}}])
    assert case.accepted_calls[0].name == "boil"
    assert case.expected_calls == (make_call("boil", litres=2.0),)


def test_a_value_that_fits_no_schema_is_still_accepted(tmp_path: Path) -> None:
    case = one_case(tmp_path, "simple_1", truth=[{"tea.brew": {"leaf": ["mint"], "cups": ["as many as needed"]}}])
    judgement = judged(case, make_call("tea_brew", leaf="mint", cups="as many as needed"))
    assert judgement.match is None
    assert judgement.validity is not None
    assert judgement.validity.reason == "arguments_do_not_fit_schema"
    assert case.expected_calls[0].function.arguments["cups"] == "as many as needed"


@pytest.mark.parametrize("accepted", [{"leaf": ["mint"], "sugar": [1]}, {"leaf": ["mint"], "cups": []}])
def test_a_question_that_no_call_answers_is_a_case_too(tmp_path: Path, accepted: dict[str, Any]) -> None:
    case = one_case(tmp_path, "simple_2", truth=[{"tea.brew": accepted}])
    assert judged(case, *case.expected_calls).match is not None
    assert case.expected_calls[0].function.arguments["leaf"] == "mint"


def test_the_example_prefers_values_that_the_schema_allows(tmp_path: Path) -> None:
    accepted = {"leaf": ["mint"], "degrees": ["hot", 95.0], "extras": ["", ["honey"]], "pot": [{"size": ["", 1, 2]}]}
    case = one_case(tmp_path, "simple_3", truth=[{"tea.brew": accepted}])
    # "hot" comes first, so the leaderboard takes any text for it and 95.0 as well; only the number fits the schema.
    assert case.expected_calls == (make_call("tea_brew", leaf="mint", degrees=95.0, pot={}),)
    assert judged(case, *case.expected_calls).match is None


JAVA: dict[str, Any] = {
    "name": "Tea.brew",
    "description": "Brews tea.",
    "parameters": {
        "type": "dict",
        "properties": {
            "cups": {"type": "long", "description": "How many."},
            "leaves": {"type": "ArrayList", "description": "Which.", "items": {"type": "String"}},
            "context": {"type": "any", "description": "Where."},
        },
        "required": ["cups", "leaves"],
    },
}
JAVASCRIPT: dict[str, Any] = {
    "name": "brew",
    "description": "Brews tea.",
    "parameters": {
        "type": "dict",
        "properties": {
            "done": {"type": "Boolean"},
            "options": {"type": "dict", "properties": {"cups": {"type": "integer"}}},
        },
        "required": ["options"],
    },
}


def test_java_takes_source_text(tmp_path: Path) -> None:
    truth = [{"Tea.brew": {"cups": [2], "leaves": [["mint"]], "context": ["kitchen"]}}]
    case = one_case(tmp_path, "simple_java_0", JAVA, truth=truth)
    properties = case.tools[0].function.arguments_schema["properties"]
    assert {name: part["type"] for name, part in properties.items()} == dict.fromkeys(properties, "string")
    assert properties["cups"]["description"] == "How many. Write the Java long as source text."
    assert properties["leaves"]["description"] == "Which. Write the Java ArrayList of String as source text."
    assert properties["context"]["description"] == "Where. Write the Java value of any type as source text."
    assert case.tools[0].function.arguments_schema["required"] == ["cups", "leaves"]
    leaves = 'new ArrayList<>(Arrays.asList("mint"))'
    assert case.expected_calls == (make_call("Tea_brew", cups="2L", leaves=leaves, context="kitchen"),)
    judgement = judged(case, *case.expected_calls)
    assert (judgement.validity, judgement.match, judgement.arguments_right) == (None, None, 3)
    number = judged(case, make_call("Tea.brew", cups=2, leaves=leaves, context="kitchen")).match
    assert number is not None
    assert number.reason == "type_error:java"


def test_javascript_takes_source_text(tmp_path: Path) -> None:
    truth = [{"brew": {"done": ["", True], "options": [{"cups": [2]}]}}]
    case = one_case(tmp_path, "javascript_0", JAVASCRIPT, truth=truth)
    assert case.accepted_calls[0].language == "javascript"
    description = case.tools[0].function.arguments_schema["properties"]["options"]["description"]
    assert description == 'Write the JavaScript dict as source text. Its entries: {"cups": {"type": "integer"}}.'
    assert case.expected_calls == (make_call("brew", options="{cups: 2}"),)
    assert judged(case, make_call("brew", options="{'cups': 2}", done="true")).match is None


GOOD = question("simple_0", ground_truth=[{"tea.brew": {"leaf": ["mint"]}}])
TWO_TURNS = {**GOOD, "question": [ASKED[0], ASKED[0]]}
NUMBER = {**BOIL, "parameters": {"properties": {"litres": {"type": "number"}}}}


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        (question("simple_1"), "no_answer: no accepted answer"),
        (question("other"), "no_answer: no accepted answer"),
        ({**GOOD, "id": "simple_1", "ground_truth": ["tea.brew(leaf='mint')"]}, "malformed_field: `ground_truth` is"),
        ({**GOOD, "id": "simple_1", "ground_truth": [{"tea.brew": ["mint"]}]}, "malformed_field: the accepted values"),
        ({**GOOD, "id": "simple_1", "ground_truth": [{"tea.brew": {"leaf": "mint"}}]}, "malformed_field: the accepted"),
        ({**GOOD, "id": "multi_turn_1", "question": TWO_TURNS["question"]}, "unsupported_content: `question` is"),
        ({**GOOD, "id": "simple_1", "question": []}, "unsupported_content: `question` is []"),
        ({**GOOD, "id": "simple_1", "function": "tea.brew"}, "invalid_tool: `function` is"),
        (question("multiple_1", BREW, BOIL, ground_truth=[{"stir": {}}]), 'unknown_tool: answer 1: "stir" is called'),
        (
            question("simple_1", NUMBER, ground_truth=[{"boil": {"litres": [1]}}]),
            'invalid_tool_schema: the accepted values of "boil": the leaderboard knows no type "number" of "litres"',
        ),
        (
            question("simple_1", JAVA, ground_truth=[{"Tea.brew": {"cups": [1]}}]),
            'invalid_tool_schema: the accepted values of "Tea.brew": the leaderboard knows no type "long" of "cups"',
        ),
    ],
)
def test_rows_that_cannot_be_cases_are_counted_and_the_first_is_shown(
    tmp_path: Path, row: dict[str, Any], detail: str
) -> None:
    with pytest.raises(DataError) as error:
        cases_of(tmp_path, GOOD, row, {**row, "id": f"{row['id']}x"})
    assert error.value.where == f"{tmp_path / 'questions.jsonl'}:2"
    assert error.value.what.startswith(f"2 of 3 questions cannot be cases, first: {detail}")


@pytest.mark.parametrize("form", ["bom", "gz", "array"])
def test_questions_and_answers_are_read_in_every_form_of_file(tmp_path: Path, form: str) -> None:
    truth = [{"tea.brew": {"leaf": ["mint"]}}]
    asked = [question("simple_python_0"), question("simple_python_1")]
    answers = [{"id": row["id"], "ground_truth": truth} for row in asked]
    plain = cases_from_bfcl_file(
        write(tmp_path / "q.jsonl", *asked), write(tmp_path / "a.jsonl", *answers), suite="t", limit=None
    )
    assert [case.accepted_calls[0].arguments for case in plain] == [{"leaf": ["mint"]}] * 2
    paths = []
    for name, rows in (("q", asked), ("a", answers)):
        path = tmp_path / {"bom": f"{name}2.jsonl", "gz": f"{name}.jsonl.gz", "array": f"{name}.json"}[form]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        packed = {
            "bom": b"\xef\xbb\xbf" + lines,
            "gz": gzip.compress(lines),
            "array": b"\xef\xbb\xbf" + json.dumps(rows, indent=1).encode(),
        }
        path.write_bytes(packed[form])
        paths.append(path)
    assert cases_from_bfcl_file(paths[0], paths[1], suite="t", limit=None) == plain


def test_a_file_that_is_not_one_of_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    with pytest.raises(DataError, match="there is no such file"):
        cases_from_bfcl_file(path, None, suite="tea", limit=None)
    with pytest.raises(DataError, match="holds no row"):
        cases_of(tmp_path)
    with pytest.raises(DataError, match="occurs twice") as repeated:
        cases_of(tmp_path, GOOD, GOOD)
    assert repeated.value.where == f"{path}:2"
    with pytest.raises(DataError, match="has no `id`"):
        cases_of(tmp_path, {"question": ASKED})
    path.write_text("\n{", encoding="utf-8")
    with pytest.raises(DataError, match=r"questions\.jsonl:2: the question cannot be read"):
        cases_from_bfcl_file(path, None, suite="tea", limit=None)


@pytest.mark.parametrize(("name", "count"), [("simple_python", 400), ("multiple", 200), ("irrelevance", 240)])
def test_every_published_question_is_a_case_and_its_example_is_right(name: str, count: int) -> None:
    folder = os.environ.get("ORCHESTRATOR_PUBLIC_DATA")
    if folder is None:
        pytest.skip("ORCHESTRATOR_PUBLIC_DATA names no folder with the published questions")
    cases = cases_from_bfcl_file(Path(folder) / f"bfcl_{name}.jsonl", None, suite=name, limit=None)
    assert len(cases) == count
    for case in cases:
        judgement = judged(case, *case.expected_calls)
        assert judgement.match is None, case.id
        assert judgement.arguments_expected == judgement.arguments_given == judgement.arguments_right
