import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.report_text import duration_text, markdown_cell, number_text, shorten, unit_text, visible


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
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (125, "2 min 05 s"), (7650, "2 h 07 min")]
)
def test_durations_are_for_a_person(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_invisible_characters_become_escapes_and_newlines_stay() -> None:
    assert visible("a\r\nb\tc\x00\x1b[0m\u202ed\ud800\u200be") == "a\nb\tc\\x00\\x1b[0m\\u202ed\\ud800\\u200be"


@given(st.text(st.characters(), max_size=80))
def test_shown_text_can_be_written_and_shown_again_unchanged(text: str) -> None:
    once = visible(text)
    once.encode("utf-8")
    assert visible(once) == once


@given(st.text(st.characters(), max_size=80))
def test_markdown_cell_is_one_line_without_live_markup(text: str) -> None:
    cell = markdown_cell(text)
    assert "\n" not in cell
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
