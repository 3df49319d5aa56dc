"""What a person sees of a run's training, on terminals and elsewhere."""

from __future__ import annotations

import io
import math
import re
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from bench.commands import progress
from bench.commands.progress import LEVELS, Trend, shows_sparks, training_progress
from bench.commands.terminal import console


def row(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "images_per_s": 100.0}


SCORE = {"step": 50, "fid": 98.765}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "is_one"),
    [(Terminal(), "xterm", True), (Terminal(), "dumb", False), (io.StringIO(), "xterm", False)],
)
def test_what_is_a_terminal(stream: io.StringIO, term: str, is_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that want colours in a pipe do not make it one."""
    for name, value in {"TERM": term, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", stream)
    shown = console()
    assert shown.is_terminal is is_one
    with training_progress(shown, "S/4", 100) as on_row:
        on_row(row(25, 0.5))
        on_row(SCORE)
    assert ("\x1b" in stream.getvalue()) is is_one
    assert "98.77" in stream.getvalue()


def test_lines_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown = Console(file=io.StringIO(), force_terminal=False, width=40)
    with training_progress(shown, "S/4", 1000) as on_row:
        for step in range(10, 1001, 10):  # a row a second
            on_row(row(step, 1 / step))
            now[0] += 1
            if step == 50:
                on_row(SCORE)
    assert isinstance(shown.file, io.StringIO)
    lines = shown.file.getvalue().splitlines()
    assert lines[0] == "S/4: step 10 of 1,000: loss 0.1000"
    assert lines[1] == "S/4: step 50: Fréchet distance 98.77"
    assert lines[2] == "S/4: step 160 of 1,000: loss 0.0063, 0.1000 at step 10; about 1:24 left"
    assert lines[-1] == "S/4: step 1,000 of 1,000: loss 0.0010, 0.1000 at step 10"
    assert len(lines) == 1 + 1 + 99 // 15 + 1


class EncodedTerminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_terminal_of_any_width_and_encoding_shows_the_loss(
    width: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    for name, value in {"TERM": "xterm", "COLUMNS": str(width), "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", EncodedTerminal(written, encoding=encoding, write_through=True))
    shown = console()
    with training_progress(shown, "S/4", 100) as on_row:
        for step in (25, 50, 75, 100):
            on_row(row(step, 1 / step))
    text = written.getvalue().decode(encoding)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)  # no colour
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.split("\r")[-1])
    assert "100/100" in last
    assert "loss 0.0" in last
    assert ("left" in last) is (width >= 60)
    if width >= 80:
        assert ("█▃▂▁" if encoding == "utf-8" else "from 0.04") in last
    assert shows_sparks(shown) is (encoding == "utf-8")


@pytest.mark.parametrize("losses", [[math.nan, 1.0, 2.0], [1.0, math.inf, 2.0], [1e308, -1e308, 1e308]])
def test_a_trend_of_losses_that_are_no_use_ends_nothing(losses: list[float]) -> None:
    trend = Trend()
    for step, loss in enumerate(losses):
        trend.add(step, loss)
    sparks = trend.text(with_sparks=True)
    assert len(sparks) == sum(map(math.isfinite, losses)) and set(sparks) <= set(LEVELS)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=60))
@example([0.0, 1.1125369292536007e-308])
def test_a_trend_is_as_high_as_its_losses(losses: list[float]) -> None:
    trend = Trend()
    assert trend.text(with_sparks=True) == ""
    for step, loss in enumerate(losses):
        trend.add(step, loss)
        trend.add(step, 1e9)  # the same row, seen again
        trend.add(step, None)
    sparks = trend.text(with_sparks=True)
    assert len(sparks) == min(8, len(losses))
    assert set(sparks) <= set(LEVELS)
    if len(losses) <= 8 and max(losses) > min(losses):
        assert sparks[losses.index(max(losses))] == LEVELS[-1]
        assert sparks[losses.index(min(losses))] == LEVELS[0]
