import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.generate.engine import Adapter, adapters_for_engine
from orchestrator.chat.serve_command import SERVED_RANKS, smallest_served_rank
from orchestrator.config.schema import ServableRank
from orchestrator.core.errors import AdapterError

RANKS = st.sampled_from(get_args(ServableRank))


SMALLEST = {(): None, (1,): 1, (2,): 8, (8,): 8, (8, 16): 16, (4, 1): 8, (64, 8, 16): 64, (128,): 128, (256,): 256}


@pytest.mark.parametrize(("ranks", "served"), SMALLEST.items())
def test_the_smallest_rank_that_an_engine_can_serve(ranks: tuple[int, ...], served: int | None) -> None:
    assert smallest_served_rank(ranks) == served


@given(st.lists(RANKS, min_size=1))
def test_every_rank_that_can_be_configured_is_served_with_no_more_than_needed(ranks: list[int]) -> None:
    served = smallest_served_rank(ranks)
    assert served in SERVED_RANKS
    assert served is not None
    assert served >= max(ranks)
    assert not any(max(ranks) <= smaller < served for smaller in SERVED_RANKS)


def test_a_rank_beyond_all_that_is_served_is_refused() -> None:
    with pytest.raises(AdapterError, match="rank 1024 cannot be served"):
        smallest_served_rank([8, 1024])


def test_adapters_are_numbered_from_1_in_the_order_given() -> None:
    assert adapters_for_engine({"b": (Path("/x/b"), "sb"), "a": (Path("/x/a"), "sa")}) == [
        Adapter("b", 1, "/x/b", "sb"),
        Adapter("a", 2, "/x/a", "sa"),
    ]
    assert adapters_for_engine({}) == []


def test_the_module_itself_loads_no_vllm() -> None:
    script = "import evals.generate.engine, sys; print('vllm' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
