"""Model families on one axis: compute of one forward pass against the Fréchet distance, and a law through each family.

Families share a panel where data, evaluation key, step and objective agree: else they would differ in more than the
family. The papers' families, of which less is known, are in panels of their own: `analysis.families.panels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.families import panels as of_papers
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols, unnamed
from analysis.figures.scores import (
    Scores,
    at_last_shared_step,
    axis_name,
    has_line,
    names,
    over_seeds,
    scaling_scores,
    side_by_side,
    titles,
)
from analysis.figures.sources import Source, from_each
from analysis.laws.power_law import power_law
from analysis.results.model_names import differing_settings
from analysis.results.tables import MODEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHOD = (
    "One colour and marker a family. Lines: FID = a GMACs^b through the models of a family (means over seeds), least "
    "squares on logarithms, where there are at least three of different compute and the score falls with compute by "
    "every seed alone. They have no intervals: how many times the compute of another a family needs, and how surely, "
    "`ditbench compare --by family` says."
)
MARKER = 5.5  # points


@dataclass(frozen=True)
class _Series:
    """Models of a family that one law is of; fill: which of `style.SOURCE_FILLS`; points: a row a model, by compute."""

    family: str
    fill: int
    points: pd.DataFrame

    @property
    def has_law(self) -> bool:
        return bool(np.isfinite(self.points["law"].to_numpy(float)).all())


@dataclass(frozen=True)
class _Panel:
    """Scores that share axes, of at least two families; points: a row a model, as `draw` has them."""

    group: list[Scores]
    points: pd.DataFrame

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(source, design) in the order of their fills.

        Raises:
            NothingToDraw: there are more of them than can be told apart.
        """
        found = sorted(
            dict.fromkeys(zip(self.points["source"], self.points["design"], strict=True)),
            key=lambda pair: ([one.source.name for one in self.group].index(pair[0]), pair[1] != ""),
        )
        if len(found) > len(style.SOURCE_FILLS):
            raise NothingToDraw(
                f"{len(found)} sources and block designs in one panel; needed: at most {len(style.SOURCE_FILLS)}"
            )
        return found

    @property
    def series(self) -> list[_Series]:
        groups: Any = self.points.groupby(["family", "source", "design"], sort=False)
        return [
            _Series(family, self.sources.index((source, design)), rows.sort_values("gmacs"))
            for (family, source, design), rows in groups
        ]


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture families.

    Scores are of the last shared step; markers are means over seeds, bars go from the lowest to the highest seed. Where
    a family is of several sources, or its models have several block designs, fills tell these apart, and each has a law
    of its own. Data columns: source, objective, family, design (if models have several), label, size, patch, gmacs,
    num_seeds, fid, fid_min, fid_max, law (the law's fid; empty without one). Of the papers' families, which stand
    below: see `analysis.families.panels`.

    Raises:
        NothingToDraw: no two families have scores that may share axes.
        ResultsError: scores that are not finite or not comparable.
    """
    printed = of_papers.published_panels() if any(source.published for source in sources) else []
    own = [source for source in sources if not source.published]
    try:
        panels, left_out = _panels(own) if own else ([], [])
    except NothingToDraw as error:
        if not printed:
            raise
        panels, left_out = [], [str(error)]
    order = list(dict.fromkeys(name for panel in panels for name in _families(panel.group)))
    marked = {name: marks.series_mark(index) for index, name in enumerate(order)}
    columns = 1 if width == "one" else min(2, len(panels))
    heights = [2.9 * -(-len(panels) // columns) + 0.3] if panels else []
    heights += [of_papers.height(width)] if printed else []
    with style.look():
        figure = style.new_figure(width, sum(heights))
        # Each has its legend: below it, the figure's own may have a caption.
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel().tolist()
        axes = style.panels(parts[0], len(panels), columns) if panels else []
        for each, panel in zip(axes, panels, strict=True):
            _draw(each, panel, marked)
        if panels:
            _legend(parts[0], panels, marked)
        others = of_papers.draw_panels(parts[-1], printed, width) if printed else []
        style.lay_out(figure)
        without = [name for each, panel in zip(axes, panels, strict=True) for name in _name(each, panel, marked)]
        without += of_papers.name_panels(others, printed) if printed else []
    scores = [one for panel in panels for one in panel.group]
    data = pd.concat([panel.points for panel in (*panels, *printed)])
    own_caption = [METHOD, *_without_law(panels), MACS, protocols(scores)] if panels else [MACS]
    caption = "\n".join([*own_caption, *of_papers.caption(printed)])
    short = " ".join([*([in_short(scores)] if panels else []), *([of_papers.SHORT] if printed else [])])
    return Picture("families", figure, data, short + unnamed(without), caption, keys(scores), left_out)


def _panels(sources: Sequence[Source]) -> tuple[list[_Panel], list[str]]:
    """The panels of one's own runs, and a line for each that has not two families.

    Raises:
        NothingToDraw: none has.
    """
    found, left_out = from_each(sources, _by_objective, by_design=False)
    groups = side_by_side([one for each in found for one in each], also=("step", "objective"))
    panels = [_Panel(group, _points(group)) for group in groups if len(_families(group)) > 1]
    if not panels:
        one = ", ".join(sorted({name for group in groups for name in _families(group)}))
        raise NothingToDraw(f"one family ({one}) has scores under any one key; needed: two model families")
    alone = [group for group in groups if len(_families(group)) == 1]
    return panels, left_out + [f"{titles(group)}: one family ({names(group[0].runs, 'family')})" for group in alone]


def _by_objective(source: Source) -> list[Scores]:
    """The last shared scores of each objective, whose `design` says what it has and the others have not."""
    scores = at_last_shared_step(scaling_scores(source))
    objectives = dict(zip(scores.runs["run"], scores.runs["objective"], strict=True))
    evals = scores.evals.assign(objective=[objectives[run] for run in scores.evals["run"]])
    return [
        Scores(replace(source, design=said), evals.loc[evals["objective"].eq(objective)])
        for objective, said in _apart(list(dict.fromkeys(evals["objective"]))).items()
    ]


def _apart(objectives: list[str]) -> dict[str, str]:
    """Of each objective the words that not all have; its name, if there are none."""
    words = {each: each.split() for each in objectives}
    common = set.intersection(*map(set, words.values()))
    if len(objectives) == 1:
        return dict.fromkeys(objectives, "")
    return {each: " ".join(word for word in said if word not in common) or said[0] for each, said in words.items()}


def _families(group: Sequence[Scores]) -> list[str]:
    """In the order of their first models' compute."""
    runs = pd.concat([one.runs for one in group]).sort_values("gmacs", kind="stable")
    return [str(family) for family in dict.fromkeys(runs["family"])]


def _points(group: Sequence[Scores]) -> pd.DataFrame:
    found: list[pd.DataFrame] = []
    for one in group:
        runs = one.runs
        for family in _families([one]):
            evals = one.evals.loc[one.evals["family"] == family]
            # A family whose block goes with the size is one design; one that has a model in two of them is several.
            several = bool(differing_settings(runs.loc[runs["family"] == family], MODEL, ["block"]))
            for block, rows in evals.groupby("block" if several else "family"):
                points = over_seeds(rows)
                points.insert(0, "source", one.source.name)
                points.insert(1, "objective", rows["objective"].iloc[0])
                points.insert(2, "family", family)
                points.insert(3, "design", block if several else "")
                found.append(points.assign(law=_law(rows, points)))
    return pd.concat(found, ignore_index=True)


def _law(evals: pd.DataFrame, points: pd.DataFrame) -> Any:
    """The law at the points' compute, where the data carry one."""
    seeds: list[Any] = [models for _, models in evals.groupby("seed")]
    fits = [points, *(models for models in seeds if has_line(models))]
    if not has_line(points) or min(evals["fid"]) <= 0:
        return np.nan
    if max(power_law(models["gmacs"], models["fid"]).exponent for models in fits) >= 0:
        return np.nan
    return power_law(points["gmacs"], points["fid"])(points["gmacs"])


def _draw(axes: Axes, panel: _Panel, marked: dict[str, dict[str, Any]]) -> None:
    points = panel.points
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    for series in panel.series:
        mark, rows = marked[series.family], series.points
        if series.has_law:
            line = {"color": mark["color"], "linestyle": mark["linestyle"], "linewidth": 1.1, "zorder": 1}
            axes.plot(rows["gmacs"] / size, rows["law"], **line)
        if max(rows["num_seeds"]) > 1:
            bars = np.maximum(0, [rows["fid"] - rows["fid_min"], rows["fid_max"] - rows["fid"]])
            axes.errorbar(
                rows["gmacs"] / size, rows["fid"], bars, fmt="none", ecolor="#555555", elinewidth=0.8, capsize=1.5
            )
        axes.plot(rows["gmacs"] / size, rows["fid"], **_look(mark, series.fill), zorder=3)
    step = style.steps_text(int(panel.group[0].evals["step"].iloc[0]))
    axes.set_title(f"{titles(panel.group)}, {step} steps")
    axes.set_ylabel(axis_name(panel.group))
    draw_baselines(axes, panel.group)
    if min(points["fid_min"]) > 0:
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis, (1, 2, 3, 5, 7))
    marks.gmacs_axis(axes, unit)


def _look(mark: dict[str, Any], fill: int) -> dict[str, Any]:
    """The markers of a family from one source, as arguments of `Axes.plot`."""
    of_fill = {"fillstyle": style.SOURCE_FILLS[fill], "markerfacecoloralt": "white", "linestyle": "none"}
    edge = {"markeredgecolor": mark["color"], "markeredgewidth": 1.2} if style.SOURCE_FILLS[fill] == "none" else {}
    return {**mark, **of_fill, **edge, "markersize": MARKER}


def _legend(part: Any, panels: list[_Panel], marked: dict[str, dict[str, Any]]) -> None:
    """Which style is which family, and which fill which source or design, under all panels."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [Line2D([], [], **{**mark, "markersize": MARKER}) for mark in marked.values()]
    pairs = [pair for panel in panels if len(panel.sources) > 1 for pair in panel.sources]
    texts = list(dict.fromkeys(", ".join(filter(None, pair)) for pair in pairs))
    marks.line_legend(part, handles, list(marked), texts)


def _name(axes: Axes, panel: _Panel, marked: dict[str, dict[str, Any]]) -> list[str]:
    """Write the models' names beside their markers; returns those for which there is no room."""
    points = panel.points
    size = marks.compute_unit(points["gmacs"].tolist())[1]
    networks: dict[str, str] = {}
    for one in panel.group:
        networks |= dict(zip(one.evals["label"], one.named(one.evals), strict=True))
    lines = []
    for series in panel.series:
        if series.has_law:  # straight on these axes
            first, last = series.points.iloc[[0, -1]].loc[:, ["gmacs", "law"]].to_numpy(float) / [size, 1]
            lines.append(np.geomspace(first, last, 100))
    return marks.name_points(
        axes,
        (points["gmacs"] / size).tolist(),
        points,
        "fid",
        [_short(networks[label], family) for label, family in zip(points["label"], points["family"], strict=True)],
        np.concatenate(lines) if lines else None,
        [MARKER / 2] * len(points),
        [marked[family]["color"] for family in points["family"]],
    )


def _short(name: str, family: str) -> str:
    """A model's name without its family, which colour and marker say: "S/2" of "DiT-S/2", "DiT S/2" or "S/2 DiT"."""
    return name.removeprefix(family).removesuffix(family).strip(" -") or name


def _without_law(panels: list[_Panel]) -> list[str]:
    """A line that names the families without a law; none if all have one."""
    said = [
        f"{', '.join(filter(None, (series.family, *panel.sources[series.fill])))} ({len(series.points)} models)"
        for panel in panels
        for series in panel.series
        if not series.has_law
    ]
    return [f"No law: {'; '.join(dict.fromkeys(said))}."] if said else []
