"""Is the difference between two sets of replies real? Paired comparisons on the cases that both were scored on.

- **Pairs.** Both sides answered the same cases, so each case is compared with itself; a case that is unscored on either
  side is left out. Cases of one conversation depend on each other, so conversations (the case id up to its last `#`)
  are the unit, never single cases.
- **p.** McNemar's exact test (McNemar, 1947). A conversation that gained or lost several cases at once counts with
  their number and takes either sign with equal chance (Fisher's randomisation test); with at most one case to a
  conversation that is McNemar's test itself.
- **Interval.** Percentile bootstrap over conversations with a fixed seed. One case gained and one lost are added first,
  near to what Agresti and Min (2005) add to a matched table: without them the interval has no width where no case
  differs and is too narrow where few do.
- **Several comparisons at once.** Holm (1979).

Not covered: figures that are no share of cases (latency, lengths, arguments), differences that another seed of training
or sampling would make, and cases that are unscored on one side just because that side does badly on them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, norm

from evals.records import Comparison, Flip, Scores
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted

LEVEL, POWER = 0.05, 0.8
"""A difference is called shown below this p; needed cases are counted for this chance of showing it."""

_SEED, _RESAMPLES, _BATCH_ELEMENTS = 0, 4999, 2_000_000

Numbers = NDArray[np.float64]


class Pairs(NamedTuple):
    """What two sides did on the cases they share: 1 for a yes, 0 for a no, of shape (cases,), in the left side's order.

    A side's figure is the mean.
    """

    metric: MetricName
    left: str
    right: str
    case_ids: tuple[str, ...]
    left_yes: Numbers
    right_yes: Numbers


def compare(questions: Sequence[Pairs]) -> tuple[Comparison, ...]:
    """Compare both sides of each pair; `p_adjusted` and `num_cases_needed` allow for all that are asked together.

    `gained` and `lost` count what is better and worse on the left, whichever way the metric runs, while `difference` is
    the left figure minus the right one. Without a shared case every figure is None.
    """
    num_comparable = sum(bool(pairs.case_ids) for pairs in questions)
    found = [_compare(pairs, level=LEVEL / max(1, num_comparable)) for pairs in questions]
    adjusted = holm([comparison.p_value for comparison in found])
    return tuple(
        comparison.model_copy(
            update={
                "p_adjusted": p_adjusted,
                "num_cases_needed": None if p_adjusted is None or p_adjusted < LEVEL else comparison.num_cases_needed,
            }
        )
        for comparison, p_adjusted in zip(found, adjusted, strict=True)
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None, a comparison that could not be made, is not counted as one."""
    known = sorted((p_value, place) for place, p_value in enumerate(p_values) if p_value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p_value, place) in enumerate(known):
        largest = max(largest, min(1.0, p_value * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted


def num_cases_needed(gained: float, lost: float, *, level: float = LEVEL, design_effect: float = 1.0) -> int | None:
    """About how many cases McNemar's test needs to show a difference of this size with a chance of `POWER`.

    The unconditional normal approximation of Miettinen (1968) in the form of Connor (1987), "Sample size for testing
    differences in proportions for the paired-sample design", Biometrics 43, 207-211.

    Args:
        gained: The share of all cases that only the left side got right.
        lost: The share that only the right side got right.
        level: Two-sided level of the test.
        design_effect: How many times the variance of independent cases the difference has.

    Returns:
        None without a difference.
    """
    differing, difference = gained + lost, abs(gained - lost)
    if difference == 0:
        return None
    z_level, z_power = norm.ppf(1 - level / 2), norm.ppf(POWER)
    reach = z_level * np.sqrt(differing) + z_power * np.sqrt(max(0.0, differing - difference**2))
    return int(np.ceil(design_effect * (reach / difference) ** 2))


def sign_flip_p(leads: Sequence[int]) -> float:
    """Two-sided p of leads (cases gained less cases lost, one number a conversation) that had either sign by chance.

    McNemar's exact test where no lead is larger than one case.
    """
    sizes = [abs(lead) for lead in leads if lead]
    if not sizes:
        return 1.0
    if max(sizes) == 1:
        return float(binomtest(sum(lead > 0 for lead in leads), len(sizes)).pvalue)
    chances = np.ones(1)  # of each sum of the sizes that got a plus
    for size in sizes:
        chances = (np.pad(chances, (size, 0)) + np.pad(chances, (0, size))) / 2
    sums = 2 * np.arange(len(chances)) - sum(sizes)
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(leads))].sum()))


def conversation_of(case_id: str) -> str:
    """The conversation that a case is a turn of: its id up to the last `#`."""
    return case_id.rpartition("#")[0] or case_id


def pair_verdicts(left: Scores, right: Scores, metric: MetricName) -> Pairs:
    """The cases that both sides were scored on.

    Raises:
        ValueError: If the metric is no share of cases.
    """
    row = METRICS[metric]
    if row.outcome is None:
        raise ValueError(f"{metric} is no share of cases, so it cannot be compared case by case")
    counted = ({verdict.case_id: row.part_and_whole(verdict) for verdict in side.verdicts} for side in (left, right))
    ours, theirs = ({case_id: pair[0] for case_id, pair in found.items() if pair} for found in counted)
    shared = tuple(case_id for case_id in ours if case_id in theirs)
    yes = (np.array([side[case_id] for case_id in shared], dtype=np.float64) for side in (ours, theirs))
    return Pairs(metric, left.adapter_id, right.adapter_id, shared, *yes)


def _compare(pairs: Pairs, *, level: float) -> Comparison:
    flips, n = _flips(pairs), len(pairs.case_ids)
    gained = sum(flip.left_correct for flip in flips)
    lost = len(flips) - gained
    difference = low = high = p_value = needed = None
    method = "not compared: no case was scored for both"
    if n:
        by_conversation: Counter[str] = Counter()
        for flip in flips:
            by_conversation[conversation_of(flip.case_id)] += 1 if flip.left_correct else -1
        leads = list(by_conversation.values())
        design_effect = sum(lead * lead for lead in leads) / max(1, len(flips))
        needed = num_cases_needed(gained / n, lost / n, level=level, design_effect=design_effect)
        difference, p_value = float(pairs.left_yes.mean() - pairs.right_yes.mean()), sign_flip_p(leads)
        low, high = _interval(pairs)
        num_conversations = len(set(map(conversation_of, pairs.case_ids)))
        method = f"McNemar's exact test over {counted(num_conversations, 'conversation')}, bootstrap interval"
    return Comparison(
        metric=pairs.metric,
        left=pairs.left,
        right=pairs.right,
        n=n,
        gained=gained,
        lost=lost,
        difference=difference,
        low=low,
        high=high,
        p_value=p_value,
        p_adjusted=None,
        method=method,
        num_cases_needed=needed,
        flips=flips,
    )


def _flips(pairs: Pairs) -> tuple[Flip, ...]:
    sign = 1 if METRICS[pairs.metric].higher_is_better else -1
    leads = sign * (pairs.left_yes - pairs.right_yes)
    return tuple(
        Flip(case_id=case_id, left_correct=bool(lead > 0))
        for case_id, lead in zip(pairs.case_ids, leads, strict=True)
        if lead != 0
    )


def _interval(pairs: Pairs) -> tuple[float, float]:
    """Low and high of the difference, with one case gained and one lost added as conversations of their own."""
    # By id, so that with the sides exchanged the draws are the same and the interval is exactly mirrored.
    first, second = ([1, 0], [0, 1]) if pairs.left < pairs.right else ([0, 1], [1, 0])
    names = [*map(conversation_of, pairs.case_ids), "\0first", "\0second"]  # no ids of the data
    codes: dict[str, int] = {}
    rows = [codes.setdefault(name, len(codes)) for name in names]
    left = np.bincount(rows, np.append(pairs.left_yes, first))
    right = np.bincount(rows, np.append(pairs.right_yes, second))
    sizes = np.bincount(rows)

    def difference(drawn: NDArray[np.intp], axis: int) -> Numbers:
        num_cases = sizes[drawn].sum(axis=axis)
        return np.asarray(left[drawn].sum(axis=axis) / num_cases - right[drawn].sum(axis=axis) / num_cases)

    drawn = bootstrap(
        (np.arange(len(codes)),),
        difference,
        method="percentile",
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH_ELEMENTS // (2 * len(codes))),
        rng=np.random.default_rng(_SEED),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)
