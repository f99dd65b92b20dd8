import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.records import AdapterSummary, Metric
from evals.report_charts import BAR_LEFT, BAR_RIGHT, interval_pictures, make_axis


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=8), st.booleans())
def test_values_and_ticks_lie_on_the_axis_in_order(values: list[float], log: bool) -> None:
    axis = make_axis(values, 50.0, 400.0, log=log)
    positions = [axis.at(value) for value in sorted(values)]
    ticks = [tick.at for tick in axis.ticks]
    assert positions == sorted(positions)
    assert all(50.0 <= position <= 400.0 for position in [*positions, *ticks])
    assert ticks == sorted(ticks)
    assert 1 <= len(ticks) <= 10


@pytest.mark.parametrize(
    ("values", "log", "labels"),
    [
        ([0.0, 100.0], False, ["0", "25", "50", "75", "100"]),
        ([1e-4, 1e-2], True, ["0.0001", "0.0003", "0.001", "0.003", "0.01"]),
        ([1.2341, 1.2349], False, ["1.2342", "1.2344", "1.2346", "1.2348"]),
        ([0.001, 0.004], True, ["0.001", "0.002"]),
    ],
)
def test_ticks_are_round(values: list[float], log: bool, labels: list[str]) -> None:
    assert [tick.label for tick in make_axis(values, 0.0, 1.0, log=log).ticks] == labels


def test_intervals_are_placed_on_the_unit_axis_and_unscored_ones_left_out() -> None:
    scored = Metric(value=0.5, n=10, low=0.0, high=1.0)
    unscored = Metric(value=None, n=0, low=None, high=None)
    adapters = [
        AdapterSummary(
            id="a", is_base=False, hyperparameters={}, eval_loss=1.0, metrics={"tool_call_accuracy": scored}
        ),
        AdapterSummary(
            id="base", is_base=True, hyperparameters={}, eval_loss=None, metrics={"refusal_accuracy": unscored}
        ),
    ]
    (picture,) = interval_pictures(adapters, "a")
    assert picture.title == "Tool-call accuracy"
    first, second = picture.rows
    assert (first.low, first.at, first.high) == (BAR_LEFT, (BAR_LEFT + BAR_RIGHT) / 2, BAR_RIGHT)
    assert (first.emphasis, second.emphasis) == ("winner", "other")
    assert (second.at, second.value) == (None, "not scored")
