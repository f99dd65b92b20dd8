"""One thread, on which small products are fastest, and the toy base read once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from orchestrator.toy.tiny import tiny_base_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_base() -> "PreTrainedModel":
    """The built-in toy base in float32; engines take copies of it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32).requires_grad_(
        requires_grad=False
    )
