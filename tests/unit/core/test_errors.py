import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray import cloudpickle
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from orchestrator.core.errors import (
    AdapterError,
    AdapterNotFoundError,
    ConfigError,
    ConversionError,
    DataError,
    DivergedError,
    EvaluationError,
    InertAdapterError,
    InputError,
    ModelNotFoundError,
    OrchestratorError,
    ResourceError,
    RunConflictError,
    SearchError,
    StorageRefusedError,
    StorageUnreachableError,
    SubmissionError,
    TooFewPairsError,
    TrainingError,
    UnscoredAdaptersError,
    UploadError,
    causes,
)

INPUT = [InputError, ConfigError, DataError, ModelNotFoundError, AdapterNotFoundError, ResourceError]
INPUT += [RunConflictError, TooFewPairsError, StorageRefusedError]
STAGE = [OrchestratorError, AdapterError, InertAdapterError, TrainingError, DivergedError, SearchError]
STAGE += [EvaluationError, UnscoredAdaptersError, SubmissionError, UploadError, ConversionError]
STAGE += [StorageUnreachableError]


def tree(root: type[OrchestratorError]) -> Iterator[type[OrchestratorError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def test_the_lists_of_this_file_hold_every_error_of_the_module() -> None:
    ours = {cls for cls in tree(OrchestratorError) if cls.__module__ == "orchestrator.core.errors"}
    assert ours == {*INPUT, *STAGE}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "it broke."),
        ({"where": "a.jsonl:3"}, "a.jsonl:3: it broke."),
        ({"allowed": "1 or 2"}, "it broke. Allowed: 1 or 2."),
        ({"fix": "Mend it"}, "it broke. Mend it."),
        ({"where": "x", "allowed": "1.", "fix": "Mend it."}, "x: it broke. Allowed: 1. Mend it."),
    ],
)
def test_the_message_says_what_where_allowed_and_fix(parts: dict[str, str], message: str) -> None:
    assert str(OrchestratorError("it broke", **parts)) == message
    assert str(OrchestratorError("it broke.", **parts)) == message


@pytest.mark.parametrize("cls", [*INPUT, *STAGE])
@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_an_error_survives_another_process(cls: type[OrchestratorError], dumps: Callable[[Any], bytes]) -> None:
    error = cls("it broke", where="here", allowed="this", fix="Mend it")
    back = pickle.loads(dumps(error))
    assert type(back) is cls
    assert (back.what, back.where, back.allowed, back.fix) == ("it broke", "here", "this", "Mend it")
    assert str(back) == str(error) == "here: it broke. Allowed: this. Mend it."


def test_an_error_can_be_copied() -> None:
    assert str(copy.copy(DataError("empty", where="a"))) == "a: empty."


@pytest.mark.parametrize("cls", INPUT)
def test_bad_input_exits_3_and_is_a_value_error(cls: type[OrchestratorError]) -> None:
    assert cls.exit_code == 3
    assert issubclass(cls, ValueError)


@pytest.mark.parametrize("cls", STAGE)
def test_a_failed_stage_exits_1_and_is_not_the_users_value(cls: type[OrchestratorError]) -> None:
    assert cls.exit_code == 1
    assert not issubclass(cls, ValueError)


def test_causes_follows_raise_from_and_not_what_was_merely_handled() -> None:
    def fail() -> None:
        try:
            raise KeyError("handled")
        except KeyError:
            raise DataError("shown") from OSError("the reason")

    with pytest.raises(DataError) as caught:
        fail()
    assert isinstance(caught.value.__context__, KeyError)
    assert [type(cause) for cause in causes(caught.value)] == [DataError, OSError]


def test_causes_finds_the_workers_own_error_inside_all_of_rays() -> None:
    ours = DivergedError("the loss stopped being finite")
    in_task = RayTaskError("train", "Traceback", ours, "train", 1, "127.0.0.1").as_instanceof_cause()
    failed = WorkerGroupError("workers failed", {0: in_task, 1: ValueError("another")})
    found = list(causes(ControllerError(failed)))
    assert ours in found
    assert {type(cause) for cause in found} == {DivergedError, ValueError}
