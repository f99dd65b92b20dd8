"""The section `eval`: suites that cannot be meant, and what is taken."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from evals.records import HELD_OUT
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.config.evaluation import RESERVED_SUITE, EvalConfig, JudgeConfig, SuiteConfig
from orchestrator.config.schema import ROW_FORMATS


def refused(match: str, **content: Any) -> None:
    with pytest.raises(ValidationError, match=match):
        EvalConfig.model_validate(content)


def test_by_default_there_is_neither_suite_nor_judge() -> None:
    config = EvalConfig()
    assert (config.turns, config.suites, config.reply_format) == ("all", (), "auto")
    assert (config.num_engines, config.judge) == (None, None)


def test_every_format_of_replies_can_be_set() -> None:
    assert get_args(EvalConfig.model_fields["reply_format"].annotation) == ("auto", *REPLY_FORMATS)


def test_a_judge_needs_a_base_alone() -> None:
    judge = EvalConfig.model_validate({"judge": {"base": "some/model"}}).judge
    assert judge == JudgeConfig(base="some/model", revision=None, dtype="auto", trust_remote_code=False)
    refused("judge.base", judge={})


@pytest.mark.parametrize("name", ["auto", "canonical", "cases", "xstest", "when2call", *ROW_FORMATS])
def test_a_suite_may_be_in_any_format_of_the_data_and_in_its_own(name: str) -> None:
    assert SuiteConfig.model_validate({"name": "s", "path": "a.jsonl", "format": name}).format == name


def test_two_suites_of_one_name_are_refused() -> None:
    suites = [{"name": "mine", "path": "a.jsonl"}, {"name": "mine", "path": "b.jsonl"}]
    refused("two suites are called 'mine'", suites=suites)
    assert len(EvalConfig.model_validate({"suites": [suites[0], {**suites[1], "name": "other"}]}).suites) == 2


def test_the_name_of_the_held_out_cases_is_taken() -> None:
    assert RESERVED_SUITE == HELD_OUT
    refused("is that of the run's own held-out cases", suites=[{"name": "held_out", "path": "a.jsonl"}])


def test_answers_belong_to_bfcl() -> None:
    answered = {"name": "s", "path": "a.jsonl", "answers": "b.jsonl"}
    assert EvalConfig.model_validate({"suites": [{**answered, "format": "bfcl"}]}).suites[0].answers == "b.jsonl"
    refused("answers belong to format bfcl, not xstest", suites=[{**answered, "format": "xstest"}])


def test_a_suite_is_no_data_set_of_the_hub() -> None:
    refused("a suite is a file", suites=[{"name": "s", "path": "hub:owner/name"}])
