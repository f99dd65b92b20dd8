import math

from hypothesis import given
from hypothesis import strategies as st

from evals.records import AdapterSummary, Metric
from evals.winner import decide_winner, rank_adapters


def wilson(successes: int, n: int) -> Metric:
    z = 1.959964
    share, scale = successes / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return Metric(value=share, n=n, low=middle - half, high=middle + half)


def entry(name: str, calls: int, refusals: int, eval_loss: float | None) -> AdapterSummary:
    return AdapterSummary(
        id=name,
        is_base=name == "base",
        hyperparameters={},
        eval_loss=eval_loss,
        metrics={"tool_call_accuracy": wilson(calls, 100), "refusal_accuracy": wilson(refusals, 50)},
    )


def score(summary: AdapterSummary) -> float:
    values = [metric.value for metric in summary.metrics.values() if metric.value is not None]
    return sum(values) / len(values)


figures = st.tuples(st.integers(0, 100), st.integers(0, 50), st.floats(0.01, 5))
fields = st.lists(figures, min_size=1, max_size=5)


@given(fields, st.integers(0, 100), st.integers(0, 50))
def test_winner_is_above_the_base_and_exists_exactly_when_some_adapter_is(
    field: list[tuple[int, int, float]], calls: int, refusals: int
) -> None:
    adapters = [entry(f"a{index}", *figure) for index, figure in enumerate(field)]
    base = entry("base", calls, refusals, None)
    verdict = decide_winner(adapters, base)
    above = {adapter.id for adapter in adapters if score(adapter) > score(base)}
    assert (verdict.winner is not None) == bool(above)
    assert verdict.winner is None or verdict.winner in above
    assert verdict.reason.endswith(".")


@given(fields)
def test_the_order_in_which_adapters_are_given_changes_nothing(field: list[tuple[int, int, float]]) -> None:
    adapters = [entry(f"a{index}", *figure) for index, figure in enumerate(field)]
    base = entry("base", 10, 5, None)
    backwards = adapters[::-1]
    assert rank_adapters(adapters, base) == rank_adapters(backwards, base)
    assert decide_winner(adapters, base).winner == decide_winner(backwards, base).winner


def test_mean_of_two_metrics_needs_less_distance_than_either_alone() -> None:
    """Both metrics overlap on their own; their mean, with more cases behind it, does not."""
    better, worse = entry("a", 70, 40, 0.9), entry("b", 57, 30, 0.1)
    for name in better.metrics:
        low, high = better.metrics[name].low, worse.metrics[name].high
        assert low is not None and high is not None and low < high  # noqa: PT018 - one claim, narrowed for the types
    assert decide_winner([better, worse], None).winner == "a"


def test_equal_eval_losses_leave_the_higher_score() -> None:
    verdict = decide_winner([entry("a", 60, 40, 0.5), entry("b", 61, 40, 0.5)], entry("base", 0, 0, None))
    assert verdict.winner == "b"
    assert "no eval loss is lower; the higher score was taken" in verdict.reason


def test_unknown_eval_loss_is_never_the_lower_one() -> None:
    verdict = decide_winner([entry("a", 61, 40, None), entry("b", 60, 40, 0.5)], entry("base", 0, 0, None))
    assert verdict.winner == "b"
    assert "(0.5 against unknown)" in verdict.reason
