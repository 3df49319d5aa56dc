"""Models of several sizes at equal training compute: which size a budget is best spent on.

J. Hoffmann et al., "Training Compute-Optimal Large Language Models", 2022, arXiv:2203.15556, Fig. 3 (approach 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import Scores, over_seeds, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.laws.compute import training_gmacs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOLERANCE = 0.02  # budgets that differ by less count as one: steps are whole numbers
MIN_SIZES = 3  # a parabola goes through three
NEEDED = (
    f"needed: models of at least {MIN_SIZES} sizes and one patch size, scored at steps that make their compute equal"
)
RULE = (
    f"Training compute = GMACs x 3 x batch x steps, equal within {TOLERANCE:.0%} on a line; lines are least-squares "
    "parabolas in log(parameters). Approach 2 of arXiv:2203.15556; a window of sizes that is not centred on the "
    "minimum biases it."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture isoflop.

    A panel a source and patch size: parameters against the mean score over seeds, a curve a compute budget. Data
    columns: source, label, size, patch, step, gmacs, num_seeds, fid, fid_min, fid_max, params, training_gmacs, budget
    (the smallest training_gmacs of its curve).

    Raises:
        NothingToDraw: no budget at which three sizes of one patch size were scored.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _curves)
    groups: list[Any] = [(scores, patch, rows) for scores, points in found for patch, rows in points.groupby("patch")]
    with style.look():
        columns = 1 if width == "one" else min(2, len(groups))
        figure = style.new_figure(width, 2.8 * -(-len(groups) // columns))
        for axes, (scores, patch, points) in zip(style.panels(figure, len(groups), columns), groups, strict=True):
            axes.set_title(f"{scores.title}, {f'patch size {patch}' if patch else 'no patches'}")
            _panel(axes, points)
    data = pd.concat([points for _, points in found])
    scores = [one for one, _ in found]
    caption = f"{RULE}\n{protocols(scores)}"
    return Picture("isoflop", figure, data, in_short(scores), caption, keys(scores), left_out)


def _curves(source: Source) -> tuple[Scores, pd.DataFrame]:
    scores = scaling_scores(source)
    points = over_seeds(scores.evals, ["step"])
    points.insert(0, "source", source.called)
    params: Any = scores.runs.drop_duplicates("label").set_index("label")["params"]
    batch_size = int(scores.runs["batch_size"].iloc[0])
    points = points.assign(
        params=points["label"].map(params),
        training_gmacs=training_gmacs(points["gmacs"], batch_size, points["step"].astype(float)),
    )
    of_patch: list[Any] = [rows for _, rows in points.groupby("patch")]
    points = pd.concat([rows.assign(budget=budgets(rows["training_gmacs"].tolist())) for rows in of_patch])
    sizes: Any = points.groupby(["patch", "budget"])["size"].transform("nunique")
    if not (sizes >= MIN_SIZES).any():
        raise NothingToDraw(f"no training compute at which {MIN_SIZES} sizes were scored; {NEEDED}")
    return scores, points.loc[sizes >= MIN_SIZES]


def budgets(compute: Sequence[float]) -> list[float]:
    """The budget of each value: values within `TOLERANCE` of the smallest of a group share it."""
    values = np.asarray(compute, dtype=float)
    found = np.zeros(len(values))
    start = -np.inf
    for index in np.argsort(values, kind="stable"):
        if values[index] > start * (1 + TOLERANCE) or start < 0:
            start = values[index]
        found[index] = start
    return found.tolist()


def _panel(axes: Axes, points: pd.DataFrame) -> None:
    for index, (budget, rows) in enumerate(points.groupby("budget")):
        look = marks.series_mark(index)
        rows = rows.sort_values("params")
        x = np.log(rows["params"].astype(float))
        grid = np.linspace(min(x), max(x), 60)
        axes.plot(
            np.exp(grid),
            np.polyval(np.polyfit(x, rows["fid"], 2), grid),
            color=look["color"],
            linestyle=look["linestyle"],
        )
        dots: dict[str, Any] = look | {"linestyle": "none", "label": f"{budget:.4g}"}
        axes.plot(rows["params"].astype(float), rows["fid"], **dots)
    axes.set_xscale("log")
    style.log_ticks(axes.xaxis)
    axes.xaxis.set_major_formatter(lambda value, _: style.steps_text(value))
    axes.set_xlabel("Parameters")
    axes.set_ylabel("Fréchet distance")
    axes.legend(title="training GMACs", title_fontsize=7)
