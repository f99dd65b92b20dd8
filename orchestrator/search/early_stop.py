"""Stopping trials that lag at equal steps."""

import math

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from orchestrator.config.schema import SearchConfig
from orchestrator.search.rungs import SuccessiveHalving
from orchestrator.search.space import num_trials
from orchestrator.training.plan import TrainPlan

FIRST_RUNG_SHARE = 0.1
"""No trial is stopped before this share of its steps: learning rates separate early, ranks do not."""


def first_rung(plan: TrainPlan) -> int:
    """The first evaluation at which a trial may be stopped: past warm-up, from a tenth of the budget on."""
    earliest = max(math.ceil(FIRST_RUNG_SHARE * plan.max_steps), plan.warmup_steps + 1)
    return min(math.ceil(earliest / plan.eval_steps) * plan.eval_steps, plan.max_steps)


def rung_steps(plan: TrainPlan, reduction_factor: int) -> tuple[int, ...]:
    """The first rung, then each `reduction_factor` times later; all are steps at which every trial is evaluated.

    The end of training is the last rung of successive halving, at which nothing is left to stop. One that is nearer
    to it than half way to the next, on the log scale on which rungs lie, is left out: it would save few steps and
    leave the runners-up, which the search keeps too, unfinished.
    """
    rungs: list[int] = []
    rung = first_rung(plan)
    while rung * math.sqrt(reduction_factor) < plan.max_steps:
        rungs.append(rung)
        rung *= reduction_factor
    return tuple(rungs)


def make_scheduler(search: SearchConfig, plan: TrainPlan) -> TrialScheduler:
    """What decides on eval loss over optimizer steps who is stopped: successive halving, Ray's ASHA, or nothing.

    Ray counts its own reports as time by default, and those start again at 1 when a trial is restarted; steps do not.
    """
    match search.scheduler:
        case "halving":
            rungs = rung_steps(plan, search.reduction_factor)
            return SuccessiveHalving(
                rungs, reduction_factor=search.reduction_factor, keep=search.keep, num_trials=num_trials(search)
            )
        case "asha":  # arXiv 1810.05934
            return ASHAScheduler(
                time_attr="step",
                max_t=plan.max_steps + 1,  # at its last step a trial ends by itself
                grace_period=first_rung(plan),
                reduction_factor=search.reduction_factor,
            )
        case "none":
            return FIFOScheduler()
