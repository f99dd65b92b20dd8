"""Figures over verdicts, defined in `docs/metrics.md` and computed nowhere else."""

import math
import statistics
from collections.abc import Iterable, Sequence

from evals.records import CellName, Generation, Metric, Verdict
from evals.stats.outcomes import CELL_OUTCOMES, SHARE_OUTCOMES
from orchestrator.core.records import MetricName

Z_95 = 1.96
"""Standard deviations of a normal distribution on either side that hold 95 %."""


def wilson_interval(successes: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval (low, high) of a share, within 0..1.

    Raises:
        ValueError: If `n` is below 1 or `successes` is not within 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: n must be at least 1 and successes within 0..n")
    share, spread = successes / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    # At the ends the interval touches 0 or 1 exactly; rounding must not move it past the share it encloses.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def compute_metrics(verdicts: Sequence[Verdict], generations: Sequence[Generation]) -> dict[MetricName, Metric]:
    """Every metric of the project over one adapter's verdicts and replies.

    Cases that were not scored are in no figure, and neither are generations without a reply. A metric over no cases has
    None for its value and bounds.
    """
    scored = [verdict for verdict in verdicts if is_scored(verdict)]
    shares = {name: _rate(map(outcome, scored)) for name, outcome in SHARE_OUTCOMES.items()}
    return {**shares, **_argument_metrics(scored), **_reply_metrics(generations)}


def compute_cells(verdicts: Sequence[Verdict]) -> dict[CellName, Metric]:
    """The four demands beside tool calls, each over the scored cases that carry its tag."""
    scored = [verdict for verdict in verdicts if is_scored(verdict)]
    return {name: _rate(map(outcome, scored)) for name, outcome in CELL_OUTCOMES.items()}


def is_scored(verdict: Verdict) -> bool:
    """Whether the case got a reply that was judged."""
    return verdict.correct is not None


def _argument_metrics(scored: Sequence[Verdict]) -> dict[MetricName, Metric]:
    tool_calls = [verdict for verdict in scored if verdict.kind == "tool_call"]
    right = sum(verdict.arguments_right for verdict in tool_calls)
    return {
        "argument_recall": _share(right, sum(verdict.arguments_expected for verdict in tool_calls)),
        "argument_precision": _share(right, sum(verdict.arguments_given for verdict in tool_calls)),
    }


def _reply_metrics(generations: Sequence[Generation]) -> dict[MetricName, Metric]:
    replies = [generation for generation in generations if generation.has_reply]
    latencies_s = [generation.latency_s for generation in replies if generation.latency_s is not None]
    lengths = [generation.output_tokens for generation in replies if generation.output_tokens is not None]
    return {
        "latency_p50_s": _percentile(latencies_s, 0.50),
        "latency_p95_s": _percentile(latencies_s, 0.95),
        "output_tokens_mean": _mean(lengths),
    }


def _rate(outcomes: Iterable[bool | None]) -> Metric:
    """The share of yes among the cases that a share is over."""
    counted = [outcome for outcome in outcomes if outcome is not None]
    return _share(sum(counted), len(counted))


def _share(successes: int, n: int) -> Metric:
    if n == 0:
        return _unscored()
    low, high = wilson_interval(successes, n)
    return Metric(value=successes / n, n=n, low=low, high=high)


def _percentile(values: Sequence[float], share: float) -> Metric:
    """Linear interpolation between the two closest ranks."""
    if not values:
        return _unscored()
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return Metric(value=below + (above - below) * (rank - math.floor(rank)), n=len(ordered), low=None, high=None)


def _mean(values: Sequence[int]) -> Metric:
    if not values:
        return _unscored()
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Metric(value=mean, n=1, low=None, high=None)
    half = Z_95 * statistics.stdev(values) / math.sqrt(len(values))
    return Metric(value=mean, n=len(values), low=mean - half, high=mean + half)


def _unscored() -> Metric:
    return Metric(value=None, n=0, low=None, high=None)
