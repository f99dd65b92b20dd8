"""The one exception tree, and the exit codes.

An error is for a person: it says what is wrong, where, what would be allowed and how to fix it. Its class decides the
exit code of the process that it ends. A bad generation is data and never appears here; a broken engine does.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

from orchestrator.core.text import without_secrets

DONE, FAILED, GATE_NOT_MET, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3, 130
"""The exit codes of every command and job. A gate that is not met: the work is done, its result is not good enough."""


class OrchestratorError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        what: The problem, in one clause.
        where: The place: `file:line`, a config path such as `train.batch_size`, an adapter id.
        allowed: What would have been accepted.
        fix: What the reader can do about it, as an imperative sentence.
    """

    exit_code: ClassVar[int] = FAILED

    def __init__(
        self, what: str, *, where: str | None = None, allowed: str | None = None, fix: str | None = None
    ) -> None:
        self.what = what = without_secrets(what)
        self.where, self.allowed, self.fix = (part and without_secrets(part) for part in (where, allowed, fix))
        parts = (f"{self.where}: {what}" if where else what, f"Allowed: {self.allowed}" if allowed else None, self.fix)
        super().__init__(" ".join(f"{part.rstrip('.')}." for part in parts if part))

    def __reduce__(self) -> tuple[Callable[..., "OrchestratorError"], tuple[object, ...]]:
        # Ray pickles exceptions between processes; the default would call __init__ with the message alone.
        return partial(type(self), where=self.where, allowed=self.allowed, fix=self.fix), (self.what,)


class InputError(OrchestratorError, ValueError):
    """What the user gave cannot work: the process exits 3."""

    exit_code = BAD_INPUT


class ConfigError(InputError):
    """A configuration that is not valid."""


class DataError(InputError):
    """A data file that cannot be read, or that holds nothing usable."""


class TooFewPairsError(DataError):
    """Too few pairs to learn preferences from: the adapter's replies are right, or too few rows hold any."""


class ModelNotFoundError(InputError):
    """A base model or tokenizer that is not on this machine and cannot be fetched."""


class AdapterNotFoundError(InputError):
    """An adapter that is neither a folder nor on the hub."""


class ResourceError(InputError):
    """A request for CPUs, GPUs or workers that the cluster can never meet."""


class RunConflictError(InputError):
    """A run directory that belongs to another configuration, or lacks what a stage needs."""


class AdapterError(OrchestratorError):
    """An adapter directory that is incomplete, corrupt, or made for another base."""


class TrainingError(OrchestratorError):
    """A training job that ended without an adapter."""


class DivergedError(TrainingError):
    """The loss stopped being finite."""


class SearchError(OrchestratorError):
    """A search in which no trial produced an adapter."""


class InertAdapterError(AdapterError):
    """An adapter that changes nothing in what the base computes."""


class EvaluationError(OrchestratorError):
    """An evaluation engine that broke, or an evaluation that scored nothing."""


class UnscoredAdaptersError(EvaluationError):
    """An evaluation that scored what it could, while some adapters could not be scored."""


class StorageRefusedError(InputError):
    """A bucket that is not there, or that these credentials may not use."""


class StorageUnreachableError(OrchestratorError):
    """A bucket that did not answer for as long as requests are repeated."""


class SubmissionError(OrchestratorError):
    """A job that could not be submitted or followed."""


class ConversionError(OrchestratorError):
    """A program of others that did not convert a model."""


class UploadError(OrchestratorError):
    """An upload that broke off; what arrived need not be sent again."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that explain `error`, outermost first, without Ray's wrappers.

    What was merely being handled when an exception arose (`__context__`) explains nothing and is left out.
    """
    waiting, seen = deque([error]), set[int]()
    while waiting:
        current = waiting.popleft()
        if id(current) in seen:
            continue
        seen.add(id(current))
        wrapped = _wrapped(current)
        if not wrapped:
            yield current
        waiting.extend(wrapped)
        if current.__cause__ is not None:
            waiting.append(current.__cause__)


def _wrapped(error: BaseException) -> list[BaseException]:
    """What a worker raised, inside what Ray makes of it here.

    A failed task holds it as `cause` (and poses as its class), a failed training run holds one for each worker in
    `worker_failures`, a failed controller holds it as `controller_failure`.
    """
    failures = getattr(error, "worker_failures", None)
    inner = [getattr(error, "cause", None), getattr(error, "controller_failure", None)]
    inner += failures.values() if isinstance(failures, dict) else ()
    return [cause for cause in inner if isinstance(cause, BaseException)]
