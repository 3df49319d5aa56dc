"""Names beside the points of a panel: readable, off each other and off markers, and nobody else's."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import figures
from analysis.drawing import style
from analysis.drawing.labels import BAND, LEADER, contrast, place_labels, readable
from analysis.figures.sources import published_source

COLOURS = sorted(
    {*style.SIZE_COLOURS.values(), *(colour for colour, _ in style.OTHERS), *(colour for colour, *_ in style.SERIES)}
)


@pytest.mark.parametrize("colour", COLOURS)
def test_names_can_be_read_on_white_and_on_a_band(colour: str) -> None:
    assert contrast(readable(colour), "white") >= 4.5 and contrast(readable(colour), BAND) >= 4.5


def test_contrast_is_wcags() -> None:
    assert contrast("black", "white") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.005)


def test_colours_that_can_be_read_stay_and_the_others_stay_different() -> None:
    assert readable("#000000") == "#000000"
    assert len({readable(colour) for colour in COLOURS}) == len(COLOURS)


def panel(x: list[float], y: list[float], texts: list[str], radius: float = 3.0) -> Any:
    """Axes of one column with these points and their names."""
    figure = Figure(figsize=(3.25, 2.7), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, "o", markersize=2 * radius)
    axes.margins(0.15)
    style.lay_out(figure)
    left_out = place_labels(axes, x, y, texts, np.empty((0, 2)), [radius] * len(x), ["#0072B2"] * len(x))
    assert len(axes.texts) + len(left_out) == len(texts)
    return axes


def boxes(axes: Any) -> np.ndarray:
    """(N, 4) of the names, in pixels."""
    return np.array([text.get_window_extent().extents for text in axes.texts])


def overlaps(found: np.ndarray) -> int:
    over = np.all((found[:, None, :2] < found[None, :, 2:]) & (found[None, :, :2] < found[:, None, 2:]), axis=-1)
    return int(over.sum() - len(found)) // 2


def nearest(axes: Any, x: list[float], y: list[float]) -> np.ndarray:
    """The marker that is nearest to each name, (N,)."""
    markers, found = axes.transData.transform(np.column_stack([x, y])), boxes(axes)[:, None]
    return np.linalg.norm(
        np.maximum(0, np.maximum(found[..., :2] - markers, markers - found[..., 2:])), axis=-1
    ).argmin(1)


def test_each_name_of_a_cluster_is_at_its_own_marker_or_led_to_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y = (rng.uniform(0, 1, 14).tolist() for _ in range(2))
        axes = panel(x, y, [f"XL/{index}" for index in range(14)])
        assert overlaps(boxes(axes)) == 0
        led = [tuple(np.round(line.get_xydata()[0], 1)) for line in axes.lines[1:]]
        strangers = [index for index, other in enumerate(nearest(axes, x, y)) if other != index]
        assert len(strangers) <= len(led) <= 7, "a name is another marker's, without a line to its own"
        frame = axes.get_window_extent().extents
        assert np.all(boxes(axes)[:, :2] >= frame[:2] - 1) and np.all(boxes(axes)[:, 2:] <= frame[2:] + 1)


def test_a_line_leads_from_the_markers_rim_to_a_name_that_is_far() -> None:
    x, y = [*np.linspace(0, 0.02, 9), 1.0], [0.0] * 9 + [1.0]
    axes = panel(x, y, [*(f"name {index}" for index in range(9)), "alone"])
    points, found = axes.transData.transform(np.column_stack([x, y])), boxes(axes)
    point = axes.figure.dpi / 72
    assert len(axes.lines) > 1
    for leader in axes.lines[1:]:
        start, end = axes.transData.transform(leader.get_xydata())
        assert np.linalg.norm(end - start) > LEADER * point
        assert np.abs(np.linalg.norm(points - start, axis=1) - 3 * point).min() == pytest.approx(0, abs=0.01)
        assert any(np.all((box[:2] - 2 <= end) & (end <= box[2:] + 2)) for box in found)
        assert np.linalg.norm(points[-1] - start) > 9 * point, "the one that is alone needs none"


def test_the_same_points_have_the_same_names_in_the_same_places() -> None:
    x, y = [1.0, 1.1, 1.15, 2.0], [1.0, 1.02, 0.98, 3.0]
    assert np.array_equal(boxes(panel(x, y, ["a", "b", "c", "d"])), boxes(panel(x, y, ["a", "b", "c", "d"])))


def test_a_name_longer_than_its_panel_has_several_lines_in_it() -> None:
    long = "a name of one's own that is much longer than the panel is wide, and then some"
    axes = panel([0.0, 1.0], [0.0, 1.0], [long, "b"])
    assert [" ".join(text.get_text().split()) for text in axes.texts] == [long, "b"]
    frame = axes.get_window_extent().extents
    assert np.all(boxes(axes)[:, [0, 2]] >= frame[0] - 1) and np.all(boxes(axes)[:, [0, 2]] <= frame[2] + 1)


def test_of_forty_eight_models_most_are_named_and_no_name_is_on_another() -> None:
    index = np.arange(48)
    x, y = (index % 8 + 0.3 * np.sin(index)).tolist(), (index // 8 + 0.3 * np.cos(7 * index)).tolist()
    axes = panel(x, y, [f"L{number}/4" for number in index], radius=2.0)
    assert overlaps(boxes(axes)) == 0 and len(axes.texts) > 40


@pytest.mark.parametrize("width", ["one", "two"])
@pytest.mark.parametrize("name", ["bubbles", "fitted-law", "gflops-vs-fid"])
def test_the_papers_models_are_called_by_their_own_names(name: str, width: Any) -> None:
    """B/2 and L/4, B/4 and S/2 lie side by side: each name is nearest to its own marker."""
    drawn = figures.picture(name, [published_source()], width)
    axes = drawn.figure.axes[0]
    data: Any = drawn.data
    points = data.loc[data["panel"] == "published"] if name == "bubbles" else data
    names = {text.get_text(): text.get_window_extent().extents for text in axes.texts}
    markers = axes.transData.transform(points[["gmacs", "fid"]].to_numpy())
    labels = points["label"].tolist()
    led = sum(np.shape(line.get_xydata()) == (2, 2) for line in axes.lines)
    strangers = 0
    for index, label in enumerate(labels):
        middle = np.reshape(names[label], (2, 2)).mean(axis=0)
        strangers += labels[int(np.linalg.norm(markers - middle, axis=1).argmin())] != labels[index]
    assert strangers <= led
    assert overlaps(np.array(list(names.values()))) == 0
