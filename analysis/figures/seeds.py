"""How far training seeds lie apart, model by model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import Scores, at_last_shared_step, scaling_scores
from analysis.figures.sources import Source, from_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture seeds.

    One panel for each source: each seed's Fréchet distance as a percentage above or below the mean of its model's
    seeds, models in the order of compute, at the last shared step. Data columns: source, label, gmacs, seed, step, fid,
    mean, percent (of the mean, above it), std (of the seeds, with n - 1), num_seeds.

    Raises:
        NothingToDraw: no model has two seeds, or runs differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _with_seeds, by_design=False)
    scores = [one for one, _ in found]
    with style.look():
        figure = style.new_figure(width, 2.4 * len(found))
        for axes, (one, points) in zip(style.panels(figure, len(found), 1), found, strict=True):
            axes.set_title(f"{one.title}, {style.steps_text(int(points['step'].iloc[0]))} steps")
            _panel(axes, points, narrow=width == "one")
    data = pd.concat([points for _, points in found])
    return Picture("seeds", figure, data, in_short(scores), protocols(scores), keys(scores), left_out)


def _with_seeds(source: Source) -> tuple[Scores, pd.DataFrame]:
    scores = at_last_shared_step(scaling_scores(source))
    points = scores.evals.loc[:, ["label", "gmacs", "seed", "step", "fid"]]
    by_model = points.groupby("label")["fid"]
    points = points.assign(mean=by_model.transform("mean"), num_seeds=by_model.transform("size"))
    points = points.assign(percent=100 * (points["fid"] / points["mean"] - 1), std=by_model.transform("std"))
    points = points.loc[points["num_seeds"] > 1].sort_values(["gmacs", "label", "seed"], ignore_index=True)
    if points.empty:
        raise NothingToDraw("every model has one seed; needed: at least two of one model")
    for row in points.loc[points["mean"] == 0].to_dict("records")[:1]:
        raise NothingToDraw(f"the mean fid of {row['label']} is 0; percentages of it need another")
    points.insert(0, "source", source.name)
    columns = ["source", "label", "gmacs", "seed", "step", "fid", "mean", "percent", "std", "num_seeds"]
    return scores, points.loc[:, columns]


def _panel(axes: Axes, points: pd.DataFrame, narrow: bool) -> None:
    models = points["label"].drop_duplicates().tolist()
    seeds = sorted(set(points["seed"]))
    for position, label in enumerate(models):
        percent = points.loc[points["label"] == label, "percent"]
        axes.plot([position, position], [min(percent), max(percent)], color="#999999", linewidth=0.9, zorder=1)
    for index, seed in enumerate(seeds):
        rows = points.loc[points["seed"] == seed]
        look: dict[str, Any] = marks.series_mark(index) | {"linestyle": "none", "label": f"seed {seed}"}
        axes.plot([models.index(label) for label in rows["label"]], rows["percent"], **look)
    axes.axhline(0, color="#555555", linewidth=0.8, zorder=1)
    axes.set_xticks(range(len(models)), models)
    crowded = sum(len(label) + 2 for label in models) > (30 if narrow else 75)
    axes.tick_params(axis="x", labelrotation=(90 if len(models) > 16 else 45) if crowded else 0)
    axes.set_xlabel("Model, by GMACs")
    axes.set_ylabel("Fréchet distance,\n% above its seeds' mean")
    axes.legend(ncols=3, loc="upper left")
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
