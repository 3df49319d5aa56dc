"""Lines of a legend's texts under the panels."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
from matplotlib.lines import Line2D

from analysis.drawing.marks import below_legend


@pytest.mark.parametrize("texts", [["DiT", "UNet", "unet", "first"], ["iiiiiiiiii", "WWWW", "a b"]])
def test_a_text_that_has_room_stays_on_one_line(texts: list[str]) -> None:
    figure = plt.figure(figsize=(6.75, 3))
    try:
        legend = below_legend(figure, [Line2D([], []) for _ in texts], texts)
        assert [text.get_text() for text in legend.get_texts()] == texts
    finally:
        plt.close(figure)


def test_a_text_wider_than_the_figure_is_wrapped_and_loses_no_word() -> None:
    long = " ".join(["settings"] * 40)
    figure = plt.figure(figsize=(3.25, 3))
    try:
        legend = below_legend(figure, [Line2D([], [])] * 2, [long, "short"])
        first, second = (text.get_text() for text in legend.get_texts())
        assert first.count("\n") > 1 and first.split() == long.split()
        assert second == "short"
    finally:
        plt.close(figure)
