"""What logged outcomes say: not yet, better, worse, or no difference that matters.

Success decides. The other metrics are guards: a new one that is shown to be worse on one of them is worse. Success has
the whole level (5 %), the guards share another 5 %. Latencies are compared by their geometric means, as a ratio.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from evals.report.text import signed_text
from evals.rollout.outcomes import NEW, OLD, ArmName, Outcome
from evals.rollout.plan import MARGIN, Plan
from evals.stats.comparison import LEVEL
from evals.stats.sequential import MIN_UNITS, SPLIT_LEVEL, Arms, Bounds, cases_wanted, difference_bounds, split_is_off
from orchestrator.core.records import Record
from orchestrator.core.text import counted, unit_text

LATENCY_MARGIN = 1.1
"""A latency that is less than this times the other's does not matter."""

State = Literal["not_yet", "better", "worse", "no_difference_that_matters"]
WORDS: dict[State, str] = {
    "not_yet": "not yet",
    "better": "better",
    "worse": "worse",
    "no_difference_that_matters": "no difference that matters",
}


class _Row(NamedTuple):
    """A metric of the log: its label, its value in an outcome (None: it has none), and which way is better."""

    name: str
    label: str
    value: Callable[[Outcome], float | None]
    higher_is_better: bool = False
    is_ratio: bool = False


def _log(value: float | None) -> float | None:
    return None if value is None else math.log(value)


SUCCESS = _Row("success", "Answered as asked", lambda outcome: outcome.success, higher_is_better=True)
GUARDS = (
    _Row("over_refusal", "Refused and should not be", lambda outcome: outcome.over_refusal),
    _Row("invalid_call", "Invalid call", lambda outcome: outcome.invalid_call),
    _Row("latency_s", "Latency, typical", lambda outcome: _log(outcome.latency_s), is_ratio=True),
)


_ROWS = {row.name: row for row in (SUCCESS, *GUARDS)}


class Arm(Record):
    """One metric in both arms. For `latency_s` the arms are geometric means in seconds, and the difference is a ratio.

    `low` and `high` bound the difference, new minus old, at every look; None with fewer than 30 users or conversations
    in an arm.
    """

    metric: str
    n_old: int
    n_new: int
    old: float | None
    new: float | None
    difference: float | None
    low: float | None
    high: float | None
    state: State


class Rollout(Record):
    """What a log says. `waiting` are outcomes whose success is not known yet; `more_cases` about settle it."""

    state: State
    metrics: tuple[Arm, ...]
    waiting_old: int
    waiting_new: int
    more_cases: int | None
    warnings: tuple[str, ...]


def judge_log(outcomes: Sequence[Outcome], plan: Plan) -> Rollout:
    """The verdict of the outcomes so far, with bounds that were made for what the plan expects."""
    bounds = _bounds(SUCCESS, outcomes, target=plan.target, level=LEVEL)
    metrics = [_arm(SUCCESS, bounds, plan.margin)]
    for row in GUARDS:
        margin = math.log(LATENCY_MARGIN) if row.is_ratio else plan.margin
        found = _bounds(row, outcomes, target=margin, level=LEVEL / len(GUARDS))
        if found.n_old or found.n_new:
            metrics.append(_arm(row, found, margin))
    state = "worse" if any(metric.state == "worse" for metric in metrics) else metrics[0].state
    waiting = [sum(o.success is None for o in outcomes if o.arm == arm) for arm in (OLD, NEW)]
    return Rollout(
        state=state,
        metrics=tuple(metrics),
        waiting_old=waiting[0],
        waiting_new=waiting[1],
        more_cases=cases_wanted(bounds, plan.margin, plan.target) if state == "not_yet" else None,
        warnings=tuple(_warnings(outcomes)),
    )


def _bounds(row: _Row, outcomes: Sequence[Outcome], *, target: float, level: float) -> Bounds:
    known = [(value, outcome) for outcome in outcomes if (value := row.value(outcome)) is not None]
    codes: dict[tuple[str, bool], int] = {}
    units = [codes.setdefault(_unit(outcome), len(codes)) for _, outcome in known]
    arms = Arms(
        np.array([value for value, _ in known], dtype=np.float64),
        np.array([outcome.arm == NEW for _, outcome in known], dtype=np.bool_),
        np.array(units, dtype=np.intp),
    )
    return difference_bounds(arms, target=target, is_share=not row.is_ratio, level=level)


def _unit(outcome: Outcome) -> tuple[str, bool]:
    """The user or conversation, or the request itself, whose id may be some user's too."""
    return (outcome.id, False) if outcome.unit is None else (outcome.unit, True)


def _arm(row: _Row, found: Bounds, margin: float) -> Arm:
    difference = None if found.old is None or found.new is None else found.new - found.old
    shown: Callable[[float | None], float | None] = (
        (lambda value: None if value is None else math.exp(value)) if row.is_ratio else (lambda value: value)
    )
    return Arm(
        metric=row.name,
        n_old=found.n_old,
        n_new=found.n_new,
        old=shown(found.old),
        new=shown(found.new),
        difference=shown(difference),
        low=shown(found.low),
        high=shown(found.high),
        state=_state(found, margin, higher_is_better=row.higher_is_better),
    )


def _state(found: Bounds, margin: float, *, higher_is_better: bool) -> State:
    if found.low is None or found.high is None:
        return "not_yet"
    if -margin < found.low and found.high < margin:
        return "no_difference_that_matters"
    if found.low <= 0 <= found.high:
        return "not_yet"
    return "better" if (found.low > 0) == higher_is_better else "worse"


def _warnings(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """What makes the arms no fair comparison."""
    sides: dict[tuple[str, bool], set[ArmName]] = {}
    for outcome in outcomes:
        sides.setdefault(_unit(outcome), set()).add(outcome.arm)
    by_request = any(len(arms) > 1 for arms in sides.values())  # then requests were split, else users
    counts = (
        Counter(outcome.arm for outcome in outcomes) if by_request else Counter(min(arms) for arms in sides.values())
    )
    if split_is_off(counts[OLD], counts[NEW]):
        what = "requests" if by_request else "users, conversations or requests"
        both = f"{counts[OLD]:,} and {counts[NEW]:,} {what} are no 50/50 split"
        yield f"{both}. Find out what is lost or sent elsewhere before you trust the verdict."
    waiting = _Row("waiting", "", lambda outcome: outcome.success is None)
    found = _bounds(waiting, outcomes, target=MARGIN, level=SPLIT_LEVEL)
    if found.low is not None and found.high is not None and not found.low <= 0 <= found.high:
        yield "The arms wait for outcomes unequally often, so the outcomes that are known may be other ones in each."


def verdict_lines(found: Rollout, plan: Plan) -> list[str]:
    """The verdict in sentences."""
    success = found.metrics[0]
    lines = [f"Verdict: {WORDS[found.state]}."]
    if success.difference is None or success.low is None or success.high is None:
        lines.append(f"At least {MIN_UNITS} users or conversations with a known success are needed in each arm.")
    else:
        bounds = f"{signed_text(success.low)} to {signed_text(success.high)}"
        told = f"{plan.new} answers {signed_text(success.difference)} more of the cases as asked than {plan.old}"
        lines.append(f"{told} ({bounds} at every look; {plan.margin:g} matters).")
    worse = [_ROWS[metric.metric].label for metric in found.metrics[1:] if metric.state == "worse"]
    lines += [f"It is worse on: {', '.join(worse)}."] if worse else []
    if found.more_cases is not None:
        more = f"About {counted(found.more_cases, 'more case')} like these will settle it"
        near = "More cases than planned are there: the difference is near to what matters, and may stay open"
        lines.append(f"{more if found.more_cases else near}.")
    if found.waiting_old + found.waiting_new:
        lines.append(f"Not known yet: {found.waiting_old:,} successes of {OLD}, {found.waiting_new:,} of {NEW}.")
    return [*lines, *(f"Beware: {warning}" for warning in found.warnings)]


TABLE_HEAD = ("metric", OLD, NEW, "difference", "bounds", "")


def verdict_rows(found: Rollout) -> list[Sequence[str]]:
    """Rows of a table of what was logged of each metric."""
    return [_cells(arm, is_ratio=_ROWS[arm.metric].is_ratio) for arm in found.metrics]


def _cells(arm: Arm, *, is_ratio: bool) -> Sequence[str]:
    def mean(value: float | None, count: int) -> str:
        return "none" if value is None else f"{f'{value:.3g} s' if is_ratio else unit_text(value)} (n={count:,})"

    def change(value: float | None) -> str:
        return "" if value is None else f"{value:.2f} x" if is_ratio else signed_text(value)

    bounds = "" if arm.low is None else f"{change(arm.low)} to {change(arm.high)}"
    label = _ROWS[arm.metric].label
    return label, mean(arm.old, arm.n_old), mean(arm.new, arm.n_new), change(arm.difference), bounds, WORDS[arm.state]
