"""The Fréchet distance over training, by patch size and by model size (DiT paper, Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import (
    Scores,
    at_last_shared_step,
    axis_name,
    over_seeds,
    scaling_scores,
    side_by_side,
    sources_of,
    titles,
)
from analysis.figures.sources import Source, from_each
from analysis.results.run_folders import SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_PRINTED = (
    "The paper prints numbers at 400K steps, and of XL/2 at 2352K and 7M; the curves of its Fig. 6 are not available "
    "as numbers."
)
MAX_NUMBERS = 6  # scores of a panel that are written beside their markers
MAX_CHARACTERS = 24  # below a panel, from left to right


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture fid_vs_steps.

    First one panel for each patch size with one line for each model size, then the other way round. Lines are means
    over the seeds that have reached the step, bands go from the lowest to the highest; block designs are told apart by
    fill. Where most models were scored once, as in the paper's tables, their scores stand side by side in place of
    curves, and beside them the curves of the others. Data columns: source, label, size, patch, step, gmacs, num_seeds,
    fid, fid_min, fid_max.

    Raises:
        NothingToDraw: no score yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, scaling_scores)
    groups = side_by_side(scores)
    data = [pd.concat([_points(one) for one in group]) for group in groups]
    with style.look():
        heights = [_height(group, points, width) for group, points in zip(groups, data, strict=True)]
        figure = style.new_figure(width, sum(heights))
        parts: list[Any] = list(figure.subfigures(len(groups), 1, squeeze=False, height_ratios=heights).flat)
        for part, group, points in zip(parts, groups, data, strict=True):
            part.suptitle(titles(group), fontsize=9)
            if _are_mostly_single(points):
                _at_one_step(part, group, width)
            else:
                _over_steps(part, group, points, width)
    paper = any(one.source.published for one in scores)
    short = in_short(scores) + (" The paper's curves are not published as numbers." if paper else "")
    caption = protocols(scores) + (f"\n{NOT_PRINTED}" if paper else "")
    return Picture("fid_vs_steps", figure, pd.concat(data), short, caption, keys(scores), left_out)


def _points(scores: Scores) -> pd.DataFrame:
    points = over_seeds(scores.evals, ["step"])
    points.insert(0, "source", scores.source.called)
    return points


def _are_mostly_single(points: pd.DataFrame) -> bool:
    """Whether most models were scored once: their curves would be dots."""
    counts: Any = points.groupby(["source", "label"])["step"].nunique()
    return bool((counts == 1).mean() > 0.5)


def _height(group: list[Scores], points: pd.DataFrame, width: style.Width) -> float:
    if _are_mostly_single(points):
        legend = marks.legend_height(marks.shape_texts(points, sources_of(group)), 1, style.WIDTHS[width])
        return 0.6 + 1.7 * len(_mosaic(*_ends_and_curves(group), width)) + legend
    return 0.25 + sum(_strip_heights(points, width))


# Curves: a strip of panels by patch size, and one by model size


def _strips(points: pd.DataFrame) -> dict[str, dict[Any, pd.DataFrame]]:
    """The panels by "patch" and by "size": those sizes that have several patch sizes."""
    patches = style.patch_ranks(points["patch"].tolist())
    sizes: dict[Any, Any] = {size: points.loc[points["size"] == size] for size in style.looks(points["size"])}
    several = {size: rows for size, rows in sizes.items() if rows["patch"].nunique() > 1}
    by_patch = {"patch": {patch: points.loc[points["patch"] == patch] for patch in patches}}
    return by_patch | ({"size": several} if several else {})


def _columns(count: int, width: style.Width) -> int:
    return min(count, 4 if width == "two" else 2)


def _strip_heights(points: pd.DataFrame, width: style.Width) -> list[float]:
    heights: list[float] = []
    for by, panels in _strips(points).items():
        columns = _columns(len(panels), width)
        models = [style.size_text(size) for size in points["size"].unique()]
        texts = [*(models if by == "patch" else map(style.patch_text, points["patch"].unique()))]
        legend = marks.legend_height([*texts, *points["source"].unique()], 3.2, style.WIDTHS[width])
        heights.append(1.4 * -(-len(panels) // columns) + 0.25 + (0 if _has_cell(len(panels), columns) else legend))
    return heights


def _has_cell(count: int, columns: int) -> bool:
    """Whether the last row has a place free, for the legend."""
    return count % columns > 0


def _over_steps(part: Any, group: list[Scores], points: pd.DataFrame, width: style.Width) -> None:
    strips, heights = _strips(points), _strip_heights(points, width)
    ranks, looks = style.patch_ranks(points["patch"].tolist()), style.looks(points["size"])
    for strip, (by, panels) in zip(
        part.subfigures(len(strips), 1, squeeze=False, height_ratios=heights).flat, strips.items(), strict=True
    ):
        columns = _columns(len(panels), width)
        free = _has_cell(len(panels), columns)
        axes = style.panels(strip, len(panels) + free, columns, share=True)
        for index, (panel, (value, rows)) in enumerate(zip(axes, panels.items(), strict=False)):
            panel.set_title(_title(by, value))
            _lines(panel, rows, by, ranks, looks, list(points["source"].unique()))
            draw_baselines(panel, group, named=(index + 1) % columns == 0)
        for index, panel in enumerate(axes[: len(panels)]):
            style.step_ticks(panel)
            if index + columns < len(panels):
                panel.set_xlabel("")
            else:
                panel.tick_params(labelbottom=True)
            if min(points["fid_min"]) > 0:
                panel.set_yscale("log")
                style.log_ticks(panel.yaxis)
            panel.set_ylabel(axis_name(group) if index % columns == 0 else "")
        cell = axes[-1] if free else None
        if by == "patch":
            marks.size_legend(strip, looks, sources_of(group), cell)
        else:
            marks.patch_legend(strip, ranks, sources_of(group), cell)


def _title(by: str, value: Any) -> str:
    if by == "patch":
        return f"Patch size {value}" if value else "No patches"
    return f"Size {value}" if value in SIZES else value


def _lines(
    axes: Axes,
    points: pd.DataFrame,
    by: str,
    ranks: dict[int, int],
    looks: dict[str, style.Look],
    sources: list[str],
) -> None:
    """One line for each model; the small markers, which the large ones would hide, are drawn last."""
    models: list[Any] = list(points.groupby(["size", "patch", "source", "label"], sort=False))
    for (size, patch, source, _), model in sorted(models, key=lambda named: -looks[named[0][0]].area):
        line = looks[size].line if by == "patch" else style.PATCH_LINES[ranks[patch]]
        mark = marks.model_mark(looks[size], ranks[patch], sources.index(source), scale=0.6) | {"linestyle": line}
        marks.curve(axes, model, "step", "fid", mark)


# Scores at one step, side by side, and the curves of the models that have one


def _ends_and_curves(group: list[Scores]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The scores at the last shared step, and all those of models with several steps, or with none at that step."""
    ends = pd.concat([_points(at_last_shared_step(one)) for one in group])
    every = pd.concat([_points(one) for one in group])
    steps: Any = every.groupby(["source", "label"])["step"].transform("nunique")
    return ends, every.loc[(steps > 1) | ~every["label"].isin(ends["label"])]


def _mosaic(ends: pd.DataFrame, curves: pd.DataFrame, width: style.Width) -> list[list[str]]:
    """The panels of each row, by what is on their horizontal axis: "size", "patch" or "step"."""
    at_end = ["size", "patch"] if len(set(ends["patch"])) > 1 else ["size"]
    over_steps = ["step"] if len(curves) else []
    if width == "two" or len(at_end + over_steps) < 3:
        return [at_end + over_steps]
    return [at_end, over_steps * len(at_end)]


def _at_one_step(part: Any, group: list[Scores], width: style.Width) -> None:
    points, curves = _ends_and_curves(group)
    every = pd.concat([_points(one) for one in group])
    axes: dict[str, Axes] = part.subplot_mosaic(_mosaic(points, curves, width))
    ranks, looks = style.patch_ranks(every["patch"].tolist()), style.looks(every["size"])
    sources = list(every["source"].unique())
    steps = " and ".join(style.steps_text(step) for step in sorted(set(points["step"])))
    _categories(axes["size"], points, "size", list(looks), ranks, looks, sources)
    axes["size"].set_title(f"{steps} steps, by model size")
    axes["size"].set_xlabel("Model size" if set(looks) <= set(SIZES) else "Model")
    if "patch" in axes:
        _categories(axes["patch"], points, "patch", list(ranks), ranks, looks, sources)
        axes["patch"].set_title(f"{steps} steps, by patch size")
        axes["patch"].set_xlabel("Patch size")
        axes["patch"].sharey(axes["size"])
    if "step" in axes:
        _lines(axes["step"], curves, "size", ranks, looks, sources)
        _numbers(axes["step"], curves)
        axes["step"].set_title(f"{_some(curves['label'].unique().tolist())} over training")
        style.step_ticks(axes["step"])
    for panel in axes.values():
        draw_baselines(panel, group, named=panel is list(axes.values())[-1])
        if min(every["fid_min"]) > 0:
            panel.set_yscale("log")
        panel.margins(0.2 if panel is axes.get("step") else 0.12)
        if min(every["fid_min"]) > 0:
            style.log_ticks(panel.yaxis)
    axes["size"].set_ylabel(axis_name(group))
    if width == "one" and "step" in axes:
        axes["step"].set_ylabel(axis_name(group))
    marks.shape_legend(part, every, sources_of(group))


def _categories(
    axes: Axes,
    points: pd.DataFrame,
    by: str,
    values: list[Any],
    ranks: dict[int, int],
    looks: dict[str, style.Look],
    sources: list[str],
) -> None:
    """A place for each of `values` of the column `by`, and lines between the models that differ in it only."""
    other = "patch" if by == "size" else "size"
    groups: list[Any] = list(points.groupby([other, "source"], sort=False))
    for (value, source), rows in groups:
        rows = rows.sort_values(by, key=lambda column: column.map(values.index), kind="stable")
        line = style.PATCH_LINES[ranks[value]] if by == "size" else looks[value].line
        colour = "#999999" if by == "size" else looks[value].colour
        places = [values.index(here) for here in rows[by]]
        axes.plot(places, rows["fid"], linestyle=line, color=colour, linewidth=1, zorder=1)
        for place, model in zip(places, rows.to_dict("records"), strict=True):
            look = looks[model["size"]]
            mark = marks.model_mark(look, ranks[model["patch"]], sources.index(source), scale=0.8)
            axes.plot(place, model["fid"], linestyle="none", zorder=3 - look.area / 100, **mark)
    axes.set_xticks(range(len(values)), [str(value) if value else "none" for value in values])
    if sum(len(str(value)) + 1 for value in values) > MAX_CHARACTERS:
        axes.tick_params(axis="x", labelrotation=90)


def _numbers(axes: Axes, points: pd.DataFrame) -> None:
    """The scores beside their markers, where they are few."""
    if len(points) <= MAX_NUMBERS:
        for row in points.to_dict("records"):
            axes.annotate(f"{row['fid']:.4g}", (row["step"], row["fid"]), (3, 4), textcoords="offset points")


def _some(labels: list[str]) -> str:
    return " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} models"
