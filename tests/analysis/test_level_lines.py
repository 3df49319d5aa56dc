"""Baselines as level lines in figures: at their heights, inside the scale, with names that can be read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from baseline_files import FID, write_baselines
from drawn_figures import study
from hypothesis import given
from hypothesis import strategies as st

from analysis.drawing import style
from analysis.drawing.levels import apart, levels
from analysis.drawing.write import rendered
from analysis.figures import picture
from analysis.figures.sources import Source
from analysis.results.baselines import read_baselines

DRAWN: list[tuple[str, style.Width]] = [
    *((name, "one") for name in ("gflops-vs-fid", "fid-vs-steps", "training-compute", "fitted-law", "metrics")),
    *((name, "two") for name in ("gflops-vs-fid", "fid-vs-steps", "bubbles")),
]
UNNAMED = {"metrics"}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The twelve models, without baselines."""
    return study(tmp_path_factory.mktemp("study"))


def beside(source: Source, folder: Path, rows: Any = None, **changed: Any) -> Source:
    baselines = read_baselines(write_baselines(folder, rows, **changed))
    return replace(source, tables=replace(source.tables, baselines=baselines))


def heights(axes: Any) -> list[float]:
    at: list[Any] = [line.get_ydata() for line in levels(axes)]
    return sorted(float(ends[0]) for ends in at)


@pytest.mark.parametrize(("name", "width"), DRAWN)
def test_each_panel_of_distances_has_every_level_in_its_scale_and_names_that_can_be_read(
    without: Source, tmp_path: Path, name: str, width: style.Width
) -> None:
    drawn = picture(name, [beside(without, tmp_path)], width)
    panels = [axes for axes in drawn.figure.axes if "Fréchet" in axes.get_ylabel() or levels(axes)]
    assert panels
    for axes in panels:
        assert heights(axes) == sorted(FID.values())
        low, high = axes.get_ylim()
        assert low < min(FID.values()) < max(FID.values()) < high
    for fid in FID.values():
        assert f"{fid:.4g}" in drawn.caption
    assert not drawn.left_out
    if name not in UNNAMED:
        check_names(drawn)


def test_names_of_levels_that_are_one_do_not_cover_each_other(without: Source, tmp_path: Path) -> None:
    source = beside(without, tmp_path, fid=4.0, fid_min=3.9, fid_max=4.1)
    check_names(picture("gflops-vs-fid", [source], "one"))


def check_names(drawn: Any) -> None:
    """They stand beside their panel, inside the picture, in the order of their lines and clear of each other."""
    named = [axes for axes in drawn.figure.axes if any(text.get_gid() for text in axes.texts)]
    assert named
    for axes in named:
        ends: list[Any] = [text for text in axes.texts if text.get_gid()]
        assert len(ends) == len(FID)
        boxes = sorted((written(text) for text in ends), key=lambda box: box.y0)
        assert all(lower.y1 <= upper.y0 + 1.5 for lower, upper in pairwise(boxes))  # a pixel of leading
        assert all(box.x0 > axes.bbox.x1 and box.x1 < drawn.figure.bbox.width + 1 for box in boxes)
        order = sorted(ends, key=lambda text: text.xy[1])
        assert [written(text).y0 for text in order] == sorted(written(text).y0 for text in ends)


def written(text: Any) -> Any:
    """Where the text alone is, without the short line to it."""
    from matplotlib.text import Text

    return Text.get_window_extent(text)


@pytest.mark.parametrize("other", [{"num_samples": 400}, {"extractor": "digits-cnn"}])
def test_what_is_of_another_key_is_not_drawn_and_said(without: Source, tmp_path: Path, other: dict[str, Any]) -> None:
    (key, value), plain = next(iter(other.items())), picture("gflops-vs-fid", [without])
    drawn = picture("gflops-vs-fid", [beside(without, tmp_path, **other)])
    (line,) = drawn.left_out
    assert key in line
    assert str(value) in line
    assert rendered(drawn, "png", drawn.short) == rendered(plain, "png", plain.short)
    assert drawn.caption == plain.caption


def test_a_figure_without_distances_says_nothing_of_them(without: Source, tmp_path: Path) -> None:
    for name in ("loss", "residuals"):
        assert not picture(name, [beside(without, tmp_path, num_samples=400)]).left_out
        assert "Level lines" not in picture(name, [beside(without, tmp_path)]).caption


def test_all_real_images_against_themselves_are_no_level(without: Source, tmp_path: Path) -> None:
    source = beside(without, tmp_path)
    itself = source.tables.baselines["baseline"] == "real"
    rows: pd.DataFrame = source.tables.baselines
    rows.loc[itself, ["images", "against"]], rows.loc[itself, ["fid", "fid_min"]] = 1797, 1e-9
    drawn = picture("fid-vs-steps", [source])
    for axes in (axes for axes in drawn.figure.axes if levels(axes)):
        assert heights(axes) == sorted(fid for name, fid in FID.items() if name != "real")
        assert axes.get_ylim()[0] > 0.1


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(1, 30)), max_size=8))
def test_names_are_moved_apart_in_order_and_as_little_as_can_be(wanted: list[tuple[float, float]]) -> None:
    centres, sizes = [at for at, _ in wanted], [size for _, size in wanted]
    found = apart(centres, sizes)
    order = sorted(range(len(wanted)), key=lambda index: (found[index], index))
    for lower, upper in pairwise(order):
        assert found[upper] - found[lower] >= (sizes[upper] + sizes[lower]) / 2 - 1e-6
        assert centres[lower] <= centres[upper]
    again = apart(found, [size * (1 - 1e-9) for size in sizes])
    assert again == pytest.approx(found)  # what is apart stays where it is
