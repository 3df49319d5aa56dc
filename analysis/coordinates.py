"""How large activations are over the width of a network, in both parametrisations: the coordinate check of muP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.drawing.write import write_picture
from analysis.results.visible import visible

MEASURES = {"size": "Mean |x|", "change": "Mean |x - x at the start|"}
TITLE = "Coordinate check: activations over the width"
CAPTION = (
    "Outputs of each part of the network (blocks.*: of all blocks), of one and the same batch after {} of training: "
    "their mean absolute value, and that of what training changed. Where networks of all widths learn alike, all lines "
    "are level (Yang et al. 2022, arXiv 2203.03466, Appendix D.1). A part whose outputs are still zero has no point."
)
LEGEND = 3.2


def exponents(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """After the last step: how each part grows with the width, as the slope of log on log.

    Columns: module; size_sp, size_mup, change_sp and change_mup, NaN of a part that is zero.
    """
    table = _last(rows)
    columns: dict[str, dict[str, float]] = {}
    for (module, parametrization), part in table.groupby(["module", "parametrization"], sort=False):  # pyright: ignore
        for measure in MEASURES:
            columns.setdefault(f"{measure}_{parametrization}", {})[module] = _slope(part, measure)
    order = [f"{measure}_{name}" for measure in MEASURES for name in table["parametrization"].unique()]
    return pd.DataFrame(columns).loc[:, order].rename_axis("module").reset_index()


def _slope(part: pd.DataFrame, measure: str) -> float:
    values = part[measure].to_numpy(float)
    if not (values > 0).all():
        return float("nan")
    return float(np.polyfit(np.log(part["width"].to_numpy(float)), np.log(values), 1)[0])


def draw_coordinates(rows: Sequence[dict[str, Any]], folder: Path, name: str) -> list[Path]:
    """Draw `rows` of parametrization, width, module, step, size and change; files as `write_picture`, all steps in the
    table."""
    table = _last(rows)
    steps = int(table["step"].iloc[0])
    modules, ways = table["module"].unique().tolist(), table["parametrization"].unique().tolist()
    looks = {module: marks.series_mark(index % len(style.SERIES)) for index, module in enumerate(modules)}
    for module in modules[len(style.SERIES) :]:  # hollow, of more parts than there are colours
        looks[module] |= {"markerfacecolor": "white"}
    with style.look():
        figure = style.new_figure("two", 5.0)
        part: Any = figure.subfigures(1, 1)
        panels: Any = part.subplots(len(MEASURES), len(ways), squeeze=False, sharex=True, sharey="row")
        handles: dict[str, Any] = {}
        for row, (measure, said) in zip(panels, MEASURES.items(), strict=True):
            for axes, way in zip(row, ways, strict=True):
                for module in modules:
                    line = table.loc[(table["module"] == module) & (table["parametrization"] == way)]
                    line = line.loc[line[measure] > 0]
                    (handles[module],) = axes.plot(line["width"], line[measure], **looks[module])
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                if measure == next(iter(MEASURES)):
                    axes.set_title(way)
            row[0].set_ylabel(f"{said}, {steps} step{'s' * (steps > 1)}")
        widths = sorted(set(table["width"]))
        for axes in panels[-1]:
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.minorticks_off()
            axes.set_xlabel("Width (hidden size)")
        marks.below_legend(part, [*handles.values()], [visible(module) for module in handles], LEGEND)
    caption = CAPTION.format(f"{steps} step{'s' * (steps > 1)}")
    return write_picture(Picture(name, figure, pd.DataFrame(rows), "", caption, title=TITLE), folder, "none")


def _last(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    return table.loc[table["step"] == table["step"].max()]
