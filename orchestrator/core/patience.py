"""Whether a training goes on after an evaluation, and what stands for the loss of one that diverged."""

import math
from collections.abc import Sequence
from enum import Enum, auto

DIVERGED_LOSS = 1e9
"""Eval loss reported for a diverged trial: finite, because schedulers and samplers mishandle NaN, and never best."""


class Decision(Enum):
    """What to do after an evaluation."""

    CONTINUE = auto()
    STOP = auto()
    DIVERGED = auto()


def decide(eval_losses: Sequence[float], patience: int | None) -> Decision:
    """Stop after `patience` evaluations without a better eval loss (None: never), at once when it is not finite."""
    if not math.isfinite(eval_losses[-1]):
        return Decision.DIVERGED
    since_best = len(eval_losses) - 1 - eval_losses.index(min(eval_losses))
    return Decision.STOP if patience is not None and since_best >= patience else Decision.CONTINUE
