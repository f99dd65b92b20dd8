import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.records import Comparison, Metric
from evals.report.text import (
    chance_text,
    chance_word,
    difference_text,
    markdown_cell,
    markdown_code,
    metric_text,
    number_text,
    p_text,
    shorten,
    signed_text,
    time_text,
)
from evals.stats.metrics import value_text
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted, duration_text, unit_text, visible


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (1.0, "1.00"),
        (0.714, "0.71"),
        (0.9967, "0.997"),
        (0.001, "0.001"),
        (1e-17, "0.00"),
        (1e-6, "<0.0001"),
    ],
)
def test_share_shows_two_decimals_or_as_many_as_honesty_needs(value: float, text: str) -> None:
    assert unit_text(value) == text


@given(st.floats(1e-8, 1 - 1e-8))
def test_share_between_zero_and_one_is_never_shown_as_either(value: float) -> None:
    assert unit_text(value) not in ("0.00", "1.00", "0.000", "1.000", "0.0000", "1.0000")


@pytest.mark.parametrize(("value", "text"), [(16, "16"), (2e-4, "0.0002"), (3e-5, "3e-5"), (0.0039312, "0.00393")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7650, "2 h 07 min"),
    ],
)
def test_durations_are_for_a_person(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 replies"), (1, "1 reply"), (2000, "2,000 replies")])
def test_a_count_agrees_with_its_noun(count: int, text: str) -> None:
    assert counted(count, "reply", "replies") == text
    assert counted(1, "case") == "1 case"


def test_invisible_characters_become_escapes_and_newlines_stay() -> None:
    assert visible("a\r\nb\tc\x00\x1b[0m\u202ed\ud800\u200be") == "a\nb\tc\\x00\\x1b[0m\\u202ed\\ud800\\u200be"


def test_characters_that_carry_text_unseen_become_escapes() -> None:
    unseen = "\U000e0041\U000e007f\u115f\ufff9\ufffa\ufffb\u3164"
    assert visible(f"a{unseen}b") == "a\\U000e0041\\U000e007f\\u115f\\ufff9\\ufffa\\ufffb\\u3164b"
    assert visible("\U0001f600 é ﬀ 한 \ufffd") == "\U0001f600 é ﬀ 한 \ufffd"


@given(st.text(st.characters(), max_size=80))
def test_shown_text_can_be_written_and_shown_again_unchanged(text: str) -> None:
    once = visible(text)
    once.encode("utf-8")
    assert visible(once) == once


def test_a_name_with_an_at_notifies_nobody() -> None:
    assert markdown_cell("see @user or a@b.example") == "see @<!-- -->user or a@<!-- -->b.example"
    assert markdown_code("see @user") == "<code>see @user</code>"


@given(st.text(st.characters(), max_size=80))
def test_markdown_cell_is_one_line_without_live_markup(text: str) -> None:
    cell = markdown_cell(text)
    assert "\n" not in cell
    assert markdown_code(text) == f"<code>{cell.replace('@<!-- -->', '@')}</code>"
    assert cell.count("@") == cell.count("@<!-- -->")
    cell = cell.replace("@<!-- -->", "")
    assert not set("<>") & set(cell)
    bare = re.sub(r"\\.", "", cell)
    assert not set("\\`*_[]|~#!$") & set(bare)
    assert "://" not in cell


@given(st.text(max_size=50), st.integers(0, 60))
def test_shortening_accounts_for_every_character(text: str, limit: int) -> None:
    shown = shorten(text, limit)
    assert text.startswith(shown.text)
    assert len(shown.text) <= limit
    assert len(shown.text) + shown.num_left_out == len(text)


@pytest.mark.parametrize(
    ("p_value", "text"),
    [
        (None, "p unknown"),
        (0.0, "p < 0.0001"),
        (0.00012, "p = 0.00012"),
        (0.0349, "p = 0.035"),
        (0.97, "p = 0.97"),
        (1.0, "p = 1"),
    ],
)
def test_a_p_value_is_never_shown_as_a_zero(p_value: float | None, text: str) -> None:
    assert p_text(p_value) == text


@pytest.mark.parametrize(("share", "text"), [(0.125, "+0.12"), (-0.004, "-0.004"), (0.0, "0.00"), (-1.0, "-1.00")])
def test_a_difference_has_its_sign(share: float, text: str) -> None:
    assert signed_text(share) == text


def compared(
    difference: float | None,
    p_value: float | None,
    p_adjusted: float | None = None,
    metric: MetricName = "case_accuracy",
) -> Comparison:
    low, high = (None, None) if difference is None else (difference - 0.1, difference + 0.1)
    return Comparison(
        metric=metric, left="a", right="b", n=180, gained=5, lost=3, difference=difference, low=low, high=high,
        p_value=p_value, p_adjusted=p_adjusted, method="exact",
    )  # fmt: skip


def test_a_difference_stands_with_interval_p_and_n() -> None:
    assert difference_text(compared(0.12, 0.008)) == "+0.12 (+0.02 to +0.22), p = 0.008, n=180"
    assert difference_text(compared(None, None)) == "not compared, n=180"
    assert chance_text(compared(0.1, 0.01, 0.04)) == "p = 0.01 (p = 0.04 corrected for several comparisons)"
    assert chance_text(compared(0.1, 1e-9, 3e-9)) == "p < 0.0001"


@pytest.mark.parametrize(
    ("comparison", "word"),
    [
        (compared(0.1, 0.01, 0.04), "better"),
        (compared(0.1, 0.01, 0.06), "may be chance"),
        (compared(-0.1, 0.001), "worse"),
        (compared(0.1, 0.001, metric="over_refusal_rate"), "worse"),
        (compared(-0.1, 0.001, metric="over_refusal_rate"), "better"),
        (compared(0.0, 1.0), "no difference"),
        (compared(None, None), "not compared"),
    ],
)
def test_a_difference_is_called_what_the_corrected_p_allows(comparison: Comparison, word: str) -> None:
    assert chance_word(comparison) == word


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2025-03-04T05:06:07+00:00", "2025-03-04 05:06 UTC"),
        ("2025-03-04T05:06:07.123456Z", "2025-03-04 05:06 UTC"),
        ("2025-03-04T05:06:07+02:00", "2025-03-04T05:06:07+02:00"),
        ("<b>", "<b>"),
    ],
)
def test_a_moment_is_for_a_person(moment: str, text: str) -> None:
    assert time_text(moment) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_p50_s", 2.345, "2.35 s"),
        ("latency_per_token_s", 0.00412, "4.12 ms"),
        ("latency_vs_base", 0.5961, "0.60 x"),
        ("output_tokens_mean", 20.66, "20.7"),
    ],
)
def test_a_figure_has_its_unit(name: MetricName, value: float, text: str) -> None:
    assert value_text(name, value) == text


def test_an_unscored_figure_says_why() -> None:
    unscored = Metric(value=None, n=0, low=None, high=None, why="no scored case has the tag harmful")
    assert metric_text("refusal_recall", unscored) == "not scored: no scored case has the tag harmful"
