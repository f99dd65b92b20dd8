import pytest
from builders import assistant, make_call, make_sample, make_trial, user
from pydantic import ValidationError

from orchestrator.core.records import (
    METRIC_NAMES,
    SAMPLE_KINDS,
    FunctionCall,
    FunctionSpec,
    Message,
    Sample,
    TrialRecord,
)


def test_a_record_is_frozen_and_closed() -> None:
    message = user("hi")
    with pytest.raises(ValidationError, match="frozen"):
        message.content = "ho"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="rolle"):
        Message.model_validate({"role": "user", "rolle": "x"})


def test_a_message_dumps_only_what_is_there() -> None:
    assert user("hi").model_dump() == {"role": "user", "content": "hi"}
    assert assistant("").model_dump() == {"role": "assistant", "content": ""}
    answer = Message(role="tool", content="{}", tool_call_id="c1", name="f")
    assert answer.model_dump() == {"role": "tool", "content": "{}", "tool_call_id": "c1", "name": "f"}


def test_a_call_keeps_its_arguments_as_an_object_with_its_nulls() -> None:
    dumped = assistant("", make_call("f", a=None, b={"c": [None]})).model_dump(mode="json")
    assert dumped["tool_calls"][0]["function"] == {"name": "f", "arguments": {"a": None, "b": {"c": [None]}}}


@pytest.mark.parametrize("arguments", ['{"a": 1}', [1], None])
def test_arguments_that_are_no_object_are_refused(arguments: object) -> None:
    with pytest.raises(ValidationError, match="arguments"):
        FunctionCall.model_validate({"name": "f", "arguments": arguments})


def test_nameless_calls_and_tools_and_empty_samples_are_refused() -> None:
    with pytest.raises(ValidationError, match="name"):
        FunctionCall(name="", arguments={})
    with pytest.raises(ValidationError, match="name"):
        FunctionSpec(name="")
    with pytest.raises(ValidationError, match="messages"):
        Sample(id="a", messages=(), kind="answer", source="t")
    with pytest.raises(ValidationError, match="id"):
        make_sample(id="")


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    assert FunctionSpec(name="now").arguments_schema == {"type": "object", "properties": {}}


def test_each_tag_of_a_sample_counts_once() -> None:
    turns = (Message(role="user", content="Hi"), Message(role="assistant", content="Hello"))
    sample = Sample(id="s", messages=turns, kind="answer", source="x", tags=("late", "benign", "late"))
    assert sample.tags == ("late", "benign")


def test_an_unknown_kind_or_status_is_refused() -> None:
    with pytest.raises(ValidationError, match="kind"):
        make_sample(kind="question")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="status"):
        TrialRecord.model_validate({"trial_id": "t", "status": "lost", "hyperparameters": {}, "curve": []})
    with pytest.raises(ValidationError, match="stop_reason"):
        make_trial().model_validate({**make_trial().model_dump(), "stop_reason": "bored"})


def test_a_trial_of_an_earlier_version_is_still_read() -> None:
    stored = '{"trial_id": "t", "status": "stopped_early", "hyperparameters": {"r": 8}, "curve": [], "duration_s": 1.5}'
    trial = TrialRecord.model_validate_json(stored)
    assert (trial.steps, trial.tokens, trial.device_s, trial.stop_reason) == (None, None, None, None)


def test_the_shared_words() -> None:
    assert SAMPLE_KINDS == ("tool_call", "refusal", "clarification", "answer")
    assert len(METRIC_NAMES) == len(set(METRIC_NAMES)) == 21
    assert {"case_accuracy", "tool_call_validity", "tool_call_accuracy", "refusal_accuracy"} <= set(METRIC_NAMES)
