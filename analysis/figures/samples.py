"""Samples of all models from the same noise and classes (DiT paper, Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.errors import ResultsError
from analysis.figures.captions import in_short, keys, protocol
from analysis.figures.scores import Scores, scaling_scores
from analysis.figures.sources import Source, from_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID_COLUMNS = 5  # images of a cell
COLUMNS = 4  # cells side by side that are large enough to see; more patch sizes than that still get a column each


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture sample_grid, of one source.

    Rows are sizes, columns patch sizes, coarsest first, and block designs; a cell holds classes 0 to 4 above 5 to 9,
    of the smallest seed at the run's last evaluated step. The .npz maps a label ("S/4") to (10, C, H, W) uint8.

    Raises:
        NothingToDraw: no samples yet, or runs that differ in more than size, patch size and seed.
        ResultsError: scores that are not finite or not comparable, or two sources that have samples.
    """
    found, left_out = from_each(sources, _with_samples, by_design=False)
    if len(found) > 1:
        named = ", ".join(scores.source.name for scores in found)
        raise ResultsError(f"samples of {named}: one grid shows one source; accepted: one of them")
    (scores,) = found
    evals = scores.evals
    tables = scores.source.tables
    samples = {label: tables.samples[run] for label, run in zip(evals["label"], evals["run"], strict=True)}
    with style.look():
        figure = _grid(scores, samples, width)
    return Picture(
        "sample_grid",
        figure,
        samples,
        f"The same noise and classes in every cell; {in_short([scores])}",
        f"The same noise and classes in every cell. {protocol(scores)}",
        keys([scores]),
        left_out,
    )


def _with_samples(source: Source) -> Scores:
    """The last evaluation of each run that has samples, of the smallest seed."""
    evals = scaling_scores(source).evals
    evals = evals.loc[evals["run"].isin(list(source.tables.samples))]
    if evals.empty:
        raise NothingToDraw("no samples to draw: no evaluated run has its sample file; needed: runs with samples/")
    smallest = evals["seed"] == evals["seed"].min()
    return Scores(source, evals.loc[smallest].drop_duplicates("run", keep="last"))


def _grid(scores: Scores, samples: dict[str, np.ndarray], width: style.Width) -> Figure:
    evals: pd.DataFrame = scores.evals
    steps = dict(zip(evals["label"], evals["step"], strict=True))
    cells = _places(evals)
    rows, columns = len(cells), len(cells[0])
    # Cells are twice as wide as high, 5 by 2 images, under a line of text.
    cell = style.WIDTHS[width] / max(2, columns)
    height = (0.44 * cell + 0.2) * rows
    figure = style.new_figure(width, height)
    engine: Any = figure.get_layout_engine()
    engine.set(wspace=0.04, hspace=0.02)
    grid = figure.subplots(rows, columns, squeeze=False)
    # An empty cell is a white one of the same shape, so that the rows stay aligned.
    blank = np.full_like(next(iter(samples.values())), 255)
    for axes, label in zip(grid.flat, (label for row in cells for label in row), strict=True):
        if label not in samples:
            _cell(axes, blank, label)
        elif len(set(steps.values())) > 1:
            _cell(axes, samples[label], f"{label}, step {steps[label]:,}")
        else:
            _cell(axes, samples[label], label)
    return figure


def _places(evals: pd.DataFrame) -> list[list[str]]:
    """The label of each row's cells, or what an empty one says: one row per size, one column per patch size.

    Of several designs each has its own rows, or its own columns if these are few. Where two models have one size,
    patch size and design, they stand side by side as they come.
    """
    sizes = list(style.looks(evals["size"]))
    patches = list(style.patch_ranks(evals["patch"].tolist()))
    designs = evals["block"].drop_duplicates().tolist()
    models = evals.drop_duplicates("label")
    if models.duplicated(["block", "size", "patch"]).any():
        labels = models["label"].tolist()
        labels += [""] * (-len(labels) % COLUMNS)
        return [labels[start : start + COLUMNS] for start in range(0, len(labels), COLUMNS)]
    at = models.set_index(["block", "size", "patch"])["label"].to_dict()

    def text(block: str, size: str, patch: int) -> str:
        wanted = f"{size}/{patch}" if patch else size
        missing = f"{wanted}, {block}: no samples" if len(designs) > 1 else f"{wanted}: no samples"
        return at.get((block, size, patch), missing)

    if len(designs) * len(patches) <= COLUMNS:
        return [[text(block, size, patch) for block in designs for patch in patches] for size in sizes]
    return [[text(block, size, patch) for patch in patches] for block in designs for size in sizes]


def _cell(axes: Axes, samples: np.ndarray, title: str) -> None:
    axes.set_axis_off()
    axes.set_title(title, fontsize=8, pad=2)
    axes.imshow(_montage(samples), cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _montage(samples: np.ndarray) -> np.ndarray:
    """(N, C, H, W) samples side by side with white gaps: (rows, columns) grey or (rows, columns, 3)."""
    num, channels, height, width = samples.shape
    rows, gap = -(-num // GRID_COLUMNS), max(1, width // 16)
    shape = (rows * (height + gap) - gap, GRID_COLUMNS * (width + gap) - gap, channels)
    picture = np.full(shape, 255, np.uint8)
    for index, sample in enumerate(samples):
        top, left = index // GRID_COLUMNS * (height + gap), index % GRID_COLUMNS * (width + gap)
        picture[top : top + height, left : left + width] = sample.transpose(1, 2, 0)
    return picture[..., 0] if channels == 1 else picture
