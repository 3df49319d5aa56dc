"""The Fréchet distance over training, by patch size and by model size (DiT paper, Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import Scores, over_seeds, scaling_scores, side_by_side, sources_of, titles
from analysis.figures.sources import Source, from_each
from analysis.results.run_folders import SIZES

ONLY_400K = (
    "The paper prints numbers at 400K steps, and of XL/2 at 2352K and 7M; its curves between are not available as such."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture fid_vs_steps.

    First a panel a patch size with a line a model size, then the other way round. Lines are means over the
    seeds that have reached the step, bands go from the lowest to the highest; block designs are told apart by fill.
    Data columns: source, label, size, patch, step, gmacs, num_seeds, fid, fid_min, fid_max.

    Raises:
        NothingToDraw: no score yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, scaling_scores)
    groups = side_by_side(scores)
    data = pd.concat([_points(one) for one in scores])
    note = f"\n{ONLY_400K}" if any(one.source.published for one in scores) else ""
    with style.look():
        rows = 2 if width == "two" else 4
        figure = style.new_figure(width, 1.9 * rows * len(groups))
        parts: list[Any] = list(figure.subfigures(2 * len(groups), 1, squeeze=False).flat)
        for index, group in enumerate(groups):
            points = pd.concat([_points(one) for one in group])
            if len(groups) > 1:
                parts[2 * index].suptitle(titles(group), fontsize=9)
            _by_patch(parts[2 * index], points, width, sources_of(group))
            _by_size(parts[2 * index + 1], points, width, sources_of(group))
    caption = protocols(scores) + note
    return Picture("fid_vs_steps", figure, data, in_short(scores), caption, keys(scores), left_out)


def _points(scores: Scores) -> pd.DataFrame:
    points = over_seeds(scores.evals, ["step"])
    points.insert(0, "source", scores.source.called)
    return points


def _by_patch(part: Any, points: pd.DataFrame, width: style.Width, sources: list[str]) -> None:
    ranks, sizes = _patches_and_sizes(points)
    axes = _panels(part, len(ranks), width)
    for panel, patch in zip(axes, ranks, strict=True):
        panel.set_title(f"Patch size {patch}" if patch else "No patches")
        for size, look in sizes.items():
            _lines(panel, points, size, patch, look.line)
        style.step_ticks(panel)
    marks.size_legend(part, sizes, sources)


def _by_size(part: Any, points: pd.DataFrame, width: style.Width, sources: list[str]) -> None:
    ranks, sizes = _patches_and_sizes(points)
    axes = _panels(part, len(sizes), width)
    for panel, size in zip(axes, sizes, strict=True):
        panel.set_title(f"Size {size}" if size in SIZES else size)
        for patch, rank in ranks.items():
            _lines(panel, points, size, patch, style.PATCH_LINES[rank])
        style.step_ticks(panel)
    marks.patch_legend(part, ranks, sources)


def _patches_and_sizes(points: pd.DataFrame) -> tuple[dict[int, int], dict[str, style.Look]]:
    return style.patch_ranks(points["patch"].tolist()), style.looks(points["size"])


def _panels(part: Any, count: int, width: style.Width) -> list[Any]:
    axes = style.panels(part, count, count if width == "two" else 2, share=True)
    axes[0].set_ylabel("Fréchet distance")
    return axes


def _lines(axes: Any, points: pd.DataFrame, size: str, patch: int, line: Any) -> None:
    ranks, sizes = _patches_and_sizes(points)
    for index, source in enumerate(points["source"].unique()):
        chosen: Any = points["source"].eq(source) & points["size"].eq(size) & points["patch"].eq(patch)
        for _, model in points.loc[chosen].groupby("label"):
            mark = marks.model_mark(sizes[size], ranks[patch], index, scale=0.7) | {"linestyle": line}
            marks.curve(axes, model, "step", "fid", mark)
