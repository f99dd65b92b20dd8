import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.text import duration_text

UNITS = {"s": 1, "min": 60, "h": 3600}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.04, "0.0 s"), (59.9, "59.9 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (59.97, "1 min 00 s")),
        *((125, "2 min 05 s"), (187, "3 min 07 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min")),
        *((3599.7, "1 h 00 min"), (7199.7, "2 h 00 min"), (7500, "2 h 05 min"), (7650, "2 h 07 min")),
    ],
)
def test_durations_at_the_boundaries(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.one_of(st.floats(0, 4000), st.floats(0, 1e6), st.integers(0, 10**6)))
def test_a_duration_reads_back_within_its_last_unit(seconds: float) -> None:
    text = duration_text(seconds)
    parts = [(float(number), unit) for number, unit in re.findall(r"([\d.]+) (h|min|s)\b", text)]
    assert " ".join(text.split()[1::2]) in ("s", "min s", "h min")
    assert all(number < 60 for number, unit in parts if unit != "h")
    assert parts[0][0] >= 1 or parts == [(parts[0][0], "s")]  # no leading zero unit
    read = sum(number * UNITS[unit] for number, unit in parts)
    within = {"h": 60, "min": 0.5, "s": 0.05}[parts[0][1]]
    assert abs(seconds - read) <= within + 1e-9
