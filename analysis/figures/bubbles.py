"""Bubbles of the network's compute: the models of a study, and DiT against ADM and LDM (DiT paper, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import MACS, in_short, keys, protocols, unnamed
from analysis.figures.scores import Scores, at_last_shared_step, axis_name, over_seeds, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.results.published import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINES = (
    "DiT, ADM and LDM: its Table 2 (ImageNet 256 x 256, FID-50K; DiT at 7M steps, ft-EMA decoder) and Table 6 (GMACs; "
    "ADM-U: base and upsampler; guidance, which needs two passes, and autoencoders are not counted). With guidance: at "
    "the scale with the lower FID."
)
LARGEST = {"one": 260.0, "two": 420.0}  # square points of the largest bubble
SMALLEST = 8.0  # of one whose shape and colour can be seen


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture bubbles.

    One panel for each source: GMACs against the Fréchet distance at its last shared step, mean over seeds, a bubble for
    each model and block design. With the published source also DiT-XL/2 against ADM and LDM, hollow without guidance,
    filled with it. Areas are in proportion to GMACs within a panel, but for bubbles too small to be seen. Data columns:
    panel (a source's name, or baselines), label, size, patch, family, guided, gmacs, fid.

    Raises:
        NothingToDraw: no score yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, lambda source: at_last_shared_step(scaling_scores(source)), by_design=False)
    panels = [
        (f"{one.title}, {style.steps_text(int(one.evals['step'].iloc[0]))} steps", [one], _models(one))
        for one in scores
    ]
    short = in_short(scores)
    caption = f"{MACS} Areas are in proportion to them, but for the smallest.\n{protocols(scores)}"
    paper = [one for one in scores if one.source.published]
    if paper:
        panels.append(("Published: DiT-XL/2, ADM and LDM", paper, against_unets()))
        short = f"{short[:-1]}; DiT-XL/2, ADM and LDM: guided where filled."
        caption += f"\n{BASELINES}"
    with style.look():
        columns = 1 if width == "one" else min(2, len(panels))
        figure = style.new_figure(width, 2.7 * -(-len(panels) // columns))
        axes = style.panels(figure, len(panels), columns)
        for panel, (title, of, points) in zip(axes, panels, strict=True):
            panel.set_title(title)
            panel.set_ylabel(axis_name(of))
            draw_baselines(panel, of)
            _bubbles(panel, points, width)
        style.lay_out(figure)
        without: list[str] = []
        for panel, (_, _, points) in zip(axes, panels, strict=True):
            at = (points["gmacs"] / marks.compute_unit(points["gmacs"].tolist())[1]).tolist()
            radii = [area**0.5 / 2 for area in _areas(points, width)]
            colours = [_colour_and_marker(model, points)[0] for model in points.to_dict("records")]
            names = points["label"].tolist()
            without += marks.name_points(panel, at, points, "fid", names, radii=radii, colours=colours)
    data = pd.concat([points for *_, points in panels])
    return Picture("bubbles", figure, data, short + unnamed(without), caption, keys(scores), left_out)


def against_unets() -> pd.DataFrame:
    """Table 2's diffusion models with Table 6's compute: label, family (DiT, ADM or LDM), guided, gmacs, fid.

    Of several guidance scales the one with the lowest FID. Guided models have the network, and so the GMACs, of the
    model without the "-G".
    """
    table = published("dit_table2_256")
    unets: Any = published("unet_table6_gmacs").query("image_size == 256").set_index("model")["gmacs"]
    paper = published("dit_table4").query("image_size == 256 and block == 'adaln-zero'").set_index("model")["gmacs"]
    gmacs = unets.to_dict() | {"DiT-XL/2": float(paper.loc["DiT-XL/2"].iloc[0])}
    network = table["model"].str.replace("ADM-G, ADM-U", "ADM-U").str.removesuffix("-G")
    rows = table.assign(
        panel="baselines",
        label=table["model"],
        family=network.str.extract(r"^(\w+?)(?:-|$)", expand=False),
        guided=table["model"].str.contains("-G"),
        gmacs=network.map(gmacs),
    )
    rows = rows.sort_values("fid").drop_duplicates("label").sort_index()
    return rows.loc[rows["gmacs"].notna(), ["panel", "label", "family", "guided", "gmacs", "fid"]]


def _models(scores: Scores) -> pd.DataFrame:
    points = over_seeds(scores.evals)
    points.insert(0, "panel", scores.source.name)
    columns = ["panel", "label", "size", "patch", "family", "guided", "gmacs", "fid"]
    return points.assign(family="DiT", guided=False).loc[:, columns]


def _areas(points: pd.DataFrame, width: style.Width) -> list[float]:
    return np.maximum(SMALLEST, LARGEST[width] * points["gmacs"] / max(points["gmacs"])).tolist()


def _bubbles(axes: Axes, points: pd.DataFrame, width: style.Width) -> None:
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    for model, area in zip(points.to_dict("records"), _areas(points, width), strict=True):
        colour, marker = _colour_and_marker(model, points)
        of_family = not isinstance(model.get("size"), str)
        look: dict[str, Any] = {
            "facecolors": "none" if of_family and not model["guided"] else colour,
            "edgecolors": colour if of_family else "black",
            "linewidths": 1.2 if of_family else 0.6,
        }
        axes.scatter(model["gmacs"] / size, model["fid"], s=area, marker=marker, zorder=3 - area / 1000, **look)
    axes.set_yscale("log" if min(points["fid"]) > 0 else "linear")
    marks.gmacs_axis(axes, unit)
    axes.margins(0.16)
    if min(points["fid"]) > 0:
        style.log_ticks(axes.yaxis)


def _colour_and_marker(model: dict[Any, Any], points: pd.DataFrame) -> tuple[str, str]:
    """Sizes by colour and patch sizes by shape, as everywhere; families by both."""
    if isinstance(model.get("size"), str):
        rank = style.patch_ranks(points["patch"].tolist())[model["patch"]]
        return style.looks(points["size"])[model["size"]].colour, style.PATCH_MARKERS[rank]
    return style.SERIES[("ADM", "DiT", "LDM").index(model["family"])][:2]
