import gc
import weakref

import numpy as np
import pytest
import torch

from orchestrator.core.errors import TrainingError
from orchestrator.multi_lora.sizing import OutOfMemory, attempt, too_large

FAR_TOO_MANY = 1 << 58
"""Bytes that no machine has."""


def test_what_fits_is_returned() -> None:
    assert attempt(lambda: 3) == 3


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: torch.empty(FAR_TOO_MANY, dtype=torch.uint8), "can't allocate memory"),
        (lambda: np.empty(FAR_TOO_MANY, dtype=np.uint8), "Unable to allocate"),
        (lambda: bytearray(FAR_TOO_MANY), "no memory"),
    ],
)
def test_every_allocators_refusal_is_known(work: object, words: str) -> None:
    assert callable(work)
    problem = attempt(work)
    assert isinstance(problem, OutOfMemory)
    assert words in problem.words
    assert "\n" not in problem.words


def test_a_devices_refusal_is_known() -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    assert attempt(work) == OutOfMemory("CUDA out of memory. Tried to allocate 2 GiB.")


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no"), TrainingError("not memory")])
def test_any_other_error_passes(error: Exception) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        attempt(work)
    assert caught.value is error


def test_what_filled_the_memory_is_free_afterwards() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> torch.Tensor:
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        return large + torch.empty(FAR_TOO_MANY, dtype=torch.uint8)

    gc.disable()  # freed at once, not when the collector comes round
    try:
        problem = attempt(work)
        assert held[0]() is None
    finally:
        gc.enable()
    assert isinstance(problem, OutOfMemory)


def test_what_never_fits_is_told_with_what_to_do() -> None:
    told = str(too_large(OutOfMemory("no memory")))
    assert told.startswith("data.max_length: a single row of a single adapter does not fit the memory (no memory).")
    assert "Lower data.max_length" in told
