import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject, Sample
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.formats.bfcl import answers_path, load_answers, read_bfcl, with_answer
from orchestrator.data.rejection import Reason, RowRejected

FUNCTION: dict[str, Any] = {
    "name": "geo.area",
    "description": "Area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "float"},
            "unit": {"type": "string"},
            "points": {"type": "array", "items": {"type": "tuple", "items": {"type": "integer"}}},
            "box": {"type": "dict", "properties": {"name": {"type": "string"}, "at": {"type": "array"}}},
            "level": {"type": "integer"},
            "note": {"type": "string"},
            "unknown": {"type": "any"},
        },
        "required": ["base", "note"],
    },
}


def row(truth: Any, **changes: Any) -> dict[str, Any]:
    question = [[{"role": "user", "content": "Area?"}]]
    return {"id": "simple_1", "question": question, "function": [FUNCTION], "ground_truth": truth} | changes


def arguments(**accepted: Any) -> dict[str, Any]:
    draft = read_bfcl(row([{"geo.area": accepted}]))
    (call,) = draft.messages[-1].tool_calls
    return call.function.arguments


def test_question_function_and_call() -> None:
    draft = read_bfcl(row([{"geo.area": {"base": [4, 4.0], "note": ["x"]}}, {"geo.area": {"base": [5], "note": [""]}}]))
    assert [message.role for message in draft.messages] == ["user", "assistant"]
    calls = [(call.function.name, call.function.arguments) for call in draft.messages[1].tool_calls]
    assert calls == [("geo_area", {"base": 4, "note": "x"}), ("geo_area", {"base": 5, "note": ""})]
    assert draft.original_names == {"geo_area": "geo.area"}
    properties = draft.tools[0].function.arguments_schema["properties"]
    assert properties["base"] == {"type": "number"}
    assert properties["points"] == {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ({"unit": ["", "cm"]}, {}),
        ({"unit": [""]}, {}),
        ({"unit": ["cm", ""]}, {"unit": "cm"}),
        ({"base": ["", 25.0]}, {"base": 25.0}),
        ({"note": [""]}, {"note": ""}),
        ({"level": ["three", 3]}, {"level": 3}),
        ({"level": ["three"]}, {"level": "three"}),
        ({"level": [None, ""]}, {}),
        ({"points": [[[1, 2], [3, 4]]]}, {"points": [[1, 2], [3, 4]]}),
        ({"box": [{"name": ["a", "b"], "at": [[1]]}]}, {"box": {"name": "a", "at": [1]}}),
        ({"box": [{"name": ["a"], "extra": ["", 1]}]}, {"box": {"name": "a"}}),
        ({"box": [{"name": "plain"}]}, {"box": {"name": "plain"}}),
        ({"unknown": [[{"field": ["age"], "value": ["25"]}]]}, {"unknown": [{"field": "age", "value": "25"}]}),
        ({"unknown": [{"in": [{"deep": ["a"]}]}]}, {"unknown": {"in": {"deep": ["a"]}}}),
    ],
)
def test_the_first_accepted_value_that_fits(accepted: dict[str, Any], expected: dict[str, Any]) -> None:
    assert arguments(**accepted) == expected


def test_accepted_values_deep_inside_follow_the_schema() -> None:
    inner = {"type": "dict", "properties": {"deep": {"type": "string"}}}
    function = {
        "name": "f",
        "parameters": {"type": "dict", "properties": {"p": {"type": "dict", "properties": {"in": inner}}}},
    }
    draft = read_bfcl(row([{"f": {"p": [{"in": [{"deep": ["a"]}]}]}}], function=function))
    assert draft.messages[-1].tool_calls[0].function.arguments == {"p": {"in": {"deep": "a"}}}


def test_calls_as_text_in_the_executable_categories() -> None:
    draft = read_bfcl(row(["geo.area(base=-9.8, note='a, b')", "geo.area(base=1, note='')"]))
    calls = [call.function.arguments for call in draft.messages[-1].tool_calls]
    assert calls == [{"base": -9.8, "note": "a, b"}, {"base": 1, "note": ""}]


@pytest.mark.parametrize(
    "question",
    [
        "Area?",
        [{"role": "user", "content": "Area?"}],
        [[{"role": "user", "content": "Area?"}]],
    ],
)
def test_forms_of_the_question(question: Any) -> None:
    draft = read_bfcl(row([{"geo.area": {"base": [1], "note": ["x"]}}], question=question))
    assert [(message.role, message.content) for message in draft.messages[:-1]] == [("user", "Area?")]


GOOD = [{"geo.area": {"base": [1], "note": ["x"]}}]


@pytest.mark.parametrize(
    ("changes", "reason", "word"),
    [
        ({"ground_truth": None}, Reason.NO_ANSWER, "_answers.jsonl"),
        ({"ground_truth": []}, Reason.NO_ANSWER, "possible_answer"),
        ({"ground_truth": "x"}, Reason.MALFORMED_FIELD, "ground_truth"),
        ({"ground_truth": [["cd(folder='x')"], []]}, Reason.MALFORMED_FIELD, "answer 1"),
        ({"ground_truth": [{"geo.area": {"base": 1}}]}, Reason.MALFORMED_FIELD, "accepted values"),
        ({"ground_truth": [{"geo.area": {"base": []}}]}, Reason.MALFORMED_FIELD, "accepted values"),
        ({"ground_truth": [{"geo.area": [1]}]}, Reason.MALFORMED_FIELD, "no object"),
        ({"ground_truth": [{"geo_area": {}}]}, Reason.UNKNOWN_TOOL, "geo.area"),
        ({"ground_truth": ["geo.area(1)"]}, Reason.CALL_NOT_PYTHONIC, "answer 1"),
        ({"ground_truth": ["geo.area(base=1), geo.area(base=2)"]}, Reason.CALL_NOT_PYTHONIC, "not one call"),
        ({"question": [[{"role": "user", "content": "a"}], []]}, Reason.UNSUPPORTED_CONTENT, "2 turns"),
        ({"question": []}, Reason.MALFORMED_FIELD, "question"),
        ({"question": [[{"role": "robot", "content": "a"}]]}, Reason.UNKNOWN_ROLE, "turn 1"),
        ({"function": None}, Reason.INVALID_TOOL, "function"),
        ({"function": "f"}, Reason.INVALID_TOOL, "function"),
    ],
)
def test_rejections(changes: dict[str, Any], reason: Reason, word: str) -> None:
    with pytest.raises(RowRejected) as rejected:
        read_bfcl(row(GOOD, **changes))
    assert rejected.value.reason is reason
    assert word in rejected.value.detail


def test_answers_come_from_their_own_file(tmp_path: Path) -> None:
    questions = tmp_path / "bfcl_multiple.jsonl"
    assert answers_path(questions) is None
    official = tmp_path / "possible_answer" / questions.name
    official.parent.mkdir()
    official.write_text('{"id": "a", "ground_truth": [1]}\n\n{"id": "b", "ground_truth": [2]}')
    assert answers_path(questions) == official
    sibling = tmp_path / "bfcl_multiple_answers.jsonl"
    sibling.write_text("")
    assert answers_path(questions) == sibling
    assert answers_path(tmp_path / "bfcl_multiple.jsonl.gz") == sibling

    answers = load_answers(official)
    assert answers == {"a": [1], "b": [2]}
    assert with_answer({"id": "b"}, answers) == {"id": "b", "ground_truth": [2]}
    assert with_answer({"id": "c"}, answers) == {"id": "c"}
    assert with_answer({"id": ["b"]}, answers) == {"id": ["b"]}
    assert with_answer({"id": "b", "ground_truth": [3]}, answers) == {"id": "b", "ground_truth": [3]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"id": "a", "ground_truth": [1]}\n{"id": "a"', "answers.jsonl:2"),
        (b'{"id": "a", "ground_truth": [1]}\n{"id": "a", "ground_truth": [1]}', "two answers"),
        (b'{"ground_truth": [1]}', "no `id`"),
        (b'{"id": "a", "answer": []}', "no `ground_truth`"),
        (b"[1]", "no `id`"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_file_of_answers_is_one_clear_error(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        load_answers(path)


def test_a_missing_file_of_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_answers(tmp_path / "none.jsonl")


@pytest.mark.skipif("ORCHESTRATOR_PUBLIC_DATA" not in os.environ, reason="needs the public files")
@pytest.mark.parametrize(("name", "num_rows"), [("bfcl_simple_python", 400), ("bfcl_multiple", 200)])
def test_all_public_rows_are_read_and_fit_their_schemas(name: str, num_rows: int) -> None:
    questions = Path(os.environ["ORCHESTRATOR_PUBLIC_DATA"]) / f"{name}.jsonl"
    path = answers_path(questions)
    assert path is not None
    answers = load_answers(path)
    rows = [with_answer(json.loads(line), answers) for line in questions.read_text().splitlines()]
    assert len(rows) == num_rows
    for given in rows:
        draft = read_bfcl(given)
        sample = Sample(
            id=given["id"], messages=tuple(draft.messages), tools=draft.tools, kind="tool_call", source=str(questions)
        )
        checked = check_sample(sample).sample
        calls = checked.messages[-1].tool_calls
        assert len(calls) == len(given["ground_truth"])
        for call, truth in zip(calls, given["ground_truth"], strict=True):
            ((function, accepted),) = truth.items()
            assert draft.original_names.get(call.function.name, call.function.name) == function
            absent = accepted.keys() - call.function.arguments.keys()
            assert all("" in accepted[parameter] for parameter in absent)
            plain = {
                key: value for key, value in call.function.arguments.items() if not isinstance(value, (dict, list))
            }
            assert all(value in accepted[key] for key, value in plain.items())


def test_an_answer_that_is_a_result_is_refused_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "simple_1", "ground_truth": "{\\"zone\\": 1}"}\n')
    given = with_answer(row(None), load_answers(path))
    with pytest.raises(RowRejected, match="not a list of calls") as rejected:
        read_bfcl(given)
    assert rejected.value.reason is Reason.MALFORMED_FIELD


def test_parameters_that_the_function_does_not_have() -> None:
    assert arguments(base=[4], note=["x"], colour=["", "red"]) == {"base": 4, "note": "x"}
    with pytest.raises(RowRejected, match='no parameter "colour"') as rejected:
        arguments(base=[4], note=["x"], colour=["red"])
    assert rejected.value.reason is Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA


def java_call(parameter: dict[str, Any], accepted: list[Any]) -> JsonObject:
    """The checked arguments of a function with one parameter `p`."""
    function = {"name": "Api.run", "parameters": {"type": "dict", "properties": {"p": parameter}, "required": ["p"]}}
    draft = read_bfcl(row([{"Api.run": {"p": accepted}}], function=[function]))
    sample = Sample(id="1", messages=tuple(draft.messages), tools=draft.tools, kind="tool_call", source="x")
    return check_sample(sample).sample.messages[-1].tool_calls[0].function.arguments


@pytest.mark.parametrize(
    ("parameter", "accepted", "expected"),
    [
        ({"type": "any"}, ["new Path('/tmp/a')"], "new Path('/tmp/a')"),
        ({"type": "ArrayList", "items": {"type": "long"}}, [[1, 2]], [1, 2]),
        ({"type": "Array", "items": {"type": "any"}}, [["a", 1, True]], ["a", 1, True]),
        ({"type": "HashMap"}, [{"limit": [5], "unit": "cm"}], {"limit": 5, "unit": "cm"}),
        ({"type": "boolean", "enum": ["True", "False"]}, [False], False),
        ({"type": "dict", "properties": {"issuer": {"type": ""}}}, [{"issuer": ["me"]}], {"issuer": "me"}),
        (
            {"type": "array", "items": {"type": "dict", "properties": {"name": {"type": "String"}}}},
            [[{"name": ["a", "b"]}, {"name": ["c"]}]],
            [{"name": "a"}, {"name": "c"}],
        ),
    ],
)
def test_types_and_values_of_other_languages(parameter: dict[str, Any], accepted: list[Any], expected: Any) -> None:
    assert java_call(parameter, accepted) == {"p": expected}


@pytest.mark.parametrize(
    ("parameter", "variable"),
    [
        ({"type": "HashMap"}, "settingsMap"),
        ({"type": "Array", "items": {"type": "String"}}, "testArguments"),
        ({"type": "integer"}, "Level.HIGH"),
    ],
)
def test_a_variable_in_place_of_a_value_does_not_fit(parameter: dict[str, Any], variable: str) -> None:
    with pytest.raises(RowRejected, match="is not of type") as rejected:
        java_call(parameter, [variable])
    assert rejected.value.reason is Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA
