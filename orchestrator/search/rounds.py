"""The rounds of a search with a budget, until the rest buys no trial or another is not expected to help."""

from collections.abc import Callable, Iterator, Sequence

from orchestrator.config.schema import RunConfig
from orchestrator.core.progress import say
from orchestrator.core.records import TrialRecord
from orchestrator.models.base import base_folder
from orchestrator.search.budget import Account
from orchestrator.search.early_stopping import rung_steps
from orchestrator.search.heard import Heard
from orchestrator.search.parts import Part
from orchestrator.search.proposals import point, results_of
from orchestrator.search.samplers import Results
from orchestrator.search.space import read_base_shape, resolve_space
from orchestrator.training.plan import TrainPlan


def rounds_of(
    config: RunConfig,
    plan: TrainPlan,
    account: Account,
    begun: Sequence[Part],
    trials: Callable[[], Sequence[TrialRecord]],
) -> Iterator[Part]:
    """The parts that were begun, then further rounds; says in the end why there are no more.

    `trials` gives those of all parts that were given out, ended.
    """
    yield from begun
    search = config.search
    base = read_base_shape(base_folder(config.model))
    space = resolve_space(search.space, base, plan.train.batch_size, plan.hyperparameters)
    rungs = rung_steps(plan, search.reduction_factor)
    while True:
        ended = trials()
        known, size = _seen(ended, rungs), account.next_round(ended)
        is_worth_it = account.gains(space.dimensions, known)
        if size == 0 or not is_worth_it:
            break
        yield Part(len(ended) + 1, len(ended) + size)
    if is_worth_it:
        following = point(search, space, len(ended) + 1, known)
        settings = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in following.items())
        more = f"As much again would buy about {account.more(ended)} more, the next with {settings}."
        account.end(ended, "spent", more)
    else:
        account.end(ended, "no gain", "")
    say(account.record.text)


def _seen(trials: Sequence[TrialRecord], rungs: Sequence[int]) -> Results:
    """What came of trials at their first rung, by eval loss."""
    heard = Heard(trials)
    losses = {number: loss for number in heard.points if (loss := heard.value(number, rungs)) is not None}
    return results_of(heard.points, losses, {})
