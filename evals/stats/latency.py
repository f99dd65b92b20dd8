"""Latency and memory from replies that were timed alone: what an adapter's are set against, and figures of them.

The base and every adapter replied to the same cases, so each adapter's time is compared with the base's on the same
case. Intervals are those of order statistics, which assume nothing about how times are distributed; where there are
too few cases for one, as for a 95th percentile of fewer than 72, there is none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import bootstrap, quantile_test

from evals.records import Metric
from orchestrator.core.records import BASE_ADAPTER_ID, Record


class TimedReply(Record):
    """How long one case took, asked alone. Produced by `evaluate/timing`, one line of `evals/latency.jsonl`.

    `total_s` is from asking to the last token, `first_token_s` to the first. `inputs_sha256` and `prompt_sha256` are
    those of the adapter's `EngineRecord` and of a `Generation`. `peak_memory_bytes` is what the engine held at most
    meanwhile; None where the system does not tell, and in records of earlier versions.
    """

    adapter_id: str
    case_id: str
    inputs_sha256: str
    prompt_sha256: str
    total_s: float = Field(gt=0, allow_inf_nan=False)
    first_token_s: float = Field(ge=0, allow_inf_nan=False)
    output_tokens: int = Field(ge=1)
    peak_memory_bytes: int | None = Field(default=None, ge=1)

    @property
    def peak_memory_gib(self) -> float | None:
        """The peak in GiB."""
        return None if self.peak_memory_bytes is None else self.peak_memory_bytes / 2**30

    @property
    def per_token_s(self) -> float | None:
        """Seconds for each token after the first; None where there is no other."""
        return (self.total_s - self.first_token_s) / (self.output_tokens - 1) if self.output_tokens > 1 else None


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


def quantile_ratio(
    ours: Mapping[str, float], theirs: Mapping[str, float], share: float, *, is_paired: bool
) -> tuple[float, float] | None:
    """95 % interval of the ratio of two quantiles, values by case; None where either has no interval itself.

    Percentile bootstrap with a fixed seed: over the shared cases, or where those of two runs are not paired over each
    side's own.
    """
    keys = [key for key in ours if key in theirs]
    data = [[side[key] for key in keys] if is_paired else list(side.values()) for side in (ours, theirs)]
    if any(not side or quantile(side, share).low is None or quantile(side, share).high is None for side in data):
        return None

    def ratio(one: NDArray[np.float64], other: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray(np.quantile(one, share, axis=axis) / np.quantile(other, share, axis=axis))

    rng = np.random.default_rng(0)
    found = bootstrap(data, ratio, paired=is_paired, method="percentile", n_resamples=1999, rng=rng).confidence_interval
    return float(found.low), float(found.high)


def quantile(values: Sequence[float], share: float) -> Metric:
    """The value below which a `share` of the values lie, between the two closest ranks, with its 95 % interval.

    The largest, of a share of 1, has none.
    """
    value = float(np.quantile(values, share))
    if share == 1:
        return Metric(value=value, n=len(values), low=None, high=None)
    bounds = quantile_test(values, q=value, p=share).confidence_interval(0.95)
    if np.isnan(bounds.low) or np.isnan(bounds.high):
        return Metric(value=value, n=len(values), low=None, high=None)
    return Metric(value=value, n=len(values), low=float(bounds.low), high=float(bounds.high))
