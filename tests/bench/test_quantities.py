"""Amounts in units for people."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.commands.quantities import figure, flop_text, macs_text, short_time, size_text, time_text


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [
        (0, "under a minute", "0"),
        (0.07, "under a minute", "< 1 min"),
        (59.9, "under a minute", "< 1 min"),
        (60, "1 minute", "1 min"),
        (12 * 60, "12 minutes", "12 min"),
        (90 * 60, "1.5 hours", "1.5 h"),
        (10 * 3600, "10 hours", "10 h"),
        (7.6 * 86400, "7.6 days", "7.6 days"),
        (2000 * 86400, "2,000.0 days", "2,000.0 days"),
    ],
)
def test_times(seconds: float, text: str, short: str) -> None:
    assert (time_text(seconds), short_time(seconds)) == (text, short)


@given(st.floats(0, 1e12))
def test_no_time_is_shown_with_an_exponent_or_much_off(seconds: float) -> None:
    text = time_text(seconds)
    assert not re.search(r"\de[+-]", text)
    if seconds >= 60:
        number, unit = text.split()
        size = {"minute": 60, "hour": 3600, "day": 86400}[unit.removesuffix("s")]
        assert float(number.replace(",", "")) * size == pytest.approx(seconds, rel=0.35 if size == 60 else 0.03)


def test_sizes_and_compute() -> None:
    assert [size_text(n) for n in (64_000, 2.37e6, 944e9, 5e12)] == ["64 kB", "2.37 MB", "944 GB", "5,000 GB"]
    assert [flop_text(t) for t in (1.99803e-05, 182.228, 23_727_600)] == [
        "19.9803 MFLOP",
        "182.228 TFLOP",
        "23,727.6 PFLOP",
    ]
    assert [macs_text(g) for g in (0.000104064, 118.638)] == ["0.104064 MMACs", "118.638 GMACs"]
    assert [figure(x) for x in (0, 2e-5, 0.0333, 5.5, 3_685_232)] == ["0", "<0.01", "0.0333", "5.5", "3,685,232"]
