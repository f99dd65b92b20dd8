"""Latency on times small enough to reckon by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from evals.stats.latency import TimedReply, Timing, quantile, timings_of
from evals.stats.metrics import compute_metrics


def timed(adapter: str, case: str, total_s: float, *, first: float = 0.5, tokens: int = 11) -> TimedReply:
    return TimedReply(
        adapter_id=adapter,
        case_id=case,
        inputs_sha256="i",
        prompt_sha256="p",
        total_s=total_s,
        first_token_s=first,
        output_tokens=tokens,
    )


REPLIES = [
    *(timed("base", f"c{number}", 2.0 * number) for number in range(1, 8)),
    *(timed("a", f"c{number}", number) for number in range(1, 7)),
    timed("a", "c7", 28.0),  # twice as long as the base
]


def test_an_adapter_is_set_against_the_base_on_the_same_case() -> None:
    metrics = compute_metrics([], [], timings_of("a", REPLIES))
    against = metrics["latency_vs_base"]
    assert (against.value, against.n) == (0.5, 7)
    # With 7 values the interval of a median is from the smallest to the largest: 2 / 2^7 is 1.6 %.
    assert (against.low, against.high) == (0.5, 2.0)
    assert (metrics["latency_p50_s"].value, metrics["latency_p50_s"].n) == (4.0, 7)
    # Rank 0.95 * 6 = 5.7: seven tenths of the way from 6 to 28.
    assert metrics["latency_p95_s"].value == pytest.approx(21.4)
    assert metrics["latency_p95_s"].high is None
    assert metrics["latency_first_token_s"].value == 0.5


def test_the_time_of_each_further_token_leaves_out_the_first_and_the_length() -> None:
    replies = [timed("a", "c1", 2.5, first=0.5, tokens=11), timed("a", "c2", 0.7, first=0.5, tokens=2)]
    per_token = compute_metrics([], [], timings_of("a", replies))["latency_per_token_s"]
    assert per_token.value == pytest.approx(0.2)
    assert per_token.n == 2
    alone = compute_metrics([], [], timings_of("a", [timed("a", "c1", 0.5, tokens=1)]))
    assert (alone["latency_per_token_s"].n, alone["latency_p50_s"].n) == (0, 1)


def test_the_base_and_cases_that_only_one_was_timed_on_are_set_against_nothing() -> None:
    base = compute_metrics([], [], timings_of("base", REPLIES))
    assert (base["latency_vs_base"].n, base["latency_p50_s"].n) == (0, 7)
    assert base["latency_vs_base"].why == "only timed adapters are set against the base (eval.latency_cases)"
    assert timings_of("a", REPLIES[1:])[0] == Timing(REPLIES[7], None)


@given(st.integers(1, 120), st.sampled_from([0.5, 0.95]))
def test_the_interval_of_a_quantile_is_that_of_order_statistics(n: int, share: float) -> None:
    """Between the l-th and the u-th of n values, where at most 2.5 % of samples lie wholly on either side."""
    figure = quantile([float(number) for number in range(1, n + 1)], share)
    assert figure.value == pytest.approx(np.quantile(range(1, n + 1), share))
    low, high = binom.ppf(0.025, n, share), binom.ppf(0.975, n, share) + 1
    if low < 1 or high > n:
        assert (figure.low, figure.high) == (None, None)
    else:
        assert (figure.low, figure.high) == pytest.approx((low, high))
