import pytest

from evals.report.page import whole


@pytest.mark.parametrize(
    "text",
    ["0.66 to 0.79", "-0.68 to -0.42", "+0.59 to +0.74", "p < 0.0001", "p = 1", "95 %", "3 min", "12.8 s", "2 h"],
)
def test_a_figure_is_kept_on_one_line(text: str) -> None:
    assert whole(f"It is {text}, n=3.") == f"It is {text.replace(' ', chr(0xA0))}, n=3."


@pytest.mark.parametrize("text", ["go to 3 places", "step = 1", "3 sources", "5 minutes", "up to 13.5", "a 12 storey"])
def test_words_may_be_parted(text: str) -> None:
    assert whole(text) == text
