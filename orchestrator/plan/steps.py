"""How much there is to do: steps, rungs, and the share of a search's steps that early stopping leaves. Pure."""

import math
from collections.abc import Sequence

from orchestrator.plan.passes import Runner
from orchestrator.plan.shapes import BaseShape

FIRST_RUNG_SHARE = 0.1
"""No trial is stopped before this share of its steps: learning rates separate early, ranks do not."""


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


def expected_steps(trials: int, max_steps: int, rungs: Sequence[int], reduction_factor: int, keep: int) -> int:
    """Optimizer steps of a search, if one trial in `reduction_factor` goes on at each rung, and at least `keep`.

    That is what successive halving leaves of trials that reach a rung together; ASHA lets more go on at first.
    """
    steps, before, going_on = 0, 0, trials
    for rung in rungs:
        steps += going_on * (rung - before)
        before, going_on = rung, min(going_on, max(keep, math.ceil(going_on / reduction_factor)))
    return steps + going_on * (max_steps - before)


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
