"""Bubbles of the network's compute: the models of a study, and DiT against ADM and LDM (DiT paper, Fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.figures.captions import MACS, in_short, keys, protocols
from analysis.figures.scores import Scores, at_last_shared_step, over_seeds, scaling_scores
from analysis.figures.sources import Source, from_each
from analysis.results.published import published

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASELINES = (
    "DiT, ADM and LDM: its Table 2 (ImageNet 256 x 256, FID-50K; DiT at 7M steps, ft-EMA decoder) and Table 6 (GMACs; "
    "ADM-U: base and upsampler; guidance, which needs two passes, and autoencoders are not counted). Filled: guided, "
    "at the scale with the lower FID; hollow: not."
)
LARGEST = {"one": 260.0, "two": 420.0}  # square points of the largest bubble


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture bubbles.

    A panel a source: GMACs against the Fréchet distance at its last shared step, mean over seeds, a bubble for each
    model and block design. With the
    published source also DiT-XL/2 against ADM and LDM, hollow without guidance, filled with it. Areas are in
    proportion to GMACs within a panel. Data columns: panel (a source's name, or baselines), label, size,
    patch, family, guided, gmacs, fid.

    Raises:
        NothingToDraw: no score yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, lambda source: at_last_shared_step(scaling_scores(source)), by_design=False)
    data = [_models(one) for one in scores]
    titles = [f"{one.title}, {style.steps_text(int(one.evals['step'].iloc[0]))} steps" for one in scores]
    caption = f"{MACS} Areas are in proportion to them.\n{protocols(scores)}"
    if any(one.source.published for one in scores):
        data.append(against_unets())
        titles.append("Published: DiT-XL/2, ADM and LDM")
        caption += f"\n{BASELINES}"
    with style.look():
        columns = 1 if width == "one" else min(2, len(data))
        figure = style.new_figure(width, 2.7 * -(-len(data) // columns))
        axes = style.panels(figure, len(data), columns)
        for panel, points, title in zip(axes, data, titles, strict=True):
            panel.set_title(title)
            _bubbles(panel, points, width)
        style.lay_out(figure)
        for panel, points in zip(axes, data, strict=True):
            unit = marks.compute_unit(points["gmacs"].tolist())[1]
            at, gap = (points["gmacs"] / unit).tolist(), _gap(points, width)
            marks.name_points(panel, at, points, "fid", points["label"].tolist(), gap=gap)
    return Picture("bubbles", figure, pd.concat(data), in_short(scores), caption, keys(scores), left_out)


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
    return (LARGEST[width] * points["gmacs"] / max(points["gmacs"])).tolist()


def _gap(points: pd.DataFrame, width: style.Width) -> list[float]:
    """The bubbles' radii in points: labels start outside."""
    return [area**0.5 / 2 for area in _areas(points, width)]


def _bubbles(axes: Axes, points: pd.DataFrame, width: style.Width) -> None:
    unit, size = marks.compute_unit(points["gmacs"].tolist())
    for model, area in zip(points.to_dict("records"), _areas(points, width), strict=True):
        look = _look(model, points)
        axes.scatter(model["gmacs"] / size, model["fid"], s=area, zorder=3 - area / 1000, **look)
    axes.set_ylabel("FID-50K" if set(points["panel"]) <= {"published", "baselines"} else "Fréchet distance")
    marks.gmacs_axis(axes, unit)
    axes.margins(0.16)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def _look(model: dict[Any, Any], points: pd.DataFrame) -> dict[str, Any]:
    """Sizes by colour and patch sizes by shape, as everywhere; families by both; hollow without guidance."""
    if "size" in model and isinstance(model["size"], str):
        rank = style.patch_ranks(points["patch"].tolist())[model["patch"]]
        colour, marker = style.looks(points["size"])[model["size"]].colour, style.PATCH_MARKERS[rank]
        return {"marker": marker, "facecolors": colour, "edgecolors": "black", "linewidths": 0.6, "alpha": 0.9}
    colour, marker, _ = style.SERIES[("ADM", "DiT", "LDM").index(model["family"])]
    face = colour if model["guided"] else "none"
    return {"marker": marker, "facecolors": face, "edgecolors": colour, "linewidths": 1.2, "alpha": 0.9}
