"""Stopping trials that lag at equal steps."""

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from orchestrator.config import SearchConfig
from orchestrator.training.plan import TrainPlan

FIRST_RUNG_SHARE = 0.1
"""No trial is stopped before this share of its steps: learning rates separate early, ranks do not."""


def first_rung(plan: TrainPlan) -> int:
    """Optimizer steps before ASHA may stop a trial: a tenth of the budget, past warm-up and the first evaluation."""
    return min(plan.max_steps, max(round(FIRST_RUNG_SHARE * plan.max_steps), plan.warmup_steps + 1, plan.eval_steps))


def make_scheduler(search: SearchConfig, plan: TrainPlan) -> TrialScheduler:
    """ASHA on eval loss over optimizer steps (arXiv 1810.05934), or none.

    Ray counts its own reports as time by default, and those start again at 1 when a trial is restarted; steps do not.
    """
    if search.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="step",
        max_t=plan.max_steps + 1,  # at its last step a trial ends by itself
        grace_period=first_rung(plan),
        reduction_factor=search.reduction_factor,
    )
