"""Training compute against the Fréchet distance, and the best score at each compute (DiT paper, Fig. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.frontier import SAID, frontier, models_and_frontier
from analysis.drawing.picture import Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import Scores, axis_name, over_seeds, scaling_scores, side_by_side, sources_of, titles
from analysis.figures.sources import Source, from_each
from analysis.laws.compute import training_gmacs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RULE = (
    "Training compute = GMACs of one forward pass x 3 x batch x steps, in billions of multiply-accumulates (the "
    "paper's Fig. 9); FLOPs are twice that. " + SAID
)
PUBLISHED = (
    "The paper prints scores at 400K steps, and of XL/2 also at 2,352K and 7M; of the other steps in its Fig. 9 it "
    "prints none."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture training_compute.

    One line for each model over its scored steps, means over seeds. Data columns: source, label, size, patch, step,
    gmacs, num_seeds, fid, fid_min, fid_max, training_gmacs, on_frontier (of its source).

    Raises:
        NothingToDraw: no score yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, scaling_scores)
    groups = side_by_side(scores)
    with style.look():
        columns = 1 if width == "one" else min(2, len(groups))
        figure = style.new_figure(width, 3.1 * -(-len(groups) // columns))
        for part, group in zip(style.parts(figure, len(groups), columns), groups, strict=True):
            _panel(part.subplots(), group)
            designs = sources_of(group) if group[0].source.design else []
            marks.shape_legend(part, pd.concat([_points(scores) for scores in group]), designs)
    data = pd.concat([_points(one) for one in scores])
    note = f"{PUBLISHED}\n" if any(one.source.published for one in scores) else ""
    caption = f"{RULE}\n{note}{protocols(scores)}"
    printed = " Printed: 400K steps, XL/2 also 2,352K and 7M." if note else ""
    short = f"{SAID} {in_short(scores)}{printed}"
    return Picture("training_compute", figure, data, short, caption, keys(scores), left_out)


def _points(scores: Scores) -> pd.DataFrame:
    points = over_seeds(scores.evals, ["step"])
    points.insert(0, "source", scores.source.called)
    batch_size = int(scores.runs["batch_size"].iloc[0])
    points = points.assign(training_gmacs=training_gmacs(points["gmacs"], batch_size, points["step"].astype(float)))
    return points.assign(on_frontier=frontier(points["training_gmacs"].tolist(), points["fid"].tolist()))


def _panel(axes: Axes, group: list[Scores]) -> None:
    for index, scores in enumerate(group):
        models_and_frontier(axes, _points(scores), "training_gmacs", index)
    draw_baselines(axes, group)
    axes.set_title(titles(group))
    axes.set_xlabel("Training compute (GMACs)")
    axes.set_ylabel(axis_name(group))
    style.log_ticks(axes.yaxis)
    if not group[0].source.design:
        marks.source_legend(axes, sources_of(group))
