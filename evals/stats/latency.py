"""Latency from replies that were timed alone: what an adapter's times are set against, and figures of them.

The base and every adapter replied to the same cases, so each adapter's time is compared with the base's on the same
case. Intervals are those of order statistics, which assume nothing about how times are distributed; where there are
too few cases for one, as for a 95th percentile of fewer than 72, there is none.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import quantile_test

from evals.records import Metric, TimedReply
from orchestrator.core.records import BASE_ADAPTER_ID


class Timing(NamedTuple):
    """An adapter's timed reply to a case, and the base's to the same one; None for the base itself."""

    reply: TimedReply
    base: TimedReply | None = None

    @property
    def ratio(self) -> float | None:
        """The adapter's seconds for each of the base's."""
        return self.reply.total_s / self.base.total_s if self.base else None


def timings_of(adapter_id: str, replies: Iterable[TimedReply]) -> list[Timing]:
    """One adapter's timings among those of all."""
    by_adapter: dict[str, dict[str, TimedReply]] = {}
    for reply in replies:
        by_adapter.setdefault(reply.adapter_id, {})[reply.case_id] = reply
    base = {} if adapter_id == BASE_ADAPTER_ID else by_adapter.get(BASE_ADAPTER_ID, {})
    return [Timing(reply, base.get(case_id)) for case_id, reply in by_adapter.get(adapter_id, {}).items()]


def quantile(values: Sequence[float], share: float) -> Metric:
    """The value below which a `share` of the values lie, between the two closest ranks, with its 95 % interval."""
    value = float(np.quantile(values, share))
    bounds = quantile_test(values, q=value, p=share).confidence_interval(0.95)
    if np.isnan(bounds.low) or np.isnan(bounds.high):
        return Metric(value=value, n=len(values), low=None, high=None)
    return Metric(value=value, n=len(values), low=float(bounds.low), high=float(bounds.high))
