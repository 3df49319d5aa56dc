"""Compute of one forward pass against the Fréchet distance (DiT paper, Fig. 8).

Sources of the same data, evaluation key and step share a panel, others have one each: their scores cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols, unnamed
from analysis.figures.scores import (
    Scores,
    at_last_shared_step,
    axis_name,
    has_line,
    over_seeds,
    scaling_scores,
    side_by_side,
    sources_of,
    titles,
)
from analysis.figures.sources import Source, from_each
from analysis.laws.power_law import log_linear
from analysis.results.tables import MIN_MODELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED = 12  # points of several designs, whose names are long
MAX_SEEDS = 3  # whose correlations are all written in a panel


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture gflops_vs_fid.

    Scores are of the last step that at least half as many runs have a score at as at any step; markers are
    means over seeds, bars go from the lowest to the highest seed, the line is least squares of the score on
    log10(GMACs), and r is Pearson's correlation, of each seed where there are several. Block designs of a study share
    a panel, with a fill and a line each. Data columns: panel (measured
    or published), source, label, size, patch, gmacs, num_seeds, fid, fid_min, fid_max, line (the fitted line's fid;
    empty with fewer than three models).

    Raises:
        NothingToDraw: no score yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, lambda source: at_last_shared_step(scaling_scores(source)))
    groups = side_by_side(scores, also=("step",))
    data = [_points(one) for one in scores]
    with style.look():
        columns = 1 if width == "one" else 2
        rows = -(-len(groups) // columns)
        figure = style.new_figure(width, 2.7 * rows)
        axes = style.panels(figure, len(groups), columns)
        said = [text for panel, group in zip(axes, groups, strict=True) for text in _panel(panel, group)]
        style.lay_out(figure)
        without = [name for panel, group in zip(axes, groups, strict=True) for name in _name(panel, group)]
    return Picture(
        "gflops_vs_fid",
        figure,
        pd.concat(data),
        in_short(scores) + unnamed(without),
        "\n".join([MACS, *said, protocols(scores)]),
        keys(scores),
        left_out,
    )


def _points(scores: Scores) -> pd.DataFrame:
    points = over_seeds(scores.evals)
    line = log_linear(points["gmacs"], points["fid"])(points["gmacs"]) if has_line(points) else np.nan
    points.insert(0, "panel", "published" if scores.source.published else "measured")
    points.insert(1, "source", scores.source.called)
    return points.assign(line=line)


def _panel(axes: Axes, group: list[Scores]) -> list[str]:
    """Draw a panel; what has no room in its corner is for the caption."""
    unit, size = marks.compute_unit(_points(group[0])["gmacs"].tolist())
    texts: list[str] = []
    too_few = len(group) > 1 and all(scores.evals["label"].nunique() < MIN_MODELS for scores in group)
    for index, scores in enumerate(group):
        points = _points(scores)
        if has_line(points):
            line = style.SOURCE_LINES[index]
            axes.plot(points["gmacs"] / size, points["line"], color="#777777", linewidth=1, linestyle=line, zorder=1)
        marks.scatter(axes, points, "gmacs", "fid", index, size)
        prefix = f"{sources_of(group)[index]}: " if len(group) > 1 else ""
        texts += [] if too_few else [f"{prefix}{text}" for text in _correlations(scores, points)]
    step = style.steps_text(int(group[0].evals["step"].iloc[0]))
    axes.set_title(f"{titles(group)}, {step} steps")
    axes.set_ylabel(axis_name(group))
    draw_baselines(axes, group)
    marks.gmacs_axis(axes, unit)
    texts = ["too few models for a line"] if too_few else texts
    fits = marks.fits_in_corner(axes, texts)
    marks.corner_text(axes, texts if fits else ["r of each design: in the caption"])
    if not _few_designs(group):
        marks.source_legend(axes, sources_of(group))
    return [] if fits else [f"{'; '.join(texts)}."]


def _few_designs(group: list[Scores]) -> bool:
    """Whether the panel holds so few models of one study's designs that each can be named."""
    designs = {scores.source.design for scores in group}
    return len(designs) > 1 and sum(len(set(scores.evals["label"])) for scores in group) <= MAX_NAMED


def _correlations(scores: Scores, points: pd.DataFrame) -> list[str]:
    """r of the models, or of each seed's; of many seeds the lowest and the highest."""
    seeds: list[Any] = [models for _, models in scores.evals.groupby("seed")]
    trends = [models for models in (seeds if len(seeds) > 1 else [points]) if has_line(models)]
    found = [f"{log_linear(models['gmacs'], models['fid']).r:.3f}".replace("-", "−") for models in trends]
    counts = sorted({len(models) for models in trends})
    if not found:
        return [f"{len(points)} model{'s' if len(points) > 1 else ''}: too few for a line"]
    of = f"{' to '.join(dict.fromkeys(map(str, (counts[0], counts[-1]))))} models"
    if len(seeds) == 1:
        return [f"r = {found[0]}, {of}"]
    if len(found) > MAX_SEEDS:
        return [f"r from {min(found)} to {max(found)}", f"over {len(found)} seeds, {of}"]
    return [f"r of each seed: {', '.join(found)}", of]


def _name(axes: Axes, group: list[Scores]) -> list[str]:
    """Label every point of a few designs; else the first source's: the others have the same shapes and colours.

    Returns the names for which there is no room.
    """
    if _few_designs(group):
        points = pd.concat([_points(scores) for scores in group])
        unit = marks.compute_unit(points["gmacs"].tolist())[1]
        return marks.name_points(axes, (points["gmacs"] / unit).tolist(), points, "fid", points["label"].tolist())
    points = _points(group[0])
    compute = (points["gmacs"] / marks.compute_unit(points["gmacs"].tolist())[1]).tolist()
    line = None
    if has_line(points):  # straight on these axes
        ends = points["line"].tolist()
        line = np.column_stack([np.geomspace(compute[0], compute[-1], 200), np.linspace(ends[0], ends[-1], 200)])
    return marks.name_points(axes, compute, points, "fid", group[0].named(points), line)
