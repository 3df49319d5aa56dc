"""Which share of a model's multiply-accumulates goes where: one bar for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import Picture
from analysis.drawing.write import write_picture
from analysis.results.visible import visible

# The same colour for the same part in every picture; others take those that are left, in turn.
COLOURS = {
    "attention": "#0072B2",
    "cross-attention": "#56B4E9",
    "MLP": "#E69F00",
    "conditioning": "#009E73",
    "embedders": "#CC79A7",
    "final layer": "#D55E00",
    "normalisation": "#999999",
}
OTHERS = ("#F0E442", "#8C6BB1", "#6B4F2A", "#BBBBBB")
REST = "other"
TITLE = "Where one forward pass is spent"
CAPTION = (
    "Shares of the multiply-accumulates of one forward pass of one image, counted operator by operator: linear maps, "
    "convolutions, attention products, and one for each element that a norm of the blocks gives."
)
WRITTEN = 4.5  # per cent: a smaller segment has no room for its number
BAR = 0.27  # inches for a bar and the gap to the next
LONGEST_NAME = 45  # characters
IN_LEGEND = 110  # characters in a line of the legend


def draw_shares(rows: Sequence[dict[str, Any]], folder: Path, name: str) -> list[Path]:
    """Draw `rows`, all parts of a model together: model, part, gmacs and share_percent; files as `write_picture`."""
    table = pd.DataFrame(rows)
    with style.look():
        figure = _figure(_merged(table))
    return write_picture(Picture(name, figure, table, "", CAPTION, title=TITLE), folder, "none")


def _merged(table: pd.DataFrame) -> pd.DataFrame:
    """With as many parts as there are colours: the smallest of those without one of their own are one, `REST`."""
    largest: Any = table.groupby("part")["share_percent"].max()
    named = [part for part in largest.sort_values(ascending=False).index if part not in COLOURS]
    small = set(named[len(OTHERS) - 1 :]) if len(named) > len(OTHERS) else set()
    parts: Any = table.assign(part=table["part"].map(lambda part: REST if part in small else part))
    return parts.groupby(["model", "part"], sort=False, as_index=False).sum()


def _figure(table: pd.DataFrame) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    models, parts = table["model"].unique().tolist(), _ordered(table["part"].unique().tolist())
    others = [part for part in parts if part not in COLOURS]
    colours = COLOURS | dict(zip(others, OTHERS, strict=False))
    figure = Figure(figsize=(style.WIDTHS["two"], 0.95 + BAR * len(models)), layout="constrained")
    axes = figure.subplots()
    shares: Any = table.pivot(index="model", columns="part", values="share_percent").fillna(0.0)
    gmacs: Any = table.groupby("model")["gmacs"].sum()
    unit, size = marks.compute_unit(gmacs.tolist())
    for row, model in enumerate(models):
        left = 0.0
        for part in parts:
            share = shares.loc[model, part]
            bar = {"color": colours[part], "edgecolor": "white", "linewidth": 0.4, "height": 0.74}
            axes.barh(row, share, left=left, **bar)
            if share >= WRITTEN:
                ink = "black" if _is_light(colours[part]) else "white"
                axes.text(left + share / 2, row, f"{share:.0f} %", ha="center", va="center", color=ink, fontsize=7)
            left += share
        axes.text(101, row, f"{gmacs[model] / size:#.4g}", ha="left", va="center", fontsize=7)
    axes.text(101, -0.62, unit, ha="left", va="bottom", fontsize=7)
    axes.set_yticks(range(len(models)), [_short(visible(model)) for model in models])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Multiply-accumulates of one forward pass (%)")
    # Most of a DiT's parts are thin slices: a single model's are told in the legend.
    said = [_short(visible(part)) if len(models) > 1 else _told(part, shares[part].iloc[0]) for part in parts]
    handles = [Rectangle((0, 0), 1, 1, color=colours[part]) for part in parts]
    columns = max(1, min(len(parts), IN_LEGEND // (max(map(len, said)) + 5)))
    figure.legend(handles, said, loc="outside upper center", ncols=columns, handlelength=1.0, columnspacing=1.4)
    return figure


def _told(part: str, share: float) -> str:
    return _short(visible(part)) if share >= WRITTEN else f"{_short(visible(part))} ({share:.2g} %)"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-(LONGEST_NAME // 2) :]}"


def _ordered(parts: list[str]) -> list[str]:
    """Those that every picture knows, in their order, the others after them, and what is left last."""
    known = [part for part in COLOURS if part in parts]
    return [*known, *(p for p in parts if p not in known and p != REST), *(p for p in parts if p == REST)]


def _is_light(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
