"""Block designs at the same size: the Fréchet distance over training (DiT paper, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import MACS, in_short, keys, protocols
from analysis.figures.scores import Scores, checked, names, one_study, over_seeds
from analysis.figures.sources import Source, from_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

DESIGNS = ("in-context", "cross-attention", "adaln", "adaln-zero", "adaln-single")
ONLY_400K = "Of the designs the paper prints numbers at 400K steps only; its curves (Fig. 5) are not available as such."


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture blocks.

    A panel a source and model: lines over training, means over seeds with bands from the lowest to the highest; or,
    where there is one step only, one row per design. Data columns: source, label, size, patch, block, step, gmacs,
    num_seeds, fid, fid_min, fid_max.

    Raises:
        NothingToDraw: no source has two designs of one model.
        ResultsError: scores that are not finite or not comparable.
    """
    found, left_out = from_each(sources, _with_designs, by_design=False)
    data = pd.concat([_points(scores) for scores in found])
    groups: list[Any] = [
        (f"{scores.title}, {model}", points)
        for scores in found
        for model, points in _points(scores).groupby("label", sort=False)
    ]
    caption = f"{MACS}\n{protocols(found)}"
    if any(scores.source.published for scores in found):
        caption = f"{caption.replace('adaln-zero, ', '')}\n{ONLY_400K}"
    with style.look():
        columns = 1 if width == "one" else min(2, len(groups))
        figure = style.new_figure(width, 2.5 * -(-len(groups) // columns))
        for axes, (title, points) in zip(style.panels(figure, len(groups), columns), groups, strict=True):
            axes.set_title(title)
            if points["step"].nunique() == 1:
                _rows(axes, points)
            else:
                _lines(axes, points)
    return Picture("blocks", figure, data, in_short(found), caption, keys(found), left_out)


def _with_designs(source: Source) -> Scores:
    """The scores of the models that have several designs."""
    evals = source.tables.evals
    if source.published:
        evals = evals.loc[(evals["step"] == 400_000) & evals["run"].str.endswith("imagenet-256-latents")]
    if evals.empty:
        raise NothingToDraw("nothing to draw: no run has a score yet; needed: runs of two block designs")
    designs: Any = evals.groupby("network")["block"].transform("nunique")
    several = designs > 1
    if not several.any():
        only = names(evals, "block")
        raise NothingToDraw(f"every model has one block design ({only}); needed: one model with at least two")
    scores = Scores(source, checked(evals.loc[several]))
    one_study(scores.runs)
    return scores


def _points(scores: Scores) -> pd.DataFrame:
    evals = scores.evals.assign(label=scores.evals["network"])  # the designs stand in their own column
    points = over_seeds(evals, ["block", "step"])
    points.insert(0, "source", scores.source.name)
    return points


def _designs(points: pd.DataFrame) -> list[str]:
    present = points["block"].unique().tolist()
    return sorted(present, key=lambda name: (DESIGNS.index(name) if name in DESIGNS else len(DESIGNS), name))


def _lines(axes: Axes, points: pd.DataFrame) -> None:
    lines: dict[str, Line2D] = {}
    for index, design in enumerate(_designs(points)):
        chosen = points.loc[points["block"] == design]
        unit, size = marks.compute_unit(chosen["gmacs"].tolist())
        label = f"{design} ({chosen['gmacs'].iloc[0] / size:.4g} {unit})"
        lines[label] = marks.curve(axes, chosen, "step", "fid", marks.series_mark(index))
    axes.set_ylabel("Fréchet distance")
    style.step_ticks(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.1 * len(_designs(points)) * (high - low))  # room for the legend above the lines
    axes.legend(list(lines.values()), list(lines), loc="upper right")


def _rows(axes: Axes, points: pd.DataFrame) -> None:
    """One row a design: its marker at its score, with the number."""
    designs = _designs(points)
    for index, design in enumerate(designs):
        row = points.loc[points["block"] == design].iloc[0]
        axes.plot([0, row["fid"]], [index, index], color="#bbbbbb", linewidth=0.8, zorder=1)
        axes.plot(row["fid"], index, **marks.series_mark(index))
        axes.annotate(f"{row['fid']:.2f}", (row["fid"], index), (6, 0), textcoords="offset points", va="center")
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    compute = points.set_index("block")["gmacs"] / size
    axes.set_yticks(range(len(designs)), [f"{design}\n{compute[design]:.2f} {unit}" for design in designs])
    axes.grid(False, axis="y")
    axes.set_xlim(0, 1.2 * max(points["fid"]))
    axes.margins(y=0.15)
    axes.invert_yaxis()
    axes.set_xlabel(f"Fréchet distance at {style.steps_text(points['step'].iloc[0])} steps")
