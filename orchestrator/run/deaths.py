"""Why a process of the cluster died, in a sentence or two, instead of Ray's page of possible causes."""

import re
from collections.abc import Sequence

from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError, WorkerCrashedError

from orchestrator.core.errors import causes
from orchestrator.core.text import without_secrets

ALLOCATOR_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "no available memory")
"""What PyTorch, vLLM and CUDA say when memory runs out, in lower case."""
MONITOR_WORDS = ("low on memory", "oom kill", "memory monitor")
"""What Ray says of a process that its memory monitor ended, in lower case."""
SAVES_TRAINING_MEMORY = (
    "Lower search.max_concurrent, train.micro_batch_size or data.max_length, set train.gradient_checkpointing, "
    "or use a machine with more memory"
)
SAVES_EVALUATION_MEMORY = (
    "Lower eval.kv_cache_gib, eval.max_model_len or eval.num_engines, or use a machine with more memory"
)
_CAUSES = re.compile("(root|common) causes")
"""Where Ray's text of any death without a word begins to list what it may have been, the OOM killer among it."""
_DIED = (ActorDiedError, ActorUnavailableError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)


def why_it_died(error: BaseException) -> str | None:
    """What ended a process: a clause; None where `error` says nothing of a death or of memory.

    A process that a signal killed says no word, and the likeliest cause of that is the kernel, for want of memory.
    """
    found = list(causes(error))
    if any(_is_out_of_memory(cause) for cause in found):
        return "memory ran out"
    if any(isinstance(cause, _DIED) and "creation task" not in str(cause) for cause in found):
        return "a process was killed, most likely because the machine's memory ran out"
    return None


def last_line(error: BaseException) -> str:
    """The class and the last line of what explains `error`: of a traceback in it, the line that counts."""
    cause = list(causes(error))[-1]
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return without_secrets(f"{type(cause).__name__}: {lines[-1] if lines else 'no message'}")


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    if isinstance(error, _DIED) and "creation task" not in text:
        return isinstance(error, OutOfMemoryError) or _says(_CAUSES.split(text)[0], MONITOR_WORDS)
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (isinstance(error, RuntimeError | ValueError | ActorDiedError) and _says(text, ALLOCATOR_WORDS))


def _says(text: str, words: Sequence[str]) -> bool:
    return any(word in text for word in words)
