"""How fast replies are made: a few cases, answered by the base in an engine of a process of its own.

`python -m evals.generate.probe < REQUEST` prints the numbers as JSON, last.
"""

import sys
import time
from collections.abc import Sequence
from statistics import fmean
from typing import TypeVar

from evals.generate.engine import Batch, Engine, EngineSettings, Prompt, load_vllm
from orchestrator.core.records import Record
from orchestrator.models.memory import memory_peak
from orchestrator.plan.measured import MeasuredReplies
from orchestrator.probe.processes import answer

Item = TypeVar("Item")

ALONE = 4
"""Cases that are asked one at a time."""
BUDGET_S = 20.0
"""As many cases are asked at once as would take so long one after the other ..."""
FEWEST, MOST = 8, 64
"""... but no fewer and no more than these."""


class RepliesRequest(Record):
    """What an evaluation's engine is told, the token ids of cases from everywhere, and what is known of all cases.

    The latter as in `MeasuredReplies`.
    """

    settings: EngineSettings
    prompts: tuple[tuple[int, ...], ...]
    expected_tokens: float
    all_cases: int
    all_alone: int


def measure(request: RepliesRequest) -> MeasuredReplies:
    """Answer a few cases, one at a time and many at once."""
    began = time.monotonic()
    load_vllm()
    engine = Engine(request.settings)
    start_s = time.monotonic() - began
    prompts = [Prompt(str(number), list(ids)) for number, ids in enumerate(request.prompts)]
    alone = engine.time(prompts[:ALONE], None)
    alone_s, read_s = fmean(its.total_s for its in alone), fmean(its.first_token_s for its in alone)
    asked = spread(prompts, int(min(max(BUDGET_S / alone_s, FEWEST), MOST)))
    started = time.monotonic()
    batches = [batch for batch in engine.answer(asked, None) if isinstance(batch, Batch)]
    case_s = (time.monotonic() - started) / len(asked)
    tokens = fmean(reply.output_tokens or 0 for batch in batches for reply in batch.generations)
    alone_tokens = fmean(its.output_tokens for its in alone)
    return MeasuredReplies(
        start_s=start_s,
        case_s=case_s,
        token_s=max(0.0, case_s - read_s) / max(1.0, tokens),
        alone_s=alone_s,
        alone_token_s=max(0.0, alone_s - read_s) / max(1.0, alone_tokens),
        reply_tokens=tokens,
        expected_tokens=request.expected_tokens,
        all_cases=request.all_cases,
        all_alone=request.all_alone,
        cases=len(asked),
        peak_bytes=memory_peak(),
        probe_s=time.monotonic() - began,
    )


def spread(items: Sequence[Item], number: int) -> Sequence[Item]:
    """So many of them at equal distances, or all if there are no more."""
    return [items[at * len(items) // number] for at in range(number)] if number < len(items) else items


if __name__ == "__main__":
    sys.exit(answer(RepliesRequest, measure))
