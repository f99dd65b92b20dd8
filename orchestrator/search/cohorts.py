"""Cohorts of a search: trials with the same value of whatever an engine shares, such as the batch size. Pure.

They take turns of a few trials, by number. Each cohort has one turn; every further turn goes to the cohort with the
lowest eval loss before it. A cohort proposes and judges its trials among themselves: at equal steps those of another
have seen other numbers of samples.
"""

import math
from collections.abc import Sequence

from orchestrator.config.schema import SpaceConfig
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.training.plan import TrainPlan


def cohort_of(turn: int, cohorts: Sequence[JsonObject], before: Sequence[TrialRecord]) -> JsonObject:
    """The cohort that has this turn, counted from 0, after the trials of all turns before it."""
    if turn < len(cohorts):
        return cohorts[turn]

    def best(cohort: JsonObject) -> float:
        losses = [record.best_eval_loss for record in before if is_of(cohort, record.hyperparameters)]
        return min((loss for loss in losses if loss is not None), default=math.inf)

    return min(cohorts, key=best)


def is_of(cohort: JsonObject, hyperparameters: JsonObject) -> bool:
    """Whether a trial with these hyperparameters is of the cohort."""
    return all(hyperparameters.get(name) == value for name, value in cohort.items())


def plan_of(cohort: JsonObject, plan: TrainPlan, space: SpaceConfig) -> TrainPlan:
    """The plan of a cohort's longest trial, evaluated as often as its shortest needs: rungs and engines follow it."""
    if not plan.varied:
        return plan
    longest = {name: max(values) for name, values in space.further.items() if name in ("epochs", "warmup_ratio")}
    made = plan.with_hyperparameters({**cohort, **longest})
    shortest = made.with_hyperparameters({"epochs": min(space.epochs)}) if space.epochs else made
    return made.model_copy(update={"eval_steps": plan.train.eval_steps_for(shortest.max_steps)})
