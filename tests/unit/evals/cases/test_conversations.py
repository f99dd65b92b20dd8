"""Conversations of the data's own formats as cases."""

import json
from typing import Literal

import pytest
from builders import assistant, make_call, make_sample, user

from evals.cases.rows import cases_from_conversation_row
from evals.cases.samples import cases_from_samples
from orchestrator.core.files import dump_line
from orchestrator.core.records import JsonObject, Sample
from orchestrator.data.rejection import RowRejected
from orchestrator.toy.synthetic import generate_samples


def row_of(sample: Sample) -> JsonObject:
    row: JsonObject = json.loads(dump_line(sample))
    return row


def test_samples_as_prepare_writes_them_give_the_cases_of_the_held_out_part() -> None:
    made = generate_samples(60, seed=3, catalogue="full")
    samples = [sample.model_copy(update={"tags": tuple(dict.fromkeys(sample.tags))}) for sample in made]
    read = [
        case
        for sample in samples
        for case in cases_from_conversation_row(row_of(sample), row_format="messages", source="f:1")
    ]
    assert read == cases_from_samples(samples)
    assert {case.kind for case in read} == {"tool_call", "refusal", "clarification", "answer"}


def test_names_of_tools_in_the_source_are_kept() -> None:
    sample = make_sample(original_names={"get_weather": "get.weather"})
    (case,) = cases_from_conversation_row(row_of(sample), row_format="auto", source="f:1")
    assert case.original_names == {"get_weather": "get.weather"}


def test_any_format_of_the_data_is_told_by_itself() -> None:
    row = {"id": "i1", "instruction": "Name a colour.", "input": "", "output": "Blue."}
    (case,) = cases_from_conversation_row(row, row_format="auto", source="f:1")
    assert (case.id, case.kind, case.expected_text) == ("i1", "answer", "Blue.")


def test_a_call_that_its_tool_does_not_take_is_refused() -> None:
    sample = make_sample(user("Weather?"), assistant("", make_call(town="Rome")))
    with pytest.raises(RowRejected, match="arguments_do_not_fit_schema"):
        cases_from_conversation_row(row_of(sample), row_format="auto", source="f:1")


@pytest.mark.parametrize("answers", ["[]", []])
@pytest.mark.parametrize("row_format", ["auto", "xlam"])
def test_a_question_of_xlam_without_answers_expects_no_call(
    answers: str | list[JsonObject], row_format: Literal["auto", "xlam"]
) -> None:
    tools = json.dumps([{"name": "find.ferry", "description": "x", "parameters": {"port": {"type": "str"}}}])
    row = {"id": 7, "query": "A poem, please.", "tools": tools, "answers": answers}
    (case,) = cases_from_conversation_row(row, row_format=row_format, source="f:1")
    assert (case.id, case.kind, case.tags) == ("7", "answer", ("no_fitting_tool", "no_call_suffices"))
    assert (case.expected_calls, case.expected_text, case.kind_inferred) == ((), "", False)
    assert [tool.function.name for tool in case.tools] == ["find_ferry"]
    assert case.original_names == {"find_ferry": "find.ferry"}
    assert case.messages == (user("A poem, please."),)


def test_answers_that_are_missing_are_no_empty_list() -> None:
    with pytest.raises(RowRejected, match="no_answer"):
        cases_from_conversation_row({"query": "x", "tools": "[]", "answers": ""}, row_format="xlam", source="f:1")
