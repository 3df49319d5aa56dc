"""Published families as panels: compute against FID, a law through each family, second-hand rows in another sign."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw
from analysis.families.laws import LEVEL, FamilyLaw, family_laws
from analysis.results.published import (
    AT_THE_SOURCE,
    FAMILIES_400K,
    FAMILIES_GUIDED,
    SECOND_HAND,
    published_families,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGE_SIZE, STEPS_K = 256, 400
PATCH = 2  # of the models without guidance; of the DiT paper's others a law each is in `ditbench table families`
LABELS = {"balanced": "balanced labels", "uniform": "random labels", "": "labels not known"}
WITHOUT = f"No guidance, {STEPS_K}K steps, {LABELS['uniform']}"
MARKER = 5.5  # points
GREY = "#777777"
SHORT = (
    "Published FIDs, ImageNet 256 x 256, guided ones after all training. Each law stands on three or four models; "
    f"bars: {LEVEL:.0%} interval of one more, where there is one. Crosses: read second hand, in no law."
)
COLUMNS = ["panel", "laboratory", "family", "label", "image_size", "patch", "train_steps_k", "guidance", "labels"]
COLUMNS += ["gmacs", "fid", "checked", "law", "predicted", "predicted_low", "predicted_high", "source"]


@dataclass(frozen=True)
class Panel:
    """Rows that were scored alike, as far as is known, and the laws through those read at the source.

    points: `COLUMNS`, a row a score; law: its family's at its compute; predicted: of a family's largest model.
    """

    title: str
    points: pd.DataFrame
    laws: list[FamilyLaw]


def published_panels() -> list[Panel]:
    """ImageNet 256 x 256: without guidance after 400K steps, and with guidance after all training by label policy."""
    rows = published_families(FAMILIES_400K)
    alike = (rows["image_size"] == IMAGE_SIZE) & (rows["train_steps_k"] == STEPS_K) & (rows["labels"] == "uniform")
    alike &= rows["patch"].fillna(PATCH) == PATCH
    found = [_panel(WITHOUT, rows.loc[alike])]
    guided = published_families(FAMILIES_GUIDED)
    guided = guided.loc[(guided["image_size"] == IMAGE_SIZE) & (guided["guidance"] != "none")]
    policies = guided["labels"].fillna("")
    return found + [
        _panel(f"Guided, {said}", guided.loc[policies == policy])
        for policy, said in LABELS.items()
        if (policies == policy).any()
    ]


def _panel(title: str, rows: pd.DataFrame) -> Panel:
    points = rows.rename(columns={"model": "label"}).assign(panel=title)
    points[["law", "predicted", "predicted_low", "predicted_high"]] = np.nan
    laws = family_laws(rows)
    for law in laws:
        its = points["laboratory"].eq(law.largest["laboratory"]) & points["family"].eq(law.largest["family"])
        points.loc[its, "law"] = law.law(points.loc[its, "gmacs"])
        largest = its & points["label"].eq(law.largest["model"])
        points.loc[largest, "predicted"] = law.predicted.estimate
        if np.isfinite(law.predicted.high):
            points.loc[largest, ["predicted_low", "predicted_high"]] = law.predicted.low, law.predicted.high
    return Panel(title, points.loc[:, COLUMNS], laws)


def height(width: style.Width) -> float:
    """Of `draw_panels` of all `published_panels`, in inches."""
    return 5.7 if width == "two" else 12.0


def draw_panels(part: Any, panels: Sequence[Panel], width: style.Width) -> list[Axes]:
    """The panels in `part` of a figure: that without guidance over those with it, and one legend below all."""
    looks = _looks(panels)
    guided = len(panels) - 1
    side_by_side = width == "two"
    above, below = part.subfigures(2, 1, height_ratios=(1.15, 1) if side_by_side else (1, guided)).ravel()
    if side_by_side:  # as wide as it has names
        widths = [2 + len(panel.points) ** 0.5 for panel in panels[1:]]
        grid = below.subplots(1, guided, sharey=True, width_ratios=widths, squeeze=False)
    else:
        grid = below.subplots(guided, 1, sharey=True, squeeze=False)
    axes = [above.subplots(), *grid.ravel()]
    for each, panel in zip(axes, panels, strict=True):
        _draw(each, panel, looks)
    for each in axes[1:]:
        each.set_xlabel("GMACs")
    for each in axes[2:] if side_by_side else ():
        each.set_ylabel("")
    _legend(part, panels, looks)
    return axes


def name_panels(axes: Sequence[Axes], panels: Sequence[Panel]) -> list[str]:
    """Write the models' names beside their markers, once the figure is laid out; returns those without room."""
    looks, without = _looks(panels), []
    for each, panel in zip(axes, panels, strict=True):
        lines = [_line(law, 100) for law in panel.laws]
        for law, x in _beside(panel):
            sides = (law.predicted.low, law.predicted.high) if np.isfinite(law.predicted.high) else ()
            places = np.geomspace(*sides, 30) if sides else np.array([law.predicted.estimate])
            lines.append(np.column_stack([np.full(len(places), x), places]))
        # A replication lies on what it replicates, and has no names of its own.
        named = panel.points.loc[~_replications(panel.points)]
        coloured = [looks.get((row["family"], row["laboratory"])) for row in named.to_dict("records")]
        texts = [_size(row["label"]) if np.isfinite(row["law"]) else row["label"] for row in named.to_dict("records")]
        without += marks.name_points(
            each,
            named["gmacs"].tolist(),
            named,
            "fid",
            texts,
            np.concatenate(lines) if lines else None,
            [MARKER / 2] * len(named),
            [GREY if look is None else look["color"] for look in coloured],
        )
    return without


def _looks(panels: Sequence[Panel]) -> dict[tuple[str, str], dict[str, Any]]:
    """(family, laboratory) -> how its markers look: a colour and shape a family that has a law, a fill a laboratory."""
    families = list(dict.fromkeys(law.largest["family"] for panel in panels for law in panel.laws))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    points = pd.concat([panel.points for panel in panels])
    for index, family in enumerate(families):
        its = points.loc[points["family"].eq(family) & points["checked"].eq(AT_THE_SOURCE)]
        laboratories = list(dict.fromkeys(its["laboratory"]))
        if len(laboratories) > len(style.SOURCE_FILLS):
            most = f"needed: at most {len(style.SOURCE_FILLS)}, more cannot be told apart"
            raise NothingToDraw(f"{family} of {len(laboratories)} laboratories; {most}")
        for fill, laboratory in zip(style.SOURCE_FILLS, laboratories, strict=False):
            mark = marks.series_mark(index)
            hollow = {"markeredgecolor": mark["color"], "markeredgewidth": 1.2} if fill == "none" else {}
            look = {"fillstyle": fill, "markerfacecoloralt": "white", "markersize": MARKER, **hollow}
            found[family, laboratory] = mark | look
    return found


def _draw(axes: Axes, panel: Panel, looks: dict[tuple[str, str], dict[str, Any]]) -> None:
    for law, beside in _beside(panel):
        look = looks[law.largest["family"], law.largest["laboratory"]]
        line = _line(law, 2)
        axes.plot(line[:, 0], line[:, 1], color=look["color"], linestyle=look["linestyle"], linewidth=1.1, zorder=1)
        sides = np.array([law.predicted.estimate - law.predicted.low, law.predicted.high - law.predicted.estimate])
        axes.errorbar(
            [beside],
            [law.predicted.estimate],
            sides[:, None] if np.isfinite(sides).all() else None,
            fmt="_",
            color=look["color"],
            markersize=8,
            markeredgewidth=1.4,
            elinewidth=0.8,
            capsize=2,
            zorder=2,
        )
    for row in panel.points.to_dict("records"):
        axes.plot(row["gmacs"], row["fid"], **_mark(row, looks), linestyle="none", zorder=3)
    axes.set_title(panel.title)
    axes.set_ylabel("FID ↓")
    axes.set_yscale("log")
    style.log_ticks(axes.yaxis, (1, 1.5, 2, 3, 5, 7))
    marks.gmacs_axis(axes, "GMACs")


def _mark(row: dict[Any, Any], looks: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """The marker of a row as arguments of `Axes.plot`."""
    same_family = [look for (family, _), look in looks.items() if family == row["family"]]
    colour = same_family[0]["color"] if same_family else GREY
    if row["checked"] == SECOND_HAND:
        return {"color": colour, "marker": "x", "markersize": MARKER, "markeredgewidth": 1.2}
    if not same_family:
        return {
            "color": colour,
            "marker": "D",
            "markersize": MARKER - 1,
            "markeredgecolor": "black",
            "markeredgewidth": 0.5,
        }
    return {name: value for name, value in looks[row["family"], row["laboratory"]].items() if name != "linestyle"}


def _legend(part: Any, panels: Sequence[Panel], looks: dict[tuple[str, str], dict[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles, texts = [], []
    for (family, laboratory), look in looks.items():
        law = next(
            (
                law.law
                for panel in panels
                for law in panel.laws
                if (law.largest["family"], law.largest["laboratory"]) == (family, laboratory)
            ),
            None,
        )
        shown: dict[str, Any] = look if law else {**look, "linestyle": "none"}
        handles.append(Line2D([], [], **shown))
        several = len([one for one, _ in looks if one == family]) > 1
        name = f"{family} ({'its paper' if laboratory == family else laboratory})" if several else family
        texts.append(f"{name}: GMACs^{law.exponent:.3f}, {law.num_points} models" if law else name)
    other: dict[str, Any] = {"linestyle": "none", "color": GREY, "markersize": MARKER}
    handles += [
        Line2D([], [], marker="D", **{**other, "markersize": MARKER - 1}),
        Line2D([], [], marker="x", **other),
        Line2D([], [], marker="_", **{**other, "markersize": 8, "markeredgewidth": 1.4}),
    ]
    texts += ["under three models: no law", "second hand: in no law", "largest model, predicted from the smaller ones"]
    marks.below_legend(part, handles, texts, 3.2)


def _line(law: FamilyLaw, count: int) -> Any:
    """(count, 2) points of the law from its smallest to its largest model."""
    x = np.geomspace(law.rows["gmacs"].iloc[0], law.rows["gmacs"].iloc[-1], count)
    return np.column_stack([x, law.law(x)])


def _beside(panel: Panel) -> list[tuple[FamilyLaw, float]]:
    """Each law, and at what compute its prediction is drawn: to the right of what it predicts, clear of another's."""
    families = [law.largest["family"] for law in panel.laws]
    turns = [families[: at + 1].count(family) for at, family in enumerate(families)]
    return [(law, law.largest["gmacs"] * 1.06**turn) for law, turn in zip(panel.laws, turns, strict=True)]


def _replications(points: pd.DataFrame) -> pd.Series:
    """Whether a row is of a model that a row above it, of another laboratory, is of too."""
    return points.duplicated("label")


def _size(model: str) -> str:
    """ "XL" of "SiT-XL/2+REPA": the family is in the colour, and a panel's models of one family have one patch size."""
    found = re.search(r"-(\w+)(/\d+)?(\+\w+)?$", model)
    return found[1] if found else model


def caption(panels: Sequence[Panel]) -> list[str]:
    """What the signs mean, what the fits can carry, and in what panels differ, a paragraph each."""
    if not panels:
        return []
    return [
        "One panel for what was scored alike, ImageNet 256 x 256; guided: after all training. GMACs as each "
        "paper prints them. Lines: FID = a GMACs^b through the models of a family from one laboratory (fills, and in "
        "brackets), at least three, least squares on logarithms. Crosses were read second "
        "hand, in a paper that prints another's number, and are in no law. Bars to the right: the largest model "
        f"predicted from the others, with the {LEVEL:.0%} interval of one more model; two others have none.",
        " ".join(_carries(law) for panel in panels for law in panel.laws),
        f"Without guidance: models of patch {PATCH} or without patches. Labels matter: balanced ones, as many samples "
        "of each class, give an FID lower by about 4 % than random ones. Kinds of guidance, steps of training and "
        "statistics of the reference differ among the guided systems.",
        "Whose numbers, and where they were read: results/published.",
    ]


def _carries(law: FamilyLaw) -> str:
    """A sentence on how much a fit of so few models says."""
    row, fid, exponent = law.largest, law.largest["fid"], law.exponent
    name = row["family"] if row["family"] == row["laboratory"] else f"{row['family']} ({row['laboratory']})"
    interval = f"{exponent.estimate:.3f} ({exponent.low:.3f} to {exponent.high:.3f})"
    predicted = f"{law.predicted.estimate:.3g} predicted"
    if np.isfinite(law.predicted.high):
        predicted += f" ({law.predicted.low:.3g} to {law.predicted.high:.3g})"
    return f"{name}: b = {interval}, {law.law.num_points} models; {row['model']} {predicted}, {fid:g} printed."
