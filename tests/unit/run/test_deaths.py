import pytest
import torch
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError
from ray.train.v2.api.exceptions import WorkerGroupError

from orchestrator.core.errors import TrainingError
from orchestrator.run.deaths import last_line, why_it_died
from orchestrator.training.launch import explain_failure

KILLED = "a process was killed, most likely because the machine's memory ran out"


NO_WORD = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called"
)
"""Ray's own words for an actor that SIGKILL ended."""


def in_a_task(cause: Exception) -> Exception:
    """What `ray.get` raises for a task that raised `cause`."""
    error: Exception = RayTaskError("f", "Traceback ...", cause, "ray::f", 1, "127.0.0.1").as_instanceof_cause()
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OutOfMemoryError("Task was killed due to the node running low on memory." + " More." * 200), "memory ran out"),
        (WorkerCrashedError(), KILLED),
        (ActorDiedError(ActorDiedErrorContext(actor_id=bytes(16), error_message=NO_WORD)), KILLED),
        (in_a_task(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")), "memory ran out"),
        (in_a_task(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")), "memory ran out"),
        (WorkerGroupError("workers failed", {0: WorkerCrashedError()}), KILLED),
        (in_a_task(ValueError("a wrong value")), None),
        (RuntimeError("the room is too small"), None),
    ],
)
def test_a_death_is_explained_in_one_clause(error: Exception, why: str | None) -> None:
    assert why_it_died(error) == why


def test_a_training_that_ran_out_of_memory_says_what_to_change() -> None:
    told = explain_failure(WorkerGroupError("workers failed", {0: torch.OutOfMemoryError("CUDA out of memory")}))
    assert isinstance(told, TrainingError)
    assert "train.micro_batch_size" in str(told)
    assert "train.gradient_checkpointing" in str(told)
    assert len(str(told)) < 250


def test_the_line_that_counts_is_the_last() -> None:
    assert last_line(in_a_task(ValueError("a page\nof words\nthe reason"))) == "ValueError: the reason"
