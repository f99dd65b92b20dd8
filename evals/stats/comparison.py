"""Is the difference between two sets of replies real? Paired comparisons on the cases that both were scored on.

- **Pairs.** Both sides answered the same cases, so each case is compared with itself; a case that is unscored on either
  side is left out. Cases of one conversation depend on each other, so conversations (the case id up to its last `#`)
  are drawn and swapped, never single cases.
- **p of a share.** McNemar's exact test (McNemar, 1947). A conversation that gained or lost several cases at once
  counts with their number and takes either sign with equal chance (Fisher's randomisation test); with at most one
  case to a conversation that is McNemar's test itself.
- **p of another figure.** The same randomisation, by `scipy.stats.permutation_test`: everything of a conversation is
  swapped between the sides.
- **Interval.** Percentile bootstrap over conversations with a fixed seed. For a share one case gained and one lost are
  added first, near to what Agresti and Min (2005) add to a matched table: without them the interval has no width
  where no case differs and is too narrow where few do.
- **Several comparisons at once.** Holm (1979).

Not covered: differences that another seed of training or sampling would make, and cases that are unscored on one side
just because that side does badly on them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap, norm, permutation_test

from evals.records import Comparison, Flip, Generation, Scores
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName

LEVEL, POWER = 0.05, 0.8
"""A difference is called shown below this p; needed cases are counted for this chance of showing it."""

_SEED = 0
_RESAMPLES = 4999
_RESAMPLES_OF_PERCENTILES = 999
"""Fewer, because each of them sorts all values anew."""
_BATCH_ELEMENTS = 2_000_000

Numbers = NDArray[np.float64]
PartAndWhole = Mapping[str, tuple[float, float]]
"""For each case id, what the case adds to a figure's numerator and to its denominator."""


class Pairs(NamedTuple):
    """What two sides did on the cases they share; arrays of shape (cases,), in the order of the left side.

    A side's figure is the sum of its parts over the sum of its wholes, or a percentile of its parts. `is_share` says
    that every part is a yes (1) or a no (0) and every whole is 1.
    """

    metric: MetricName
    left: str
    right: str
    is_share: bool
    case_ids: tuple[str, ...]
    left_part: Numbers
    left_whole: Numbers
    right_part: Numbers
    right_whole: Numbers


def compare_scores(left: Scores, right: Scores, metric: MetricName) -> Comparison:
    """One comparison alone; `compare` is for several that are made together."""
    return compare([pair_verdicts(left, right, metric)])[0]


def compare(questions: Sequence[Pairs]) -> tuple[Comparison, ...]:
    """Compare both sides of each pair; `p_adjusted` and `num_cases_needed` allow for all that are asked together.

    `gained` and `lost` count what is better and worse on the left, whichever way the metric runs, while `difference` is
    the left figure minus the right one. Both counts are 0 where the metric is no share of cases. Without a shared case
    every figure is None.
    """
    num_comparable = sum(_is_comparable(pairs) for pairs in questions)
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
    """The pairs of a metric over cases.

    Raises:
        ValueError: If the metric is about replies: latencies and lengths need `pair_replies`.
    """
    row = METRICS[metric]
    sides = []
    for side in (left, right):
        found = {verdict.case_id: row.part_and_whole(verdict) for verdict in side.verdicts}
        counted = {case_id: (float(pair[0]), float(pair[1])) for case_id, pair in found.items() if pair is not None}
        sides.append((side.adapter_id, counted))
    return _pair(metric, sides[0], sides[1])


def pair_replies(
    left: tuple[str, Sequence[Generation]], right: tuple[str, Sequence[Generation]], metric: MetricName
) -> Pairs:
    """The pairs of latency or output tokens, from each side's adapter id and replies.

    Raises:
        ValueError: If the metric is about verdicts.
    """
    sides = [
        (adapter_id, {case_id: (float(value), 1.0) for case_id, value in METRICS[metric].values(replies)})
        for adapter_id, replies in (left, right)
    ]
    return _pair(metric, sides[0], sides[1])


def _pair(metric: MetricName, left: tuple[str, PartAndWhole], right: tuple[str, PartAndWhole]) -> Pairs:
    (left_id, ours), (right_id, theirs) = left, right
    shared = tuple(case_id for case_id in ours if case_id in theirs)
    rows = [[*ours[case_id], *theirs[case_id]] for case_id in shared]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Pairs(metric, left_id, right_id, METRICS[metric].outcome is not None, shared, *columns)


class _Finding(NamedTuple):
    """The computed fields of a comparison, named as in `Comparison`."""

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    method: str
    num_cases_needed: int | None


def _compare(pairs: Pairs, *, level: float) -> Comparison:
    flips = _flips(pairs)
    gained = sum(flip.left_correct for flip in flips)
    if not _is_comparable(pairs):
        finding = _Finding(None, None, None, None, "not compared: no case was scored for both", None)
    elif pairs.is_share:
        finding = _find_share(pairs, flips, level=level)
    else:
        finding = _find_figure(pairs, level=level)
    return Comparison(
        metric=pairs.metric,
        left=pairs.left,
        right=pairs.right,
        n=len(pairs.case_ids),
        gained=gained,
        lost=len(flips) - gained,
        p_adjusted=None,
        flips=flips,
        **finding._asdict(),
    )


def _is_comparable(pairs: Pairs) -> bool:
    return bool(pairs.left_whole.sum() > 0 and pairs.right_whole.sum() > 0)


def _flips(pairs: Pairs) -> tuple[Flip, ...]:
    if not pairs.is_share:
        return ()
    sign = 1 if METRICS[pairs.metric].higher_is_better else -1
    leads = sign * (pairs.left_part - pairs.right_part)
    return tuple(
        Flip(case_id=case_id, left_correct=bool(lead > 0))
        for case_id, lead in zip(pairs.case_ids, leads, strict=True)
        if lead != 0
    )


def _find_share(pairs: Pairs, flips: Sequence[Flip], *, level: float) -> _Finding:
    by_conversation: Counter[str] = Counter()
    for flip in flips:
        by_conversation[conversation_of(flip.case_id)] += 1 if flip.left_correct else -1
    leads, n = list(by_conversation.values()), len(pairs.case_ids)
    gained = sum(flip.left_correct for flip in flips)
    needed = num_cases_needed(
        gained / n,
        (len(flips) - gained) / n,
        level=level,
        design_effect=sum(lead * lead for lead in leads) / max(1, len(flips)),
    )
    num_conversations = len(set(_conversation_codes(pairs)))
    low, high, _ = _bootstrap(_with_one_gained_and_one_lost(pairs))
    difference = float(pairs.left_part.mean() - pairs.right_part.mean())
    method = f"McNemar's exact test over {num_conversations} conversations, bootstrap interval"
    return _Finding(difference, low, high, sign_flip_p(leads), method, needed)


def _find_figure(pairs: Pairs, *, level: float) -> _Finding:
    sides = _Sides.of(pairs)
    difference = float(sides.difference(sides.left_rows, sides.right_rows))
    low, high, standard_error = _bootstrap(pairs)
    needed = None
    if difference != 0 and standard_error is not None:
        reach = (norm.ppf(1 - level / 2) + norm.ppf(POWER)) * standard_error / difference
        needed = int(np.ceil(len(pairs.case_ids) * reach**2))
    method = f"randomisation test over {len(sides.left_rows)} conversations, bootstrap interval"
    return _Finding(difference, low, high, _swap_p(sides), method, needed)


def _conversation_codes(pairs: Pairs) -> list[int]:
    codes: dict[str, int] = {}
    return [codes.setdefault(conversation_of(case_id), len(codes)) for case_id in pairs.case_ids]


def _with_one_gained_and_one_lost(pairs: Pairs) -> Pairs:
    # By id, so that with the sides exchanged the draws are the same and the interval is exactly mirrored.
    first, second = ([1.0, 0.0], [0.0, 1.0]) if pairs.left < pairs.right else ([0.0, 1.0], [1.0, 0.0])
    return pairs._replace(
        case_ids=(*pairs.case_ids, "\0first", "\0second"),  # no id of the data
        left_part=np.append(pairs.left_part, first),
        left_whole=np.append(pairs.left_whole, [1.0, 1.0]),
        right_part=np.append(pairs.right_part, second),
        right_whole=np.append(pairs.right_whole, [1.0, 1.0]),
    )


class _Sides(NamedTuple):
    """One row for each conversation and side, as rows are what is drawn and swapped.

    `parts` and `wholes` are sums, of shape (rows,); `values` are all parts of a row.
    """

    left_rows: NDArray[np.intp]
    right_rows: NDArray[np.intp]
    parts: Numbers
    wholes: Numbers
    values: list[Numbers]
    percentile: float | None

    @classmethod
    def of(cls, pairs: Pairs) -> "_Sides":
        codes = np.array(_conversation_codes(pairs))
        num = int(codes.max()) + 1
        rows = np.concatenate([codes, codes + num])
        parts = np.concatenate([pairs.left_part, pairs.right_part])
        wholes = np.concatenate([pairs.left_whole, pairs.right_whole])
        percentile = METRICS[pairs.metric].percentile
        return cls(
            left_rows=np.arange(num),
            right_rows=np.arange(num, 2 * num),
            parts=np.bincount(rows, parts).astype(np.float64),
            wholes=np.bincount(rows, wholes).astype(np.float64),
            values=[parts[rows == row] for row in range(2 * num)] if percentile is not None else [],
            percentile=percentile,
        )

    def difference(self, left: NDArray[np.intp], right: NDArray[np.intp], axis: int = -1) -> Numbers:
        """The figure of some rows less that of others."""
        return self._figure(left, axis) - self._figure(right, axis)

    def _figure(self, rows: NDArray[np.intp], axis: int) -> Numbers:
        if self.percentile is not None:
            return np.asarray(np.percentile(np.concatenate([self.values[row] for row in rows]), self.percentile))
        parts: Numbers = self.parts[rows].sum(axis=axis)
        wholes: Numbers = self.wholes[rows].sum(axis=axis)
        # A draw of conversations in which nothing was given has no precision; it counts as 0.
        return np.divide(parts, wholes, out=np.zeros_like(wholes), where=wholes > 0)

    def settings(self) -> dict[str, Any]:
        """How scipy is to resample: the seed is fixed, and memory stays bounded."""
        is_percentile = self.percentile is not None
        return {
            "n_resamples": _RESAMPLES_OF_PERCENTILES if is_percentile else _RESAMPLES,
            "vectorized": not is_percentile,
            "batch": max(1, _BATCH_ELEMENTS // len(self.parts)),
            "rng": np.random.default_rng(_SEED),
        }


def _bootstrap(pairs: Pairs) -> tuple[float | None, float | None, float | None]:
    """Low, high and standard error of the difference; all None where a single conversation leaves nothing to draw."""
    sides = _Sides.of(pairs)
    if len(sides.left_rows) < 2:
        return None, None, None
    data = (sides.left_rows, sides.right_rows)
    drawn = bootstrap(data, sides.difference, paired=True, method="percentile", **sides.settings())
    interval = drawn.confidence_interval
    return float(interval.low), float(interval.high), float(drawn.standard_error)


def _swap_p(sides: _Sides) -> float:
    if len(sides.left_rows) < 2:
        return 1.0
    data = (sides.left_rows, sides.right_rows)
    return float(permutation_test(data, sides.difference, permutation_type="samples", **sides.settings()).pvalue)
