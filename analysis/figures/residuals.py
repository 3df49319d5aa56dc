"""What one power law in GMACs leaves over, by patch size: whether compute alone orders the models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import MACS, in_short, keys, protocols
from analysis.figures.scores import Scores, at_last_shared_step, axis_name, for_a_law, over_seeds, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.laws.power_law import power_law
from analysis.results.tables import MIN_MODELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHOD = "Law: FID = a GMACs^b through all models, least squares on logarithms. Above 1: worse than the law."


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture residuals.

    One panel for each source: the Fréchet distance over the law's, at the last shared step, means over seeds; a line
    joins the models of a patch size. Data columns: source, label, size, patch, gmacs, num_seeds, fid, fid_min, fid_max,
    law, ratio.

    Raises:
        NothingToDraw: fewer than three models.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _models)
    scores = [one for one, _ in found]
    with style.look():
        columns = 1 if width == "one" else min(2, len(found))
        legends = [
            marks.legend_height(marks.shape_texts(points), 1, style.WIDTHS[width] / columns) for _, points in found
        ]
        figure = style.new_figure(width, (2.4 + max(legends)) * -(-len(found) // columns))
        for part, (one, points) in zip(style.parts(figure, len(found), columns), found, strict=True):
            _panel(part.subplots(), one, points)
            marks.shape_legend(part, points)
    data = pd.concat([points for _, points in found])
    return Picture(
        "residuals", figure, data, in_short(scores), f"{METHOD}\n{MACS}\n{protocols(scores)}", keys(scores), left_out
    )


def _models(source: Source) -> tuple[Scores, pd.DataFrame]:
    scores = at_last_shared_step(scaling_scores(source))
    points = over_seeds(scores.evals)
    if len(points) < MIN_MODELS:
        raise NothingToDraw(f"{len(points)} models; needed: at least {MIN_MODELS} for a law")
    for_a_law(points)
    points.insert(0, "source", source.called)
    law = power_law(points["gmacs"], points["fid"])(points["gmacs"])
    return scores, points.assign(law=law, ratio=points["fid"] / law)


def _panel(axes: Axes, scores: Scores, points: pd.DataFrame) -> None:
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    ranks = style.patch_ranks(points["patch"].tolist())
    axes.axhline(1, color="#555555", linewidth=0.8, zorder=1)
    for patch, rank in ((patch, rank) for patch, rank in ranks.items() if patch):
        chosen = points.loc[points["patch"] == patch]
        axes.plot(chosen["gmacs"] / size, chosen["ratio"], color="#999999", linestyle=style.PATCH_LINES[rank], zorder=1)
    marks.scatter(axes, points, "gmacs", "ratio", unit=size)
    axes.set_title(f"{scores.title}, {style.steps_text(int(scores.evals['step'].iloc[0]))} steps")
    axes.set_ylabel(f"{axis_name([scores]).removesuffix(' ↓')} / law")
    axes.set_yscale("log")
    marks.gmacs_axis(axes, unit)
    style.log_ticks(axes.yaxis)
