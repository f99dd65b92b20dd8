"""How much there is to do: steps, rungs, and the share of a search's steps that early stopping leaves. Pure."""

import math
from typing import NamedTuple

from orchestrator.plan.passes import Runner
from orchestrator.plan.shapes import BaseShape

FIRST_RUNG_SHARE = 0.1
"""No trial is stopped before this share of its steps: learning rates separate early, ranks do not."""
COHORT = 8
"""Trials of multi-LoRA engines, over all devices, that reach a rung together, if they fit the memory."""


class Halving(NamedTuple):
    """Successive halving: where trials are judged, one in how many goes on there, and how many at the least."""

    rungs: tuple[int, ...]
    reduction_factor: int
    keep: int


def first_rung(max_steps: int, eval_steps: int, warmup_steps: int) -> int:
    """The first evaluation at which a trial may be stopped: past warm-up, from a tenth of the budget on."""
    earliest = max(math.ceil(FIRST_RUNG_SHARE * max_steps), warmup_steps + 1)
    return min(math.ceil(earliest / eval_steps) * eval_steps, max_steps)


def rungs_of(max_steps: int, eval_steps: int, warmup_steps: int, reduction_factor: int) -> tuple[int, ...]:
    """The first rung, then each `reduction_factor` times later; every trial is evaluated at all of them.

    The end of training is the last rung of successive halving, with nothing left to stop. A rung nearer to it than half
    way to the next, on the log scale of rungs, is left out: it would save few steps and leave the runners-up, which the
    search keeps too, unfinished.
    """
    rungs: list[int] = []
    rung = first_rung(max_steps, eval_steps, warmup_steps)
    while rung * math.sqrt(reduction_factor) < max_steps:
        rungs.append(rung)
        rung *= reduction_factor
    return tuple(rungs)


def expected_steps(trials: int, max_steps: int, halving: Halving, *, group: int = 1, is_improving: bool = False) -> int:
    """Optimizer steps of a search whose trials come to its rungs in groups of so many.

    At each rung the best of a group's and all earlier trials go on, one in `reduction_factor`; which ones are in a
    group is chance. If it `is_improving`, as where results decide what is proposed next, half way between that and
    later groups that are all better than the earlier ones.
    """
    groups = [float(min(group, trials - start)) for start in range(0, trials, group)]
    as_it_comes = _steps_of(groups, max_steps, halving, is_improving=False)
    if not is_improving:
        return round(as_it_comes)
    return round((as_it_comes + _steps_of(groups, max_steps, halving, is_improving=True)) / 2)


def _steps_of(groups: list[float], max_steps: int, halving: Halving, *, is_improving: bool) -> float:
    steps, before = 0.0, 0
    for rung in halving.rungs:
        steps += sum(groups) * (rung - before)
        before, groups = rung, _going_on(groups, halving, is_improving=is_improving)
    return steps + sum(groups) * (max_steps - before)


def _going_on(groups: list[float], halving: Halving, *, is_improving: bool) -> list[float]:
    """How many of each group pass a rung."""
    seen, passing = 0.0, []
    for count in groups:
        seen += count
        best = math.ceil(round(seen / halving.reduction_factor, 9))
        passing.append(min(count, best) if is_improving else count * best / seen)
    missing = max(0.0, halving.keep - sum(passing))
    return [*passing[:-1], min(groups[-1], passing[-1] + missing)]


def training_flops(shape: BaseShape, runner: Runner, *, rank: int, length: float, learned: float) -> float:
    """Operations to train on one token: forward, and the gradients of activations and adapters.

    `length` is that of an average row, `learned` the share of tokens that reach the output head.
    """
    base = 4 * shape.products
    adapters = 6 * shape.adapter_parameters(rank)
    attention = 6 * shape.layers * length * shape.queries
    head = (4 * learned if runner == "multi_lora" else 6) * shape.vocabulary * shape.hidden
    return base + adapters + attention + head


def forward_flops(shape: BaseShape, *, length: float, learned: float) -> float:
    """Operations to read one token, and to make the logits of a share of tokens."""
    return 2 * shape.products + 2 * shape.layers * length * shape.queries + 2 * learned * _head(shape)


def _head(shape: BaseShape) -> int:
    return shape.vocabulary * shape.hidden
