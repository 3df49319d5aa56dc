"""Whether one learning rate serves all widths: loss over the rate, a line for each width, a panel for each design."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.advice.transfer import Transfer, interval, transfers
from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.scores import names
from analysis.figures.sources import Source, from_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_PRINTED = "the paper varies no learning rate; needed: a results folder with widths at several rates"
CAPTION = (
    "Training loss: mean over the last tenth of the steps, over seeds, with a band from the lowest to the highest. "
    "Near the axis, of each width, the rate of the lowest loss by a parabola through the lowest point and its "
    "neighbours, log loss over log rate, with its 90 % interval. Below, that rate over the width, with the power of "
    "the width that it follows; and how much higher the loss of each width is at the rate that is best for the "
    "narrowest; intervals that end far above are cut. Intervals: log loss is a rate's part, a seed's part and a "
    "residual, and residuals are drawn with replacement."
)
ENDS = "Hollow: the lowest loss is at an end of the rates that were run, or beside one that diverged."
SHADES = ("#440154", "#3b528b", "#21918c", "#5ec962", "#b5de2b")  # of viridis, narrow to wide
TALLEST = 2.0  # times the highest point: intervals above are cut
MARGIN = 1.12  # what is shown above the highest loss that is not far off


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture transfer.

    Data columns: source, design, width, learning_rate, num_seeds, loss, loss_min, loss_max (infinite where a run
    diverged); of the width: optimum (rate), optimum_low, optimum_high, at_end, excess (share), excess_low, excess_high;
    of the design: transferred (rate), drift, drift_low, drift_high.

    Raises:
        NothingToDraw: no source has a design at two widths of three rates each, or runs differ in something else.
    """
    found, left_out = from_each(sources, _transfers, by_design=False)
    with style.look():
        heights = [2.6 * -(-len(of) // _columns(of, width)) + 2.4 for _, of in found]
        figure = style.new_figure(width, sum(heights))
        parts = figure.subfigures(len(found), 1, squeeze=False, height_ratios=heights)
        for part, (source, of_source) in zip(parts.flat, found, strict=True):
            _draw_source(part, source, of_source, width)
    data = pd.concat([_table(source, of_source) for source, of_source in found], ignore_index=True)
    seeds = sorted(set(data["num_seeds"]))
    ends = [ENDS] if bool(data["at_end"].any()) else []
    of_seeds = f"mean and range of {' or '.join(map(str, seeds))} seeds" if seeds != [1] else "one seed"
    short = " ".join([f"Training loss, {of_seeds}.", *ends])
    caption = "\n".join([CAPTION, *ends, *(_conditions(source) for source, _ in found)])
    return Picture("transfer", figure, data, short, caption, "", left_out)


def _transfers(source: Source) -> tuple[Source, list[Transfer]]:
    if source.published:
        raise NothingToDraw(NOT_PRINTED)
    return source, transfers(source.tables)


def _conditions(source: Source) -> str:
    runs = source.tables.runs
    said = {name: names(runs, name) for name in ("data", "depth", "patch", "batch_size", "steps", "seed")}
    return (
        f"Measured: {source.name} (data {said['data']}), depth {said['depth']}, patch size {said['patch']}, batch "
        f"{said['batch_size']}, {said['steps']} steps, seeds {said['seed']}."
    )


def _columns(of: list[Transfer], width: style.Width) -> int:
    return 1 if width == "one" else max(2, min(3, len(of)))


def _draw_source(part: Any, source: Source, of: list[Transfer], width: style.Width) -> None:
    columns = _columns(of, width)
    rows = -(-len(of) // columns)
    part.suptitle(f"Measured: {source.name}", fontsize=9)
    above, below = part.subfigures(2, 1, height_ratios=[2.6 * rows, 2.4])
    panels = style.panels(above, len(of), columns, share=True)
    shades = _shades([one.width for design in of for one in design.widths])
    handles: dict[int, Any] = {}
    for axes, design in zip(panels, of, strict=True):
        handles |= _losses(axes, design, shades)
    _limit(panels, of)
    panels[0].set_ylabel("Training loss ↓")
    widths = sorted(handles)
    marks.below_legend(above, [handles[w] for w in widths], [f"width {w}" for w in widths], 3.2)
    drifts, excesses = style.panels(below, 2, 2)
    _drifts(drifts, of)
    _excesses(excesses, of)
    lines = [
        marks.line_handle(str(marks.series_mark(i)["color"]), marks.series_mark(i)["linestyle"]) for i in range(len(of))
    ]
    marks.below_legend(below, lines, [f"{design.design}: {design.power}" for design in of], 3.2)


def _shades(widths: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Colour and marker of each width, light to dark."""
    different = sorted(set(widths))
    looks = {}
    for index, width in enumerate(different):
        place = index * (len(SHADES) - 1) / max(1, len(different) - 1)
        mark = marks.series_mark(index % len(style.SERIES))
        looks[width] = {**mark, "color": SHADES[round(place)]}
    return looks


def _losses(axes: Axes, design: Transfer, shades: dict[int, dict[str, Any]]) -> dict[int, Any]:
    handles = {}
    for index, one in enumerate(design.widths):
        look, finite = shades[one.width], np.isfinite(one.losses).all(1)
        (handles[one.width],) = axes.plot(one.rates[finite], one.means[finite], **look)
        low, high = one.losses[finite].min(1), one.losses[finite].max(1)
        axes.fill_between(one.rates[finite], low, high, color=look["color"], alpha=0.15, linewidth=0)
        best = interval(one.optimum, one.draws)
        height = 0.03 + 0.035 * (len(design.widths) - 1 - index)
        across: Any = {"transform": axes.get_xaxis_transform(), "color": look["color"]}
        axes.plot(np.exp([best.low, best.high]), [height, height], linewidth=1.2, **across)
        mark: Any = {"marker": "o", "markersize": 4, "markerfacecolor": "white"} if one.at_end else {"marker": "|"}
        axes.plot(np.exp(best.estimate), height, **across, **mark)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(design.design)
    axes.set_xlabel("Learning rate")
    return handles


def _limit(panels: Sequence[Axes], of: Sequence[Transfer]) -> None:
    """Show what is near the lowest losses, with room for the optima below; what diverges leaves the panel."""
    means = np.concatenate([one.means[np.isfinite(one.means)] for design in of for one in design.widths])
    lowest, highest = means.min(), min(means.max(), 1.6 * np.median(means))
    span = np.log(highest * MARGIN / lowest)
    panels[0].set_ylim(lowest * np.exp(-0.25 * span), highest * MARGIN)
    for axes in panels:
        style.log_ticks(axes.yaxis)
        style.log_ticks(axes.xaxis)


def _drifts(axes: Axes, of: Sequence[Transfer]) -> None:
    for index, design in enumerate(of):
        look: dict[str, Any] = marks.series_mark(index)
        widths = np.array([one.width for one in design.widths], float)
        best = [interval(one.optimum, one.draws) for one in design.widths]
        rates = np.exp([each.estimate for each in best])
        shifted = widths * 1.03 ** (index - (len(of) - 1) / 2)  # so that intervals do not hide each other
        bars = np.abs(np.exp([[each.low for each in best], [each.high for each in best]]) - rates)
        axes.errorbar(shifted, rates, np.nan_to_num(bars), fmt="none", ecolor=look["color"], capsize=2, elinewidth=0.9)
        axes.plot(shifted, rates, **{**look, "linestyle": "none"})
        for x, rate, one in zip(shifted, rates, design.widths, strict=True):
            if one.at_end:
                axes.plot(x, rate, **{**look, "linestyle": "none", "markerfacecolor": "white"})
        line = [np.exp(design.predicted(width)[0]) for width in (min(widths), max(widths))]
        axes.plot([min(widths), max(widths)], line, color=look["color"], linestyle=look["linestyle"], linewidth=0.9)
    _width_axis(axes, of)
    axes.set_yscale("log")
    axes.margins(0.1)
    style.log_ticks(axes.yaxis)
    axes.set_ylabel("Best learning rate")


def _excesses(axes: Axes, of: Sequence[Transfer]) -> None:
    known = [[one for one in design.widths if np.isfinite(one.excess)] for design in of]
    over = [[interval(100 * one.excess, 100 * one.excess_draws) for one in widths] for widths in known]
    highest = max(each.estimate for of_design in over for each in of_design)
    shown = np.nanmax([each.high for of_design in over for each in of_design] + [highest])
    if highest > 0:  # an interval that ends far above all points leaves the panel
        shown = min(shown, TALLEST * highest)
    for index, (widths, of_design) in enumerate(zip(known, over, strict=True)):
        look: dict[str, Any] = marks.series_mark(index)
        shifted = np.array([one.width for one in widths], float) * 1.03 ** (index - (len(of) - 1) / 2)
        values = np.array([each.estimate for each in of_design])
        ends = np.array([[each.low for each in of_design], [each.high for each in of_design]])
        bars = np.abs(np.where(np.isnan(ends), values, np.minimum(ends, 2 * shown)) - values)
        axes.errorbar(shifted, values, bars, fmt="none", ecolor=look["color"], capsize=2, elinewidth=0.9)
        axes.plot(shifted, values, **look)
    if shown > 0:
        axes.set_ylim(-0.08 * shown, 1.08 * shown)
    _width_axis(axes, of)
    axes.set_ylabel("Loss above the tuned (%)")


def _width_axis(axes: Axes, of: Sequence[Transfer]) -> None:
    widths = sorted({one.width for design in of for one in design.widths})
    axes.set_xscale("log", base=2)
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    axes.set_xlabel("Width (hidden size)")


def _table(source: Source, of: Sequence[Transfer]) -> pd.DataFrame:
    rows = []
    for design in of:
        drift = interval(design.drift, design.drift_draws)
        for one in design.widths:
            best, over = interval(one.optimum, one.draws), interval(one.excess, one.excess_draws)
            of_width = {
                "optimum": np.exp(best.estimate), "optimum_low": np.exp(best.low), "optimum_high": np.exp(best.high),
                "at_end": one.at_end, "excess": over.estimate, "excess_low": over.low, "excess_high": over.high,
                "transferred": design.transferred, "drift": drift.estimate, "drift_low": drift.low,
                "drift_high": drift.high,
            }  # fmt: skip
            for rate, losses in zip(one.rates, one.losses, strict=True):
                rows.append(
                    {"source": source.name, "design": design.design, "width": one.width, "learning_rate": rate}
                    | {
                        "num_seeds": len(losses),
                        "loss": losses.mean(),
                        "loss_min": losses.min(),
                        "loss_max": losses.max(),
                    }
                    | of_width
                )
    return pd.DataFrame(rows)
