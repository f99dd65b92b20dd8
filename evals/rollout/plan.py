"""How many live cases a 50/50 split needs to see what the report measured, and which harm so many would show."""

from collections.abc import Iterator, Sequence

from evals.report.text import difference_text, signed_text
from evals.rollout.sides import Side, paired
from evals.stats.comparison import LEVEL, POWER, compare
from evals.stats.decision import GUARDED, PRIMARY
from evals.stats.metrics import METRICS
from evals.stats.sequential import cases_to_rule_out, cases_to_show, harm_shown
from orchestrator.core.errors import RunConflictError
from orchestrator.core.records import MetricName, Record
from orchestrator.core.text import counted, unit_text

MARGIN = 0.02
"""The smallest difference of the share answered as asked that matters, unless another is given."""


class Harm(Record):
    """A guarded metric: its share in the old arm, and by how much it has to be worse for the plan to show it."""

    metric: MetricName
    old: float
    worse_by: float


class Plan(Record):
    """What a roll-out needs. Produced by `plan_rollout`, consumed by `rollout/verdict`.

    `low` and `high` bound the measured difference, new minus old, and are None where no case was shared. Counts are
    live cases of both arms together. `at_most`: so many show the difference with a chance of 80 % or more, however
    often one looks; `on_average`: when it is shown; `one_look`: for a test that is looked at once. `pessimistic` is
    `at_most` for the end of the interval that is nearer to 0, None where 0 is within. For a difference below the
    `margin`, `at_most` is what shows that it is, and the other counts are None.
    """

    old: str
    new: str
    old_share: float
    new_share: float
    difference: float
    low: float | None
    high: float | None
    measured: str
    margin: float
    at_most: int
    one_look: int | None
    on_average: int | None
    pessimistic: int | None
    harms: tuple[Harm, ...]

    @property
    def target(self) -> float:
        """The difference for which bounds are made."""
        return max(abs(self.difference), self.margin)


def plan_rollout(old: Side, new: Side, margin: float) -> Plan:
    """The plan, as if live cases were like those of the report.

    Raises:
        InputError: If the two are the same.
        RunConflictError: If one of them has no scored case.
    """
    pairs = paired(old, new)
    (found,) = compare([pairs])
    if found.n:
        old_share, new_share = float(pairs.right_yes.mean()), float(pairs.left_yes.mean())
        measured = difference_text(found)
    else:
        old_share, new_share = _share(old), _share(new)
        measured = f"{signed_text(new_share - old_share)}, from cases that they do not share"
    difference = new_share - old_share
    needs = cases_to_show(old_share, new_share) if abs(difference) >= margin else None
    at_most = needs.at_most if needs else cases_to_rule_out((old_share + new_share) / 2, margin)
    return Plan(
        old=old.label,
        new=new.label,
        old_share=old_share,
        new_share=new_share,
        difference=difference,
        low=found.low,
        high=found.high,
        measured=measured,
        margin=margin,
        at_most=at_most,
        one_look=needs.one_look if needs else None,
        on_average=needs.on_average if needs else None,
        pessimistic=_pessimistic(old_share, found.low, found.high),
        harms=tuple(_harms(old, at_most)),
    )


def _share(side: Side) -> float:
    share = side.scores.metrics[PRIMARY].value
    if share is None:
        raise RunConflictError("none of its cases was scored", where=side.label, fix="Run evaluate again")
    return share


def _pessimistic(old_share: float, low: float | None, high: float | None) -> int | None:
    if low is None or high is None or low <= 0 <= high:
        return None
    smallest = low if low > 0 else high
    return cases_to_show(old_share, min(1.0, max(0.0, old_share + smallest))).at_most


def _harms(old: Side, num_cases: int) -> Iterator[Harm]:
    for name in GUARDED:
        metric = old.scores.metrics[name]
        if metric.value is None or metric.n == 0:
            continue
        share = (metric.value * metric.n + 1) / (metric.n + 2)  # one that is 0 or 1 in few cases may be neither
        of_these = max(1, num_cases * metric.n // old.scores.num_cases)
        worse_by = harm_shown(share, of_these, level=LEVEL / len(GUARDED))
        yield Harm(metric=name, old=metric.value, worse_by=min(1.0, worse_by))


def plan_lines(plan: Plan) -> list[str]:
    """The plan in sentences."""
    shares = f"{unit_text(plan.new_share)} of the cases as asked, {plan.old} {unit_text(plan.old_share)}"
    lines = [f"In the report {plan.new} answers {shares}: {plan.measured}."]
    chance = f"with a chance of {POWER:.0%} or more"
    if plan.one_look is None or plan.on_average is None:
        what = f"less than the {plan.margin:g} that matters. {counted(plan.at_most, 'live case')} of a 50/50 split show"
        lines.append(f"That is {what} that {chance}, however often you look.")
    else:
        few = f"{counted(plan.at_most, 'live case')} of a 50/50 split show it {chance}, however often you look"
        lines.append(f"{few}; on average {plan.on_average:,} do. One look at the end would take {plan.one_look:,}.")
    if plan.pessimistic is not None and plan.pessimistic > plan.at_most:
        lines.append(f"If the difference is as small as its interval allows, {plan.pessimistic:,}.")
    return lines


def harm_rows(plan: Plan) -> list[Sequence[str]]:
    """Rows of a table: metric, share in the old arm, and the harm that the plan's cases show."""
    return [
        (METRICS[harm.metric].label, unit_text(harm.old), f"{unit_text(harm.worse_by)} worse") for harm in plan.harms
    ]
