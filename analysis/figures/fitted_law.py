"""A power law of the Fréchet distance in compute: line, interval, and the largest model predicted from the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.drawing import marks, style
from analysis.drawing.labels import BAND
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols, unnamed
from analysis.figures.scores import Scores, at_last_shared_step, axis_name, for_a_law, over_seeds, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.laws.power_law import power_law

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = 0.9
MIN_POINTS = 5  # to fit two coefficients and have two degrees of freedom left for the interval, and one model held out
METHOD = (
    "Line: FID = a GMACs^b, least squares on logarithms without the model with the most compute (cross). Band: "
    f"{LEVEL:.0%} prediction interval for one more model (Student's t, normal errors of the logarithm around one line)."
)


@dataclass(frozen=True)
class Band:
    """A fitted line at the places `x`, with the interval from `low` to `high`; 1-d arrays of one length."""

    x: NDArray[np.float64]
    line: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture fitted_law.

    One panel for each source, at its last shared step, means over seeds. Data columns: source, label, size, patch,
    gmacs, num_seeds, fid, fid_min, fid_max, held_out, line, low, high (of the law that is fitted without the held-out
    model).

    Raises:
        NothingToDraw: fewer than five models.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _models)
    with style.look():
        columns = 1 if width == "one" else min(2, len(found))
        scores = [one for one, _ in found]
        figure = style.new_figure(width, (3.5 if width == "one" else 3.0) * -(-len(found) // columns))
        parts = style.parts(figure, len(found), columns)
        axes: list[Axes] = [part.subplots() for part in parts]
        for part, panel, (one, points) in zip(parts, axes, found, strict=True):
            _panel(part, panel, one, points)
        style.lay_out(figure)
        without: list[str] = []
        for panel, (one, points) in zip(axes, found, strict=True):
            unit = marks.compute_unit(points["gmacs"].tolist())[1]
            at = (points["gmacs"] / unit).tolist()
            without += marks.name_points(panel, at, points, "fid", one.named(points), _drawn_lines(points, unit))
    data = pd.concat([points for _, points in found])
    return Picture(
        "fitted_law",
        figure,
        data,
        f"The law is fitted without the largest model, which it predicts. {in_short(scores)}{unnamed(without)}",
        f"{METHOD}\n{MACS}\n{protocols(scores)}",
        keys(scores),
        left_out,
    )


def draw_band(axes: Axes, band: Band) -> tuple[Any, Any]:
    """A law in a panel: its line over a grey band, which are returned. For the law of any fit."""
    area = axes.fill_between(band.x, band.low, band.high, color=BAND, linewidth=0, zorder=0)
    (line,) = axes.plot(band.x, band.line, color="#555555", linewidth=1, zorder=1)
    return line, area


def power_law_band(gmacs: ArrayLike, fid: ArrayLike, at: ArrayLike, level: float = LEVEL) -> Band:
    """The power law through (gmacs, fid) and its prediction interval for one more observation, at the places `at`.

    Ordinary least squares of log(fid) on log(gmacs): with n points, the interval is the line times or over
    exp(t s sqrt(1 + 1/n + (u - mean)^2 / sum of squares)), u = log(at), t of n - 2 degrees of freedom.
    """
    from scipy.special import stdtrit

    x, y, u = (np.log(np.asarray(values, dtype=float)) for values in (gmacs, fid, at))
    law = power_law(gmacs, fid)
    spread = np.sqrt(np.sum((y - np.log(law(gmacs))) ** 2) / (len(x) - 2))
    distance = (u - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)
    half = stdtrit(len(x) - 2, (1 + level) / 2) * spread * np.sqrt(1 + 1 / len(x) + distance)
    line = law(at)
    return Band(np.asarray(at, dtype=float), line, line * np.exp(-half), line * np.exp(half))


def _models(source: Source) -> tuple[Scores, pd.DataFrame]:
    scores = at_last_shared_step(scaling_scores(source))
    points = over_seeds(scores.evals).sort_values("gmacs", ignore_index=True)
    if len(points) < MIN_POINTS:
        raise NothingToDraw(f"{len(points)} models; needed: at least {MIN_POINTS} for a law, its interval and a test")
    points.insert(0, "source", source.called)
    rest = points.iloc[:-1]
    for_a_law(points)
    for_a_law(rest)
    band = power_law_band(rest["gmacs"], rest["fid"], points["gmacs"])
    held_out = [False] * len(rest) + [True]
    return scores, points.assign(held_out=held_out, line=band.line, low=band.low, high=band.high)


def _drawn_lines(points: pd.DataFrame, unit: float) -> NDArray[np.float64]:
    """Points along the law and the held-out model's interval, for labels to keep off."""
    rest, largest = points.iloc[:-1], points.iloc[-1]
    grid = np.geomspace(min(points["gmacs"]), largest["gmacs"], 100)
    law = np.column_stack([grid / unit, power_law(rest["gmacs"], rest["fid"])(grid)])
    interval = np.geomspace(largest["low"], largest["high"], 40)
    return np.concatenate([law, np.column_stack([np.full(40, largest["gmacs"] / unit), interval])])


def _panel(part: Any, axes: Axes, scores: Scores, points: pd.DataFrame) -> None:
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    rest, largest = points.iloc[:-1], points.iloc[-1]
    grid = np.geomspace(min(points["gmacs"]) / 1.3, largest["gmacs"] * 1.3, 100)
    band = power_law_band(rest["gmacs"], rest["fid"], grid)
    line, area = draw_band(axes, Band(band.x / size, band.line, band.low, band.high))
    marks.scatter(axes, points, "gmacs", "fid", unit=size)
    at = largest["gmacs"] / size
    bar = ([largest["line"] - largest["low"]], [largest["high"] - largest["line"]])
    look: dict[str, Any] = {"fmt": "D", "color": "black", "markerfacecolor": "white", "markersize": 4.5, "capsize": 3}
    predicted = axes.errorbar(at, largest["line"], bar, zorder=4, **look)
    axes.set_title(f"{scores.title}, {style.steps_text(int(scores.evals['step'].iloc[0]))} steps")
    draw_baselines(axes, [scores])
    axes.set_yscale("log")
    axes.set_ylabel(axis_name([scores]))
    marks.gmacs_axis(axes, unit)
    style.log_ticks(axes.yaxis)
    law, name = power_law(rest["gmacs"] / size, rest["fid"]), scores.named(points)[-1]
    texts = [
        f"{law.coefficient:.4g} {unit}$^{{{law.exponent:.3f}}}$, fitted to {len(rest)} models",
        f"{LEVEL:.0%} interval for one more model",
        f"{name} predicted: {largest['line']:.1f} ({largest['low']:.1f} to {largest['high']:.1f})",
        f"{name} true: {largest['fid']:.1f}",
    ]
    true = marks.model_handle(points, largest)
    legend = marks.below_legend(part, [line, area, predicted, true], texts)
    legend.get_texts()[0].set_parse_math(True)
