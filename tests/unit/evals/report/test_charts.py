import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from builders import make_trial

from evals.records import AdapterSummary, Comparison, Metric
from evals.report.charts import (
    Picture,
    curve_picture,
    difference_picture,
    interval_picture,
    loss_settings_picture,
    metric_picture,
    metric_settings_picture,
    share_row,
    tried_adapters,
    tried_trials,
    varied_settings,
)
from orchestrator.core.records import EvalPoint, TrialRecord

Point = tuple[float, float]


def adapter(name: str, value: float | None, **settings: float) -> AdapterSummary:
    metric = Metric(value=value, n=0 if value is None else 40, low=value and value / 2, high=value and (1 + value) / 2)
    return AdapterSummary(
        id=name,
        is_base=name == "base",
        hyperparameters=settings,
        eval_loss=None,
        metrics={"tool_call_validity": metric},
    )


def trial(name: str, losses: Sequence[float], **changes: object) -> TrialRecord:
    curve = tuple(EvalPoint(step=10 * (index + 1), eval_loss=loss) for index, loss in enumerate(losses))
    return make_trial(name, eval_loss=min(losses)).model_copy(update={"curve": curve, **changes})


def marked(picture: Picture | None, start: str) -> list[ElementTree.Element]:
    """Groups of the picture whose hint starts with `start`."""
    assert picture is not None
    groups = ElementTree.fromstring(str(picture.svg)).iter("g")
    return [
        group for group in groups if group[:1] and group[0].tag == "title" and (group[0].text or "").startswith(start)
    ]


def dots(groups: Sequence[ElementTree.Element]) -> list[Point]:
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for group in groups for use in group.iter("use")]


def lines(groups: Sequence[ElementTree.Element]) -> list[list[Point]]:
    """The corners of each line that is drawn itself, not of the marks that stand in `defs`."""
    found = []
    for group in groups:
        for path in group.findall("path"):
            numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path.attrib["d"])]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def ticks(picture: Picture | None) -> dict[str, float]:
    """Where the labels below the axis stand."""
    assert picture is not None
    texts = list(ElementTree.fromstring(str(picture.svg)).iter("text"))
    lowest = max(float(text.attrib["y"]) for text in texts)
    return {text.text or "": float(text.attrib["x"]) for text in texts if lowest - float(text.attrib["y"]) < 1}


def test_a_figure_and_its_interval_stand_where_they_belong() -> None:
    picture = metric_picture([adapter("aaaa", 0.5), adapter("base", None)], "tool_call_validity", "aaaa")
    assert picture is not None
    assert (picture.title, picture.note) == ("Tool-call validity", "higher is better")
    groups = marked(picture, "aaaa: 0.50 (0.25 to 0.75, n=40)")
    (at,), (whisker,) = dots(groups), lines(groups)
    scale = ticks(picture)
    assert at[0] == pytest.approx(scale["0.5"], abs=0.1)
    assert [x for x, _ in whisker] == pytest.approx([scale["0.25"], scale["0.75"]], abs=0.1)
    assert marked(picture, "base") == []
    assert "not scored" in picture.svg
    assert "base: not scored" in picture.svg


def test_nothing_scored_is_no_picture() -> None:
    assert metric_picture([adapter("base", None)], "tool_call_validity", None) is None
    assert metric_picture([adapter("base", 0.5)], "refusal_accuracy", None) is None
    assert interval_picture("x", "t", "n", [share_row("a", None, "kept")]) is None


def compared(difference: float | None, low: float | None = None, high: float | None = None) -> Comparison:
    return Comparison(
        metric="case_accuracy", left="aaaa", right="base", n=90, gained=9, lost=2, difference=difference, low=low,
        high=high, p_value=0.03, p_adjusted=None, method="exact",
    )  # fmt: skip


def test_a_difference_stands_on_its_side_of_the_line() -> None:
    picture = difference_picture([compared(-0.2, -0.3, 0.1)])
    assert picture is not None
    (at,), (whisker,) = dots(marked(picture, "Cases")), lines(marked(picture, "Cases"))
    zero = ticks(picture)["0"]
    assert at[0] < zero
    assert whisker[0][0] < at[0] < zero < whisker[-1][0]
    assert "-0.20 (-0.30 to +0.10), p = 0.03, n=90" in picture.svg
    assert difference_picture([compared(None)]) is None


def test_loss_curves_fall_and_leave_out_what_is_not_finite() -> None:
    trials = [
        trial("good", (3.0, 0.5, 0.2), adapter_id="aaaa"),
        trial("bad", (2.5, math.nan, math.inf), status="diverged"),
        trial("dead", (math.nan,), status="failed"),
    ]
    picture = curve_picture(trials, frozenset({"aaaa"}), "aaaa")
    (good,) = lines(marked(picture, "good"))
    assert len(good) == 3
    assert [x for x, _ in good] == sorted(x for x, _ in good)
    assert [y for _, y in good] == sorted(y for _, y in good), "a falling loss runs down the picture"
    assert len(dots(marked(picture, "bad"))) == 1
    assert marked(picture, "dead") == []
    assert picture is not None
    assert picture.note == "one line a trial, log scale"
    assert curve_picture(trials[2:], frozenset(), None) is None


def test_losses_of_one_size_are_on_a_linear_axis() -> None:
    picture = curve_picture([trial("one", (2.0, 1.0))], frozenset(), None)
    assert picture is not None
    assert picture.note == "one line a trial"


def test_settings_that_varied_have_a_panel_each() -> None:
    trials = [
        trial(f"t{index}", (loss,), hyperparameters={"r": rank, "alpha": 32, "learning_rate": rate})
        for index, (rank, rate, loss) in enumerate([(4, 1e-4, 0.9), (16, 1e-3, 0.5), (64, 1e-2, 0.7)])
    ]
    picture = loss_settings_picture(tried_trials(trials, frozenset(), None))
    assert picture is not None
    assert ">alpha<" not in picture.svg
    assert ">r<" in picture.svg
    assert ">learning rate<" in picture.svg
    first, second, third = (dots(marked(picture, f"t{index}")) for index in range(3))
    assert [len(found) for found in (first, second, third)] == [2, 2, 2]
    for panel in range(2):
        assert first[panel][0] < second[panel][0] < third[panel][0]
        assert first[panel][1] < third[panel][1] < second[panel][1], "the lower loss stands lower"
    gaps = [second[0][0] - first[0][0], third[0][0] - second[0][0]]
    assert gaps[0] == pytest.approx(gaps[1], abs=0.1), "ranks 4, 16, 64 are equally far apart on a logarithmic axis"


def test_settings_are_drawn_against_validity_for_scored_adapters_only() -> None:
    adapters = [adapter("aaaa", 0.9, r=8), adapter("bbbb", 0.4, r=4), adapter("cccc", None, r=2), adapter("base", 0.1)]
    picture = metric_settings_picture("tool_call_validity", tried_adapters(adapters, "tool_call_validity", "aaaa"))
    (high,), (low,) = dots(marked(picture, "aaaa")), dots(marked(picture, "bbbb"))
    assert high[1] < low[1]
    assert high[0] > low[0]
    assert marked(picture, "cccc") == marked(picture, "base") == []


def test_one_value_is_no_variation() -> None:
    assert varied_settings([{"r": 4, "step": 1}, {"r": 4, "step": 2}]) == []
    assert varied_settings([{"r": 4, "alpha": 8}, {"r": 8, "alpha": 8}]) == ["r"]
    assert loss_settings_picture(tried_trials([trial("t", (0.5,))], frozenset(), None)) is None


@pytest.mark.parametrize(
    "values", [(0.0, 1.0), (1e-5, 2e-5, 9.34e-5, 3e-3), (16.0, 16.5), tuple(range(1, 40)), (7.0, 7.0, 8e9)]
)
def test_any_setting_can_be_drawn(values: tuple[float, ...]) -> None:
    trials = [trial(f"t{i}", (0.1 + i,), hyperparameters={"x": value}) for i, value in enumerate(values)]
    picture = loss_settings_picture(tried_trials(trials, frozenset(), None))
    assert len(dots(marked(picture, "t"))) == len(values)
    at = [x for x in ticks(picture).values() if x > 100]
    assert 1 <= len(at) <= 6
