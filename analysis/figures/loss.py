"""Training loss of every model (DiT paper, Fig. 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.scores import blocks_of, names, one_study, over_seeds
from analysis.figures.sources import Source, from_each

WINDOWS = 200  # a line has at most so many points
BANDWIDTH = 0.15  # of the logarithm of the step: a point counts those from about 15 % before to 15 % after it
NOT_PRINTED = "the paper prints no number of its losses (Fig. 13); needed: a results folder"


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture training_loss.

    One panel for each source and patch size, one line for each model size: means over seeds, smoothed; behind it, pale,
    the loss as logged, or the mean of each of 200 equal windows of steps where more were logged. The scale is
    logarithmic, unless a loss is not positive. Data columns: source, label, size, patch, step, gmacs, num_seeds, loss,
    loss_min, loss_max, smoothed.

    Raises:
        NothingToDraw: no losses, one that is not finite, or runs that differ in more than size, patch size and seed.
    """
    found, left_out = from_each(sources, _losses)
    rows = [(source, patch, points) for source, table in found for patch, points in _by_patch(table)]
    columns = 2 if width == "one" else min(3, len(rows))
    caption = "\n".join(_conditions(source, table) for source, table in found)
    looks = style.looks(pd.concat([table for _, table in found])["size"])
    with style.look():
        figure = style.new_figure(width, 2.1 * -(-len(rows) // columns) + 0.3)
        part: Any = figure.subfigures(1, 1)
        free = len(rows) % columns > 0 and len(rows) > columns  # a cell for the legend
        panels: list[Any] = style.panels(part, len(rows) + free, columns)
        for axes, (source, patch, points) in zip(panels, rows, strict=False):
            for size, look in looks.items():
                for _, line in points.loc[points["size"] == size].groupby("label"):
                    steps = line["step"].astype(float)
                    axes.plot(steps, line["loss"].astype(float), color=look.colour, linewidth=0.7, alpha=0.4, zorder=1)
                    axes.plot(steps, line["smoothed"], color=look.colour, linestyle=look.line)
            prefix = f"{_called(source, found)}: " if len(found) > 1 else ""
            axes.set_title(f"{prefix}patch size {patch}" if patch else f"{prefix}no patches")
            study = pd.concat([table for one, table in found if one.name == source.name])  # all designs on one scale
            if _is_logarithmic(study):
                axes.set_yscale("log")
                axes.set_ylim(0.95 * min(study["loss"]), 1.05 * max(study["loss"]))
                style.log_ticks(axes.yaxis)
            style.step_ticks(axes)
        panels[0].set_ylabel("Training loss")
        if len({source.name for source, _ in found}) == 1:
            part.suptitle(f"Measured: {found[0][0].name}", fontsize=9)
        handles = [marks.line_handle(look.colour, look.line) for look in looks.values()]
        marks.line_legend(part, handles, [style.size_text(size) for size in looks], (), panels[-1] if free else None)
    data = pd.concat([table.assign(source=source.called) for source, table in found])
    columns_of_data = ["source", *(name for name in data.columns if name != "source")]
    seeds = max(int(max(table["num_seeds"])) for _, table in found)
    short = f"Loss as trained{f', mean of {seeds} seeds' if seeds > 1 else ''}: smoothed, and as logged (pale)."
    return Picture("training_loss", figure, data.loc[:, columns_of_data], short, caption, "", left_out)


def _called(source: Source, found: list[tuple[Source, pd.DataFrame]]) -> str:
    """In a panel's title: the design alone, where all panels are of one study."""
    return source.design if source.design and len({one.name for one, _ in found}) == 1 else source.called


def _losses(source: Source) -> tuple[Source, pd.DataFrame]:
    train = source.tables.train
    if source.published:
        raise NothingToDraw(NOT_PRINTED)
    if train.empty:
        raise NothingToDraw("no run has logged a loss yet; needed: a run that has trained")
    one_study(_runs(source, train))
    bad = train.loc[~np.isfinite(train["loss"].astype(float))]
    if not bad.empty:
        first = bad.iloc[0]
        raise NothingToDraw(
            f"loss of {first['label']} (run {first['run']}, step {first['step']}) is {first['loss']}, the first of "
            f"{len(bad)} that are not finite; accepted: finite values; leave the run out"
        )
    points = over_seeds(_windows(train), ["step"], "loss")
    return source, pd.concat([line.assign(smoothed=smoothed(line)) for _, line in points.groupby("label", sort=False)])


def smoothed(line: pd.DataFrame) -> NDArray:
    """One model's loss by local lines in the logarithm of the step, and of the loss where all are positive."""
    steps, losses = np.log(np.maximum(line["step"].to_numpy(float), 1)), line["loss"].to_numpy(float)
    positive = bool(min(losses) > 0)
    y = np.log(losses) if positive else losses
    apart = steps[:, None] - steps[None, :]  # (at, of)
    weights = np.exp(-0.5 * (apart / BANDWIDTH) ** 2)
    total, first, second = (np.sum(weights * apart**power, axis=1) for power in (0, 1, 2))
    # The line's value where it is asked for; where a point is alone, its own.
    alone = total * second - first**2 <= 1e-12 * total * np.maximum(second, 1e-12)
    kernel = weights * (second[:, None] - first[:, None] * apart)
    values = np.where(alone, y, np.sum(kernel * y, axis=1) / np.where(alone, 1, total * second - first**2))
    return np.exp(values) if positive else values


def _windows(train: pd.DataFrame) -> pd.DataFrame:
    """Means over equal windows of steps, named by their last step, where a run has logged more than `WINDOWS` rows."""
    if max(train.groupby("run").size()) <= WINDOWS:
        return train
    window = -(-int(max(train["step"])) // WINDOWS)
    last = -(-train["step"].astype(int) // window) * window
    keys = ["run", "label", "size", "patch", "block", "gmacs", "seed"]
    means: Any = train.assign(step=last).groupby([*keys, "step"], as_index=False)["loss"].mean()
    return means


def _is_logarithmic(table: pd.DataFrame) -> bool:
    return bool(min(table["loss_min"]) > 0)


def _by_patch(table: pd.DataFrame) -> list[tuple[Any, pd.DataFrame]]:
    ranks = style.patch_ranks(table["patch"].tolist())
    return [(patch, table.loc[table["patch"] == patch]) for patch in ranks]


def _runs(source: Source, train: pd.DataFrame) -> pd.DataFrame:
    runs = source.tables.runs
    return runs.loc[runs["run"].isin(train["run"].tolist())]


def _conditions(source: Source, table: pd.DataFrame) -> str:
    runs = _runs(source, source.tables.train)
    several = len(set(runs["seed"])) > 1
    seeds = f"seeds {names(runs, 'seed')} (mean)" if several else f"seed {names(runs, 'seed')}"
    return (
        f"Measured: {source.called} (data {names(runs, 'data')}), {blocks_of(runs)}"
        f"batch {names(runs, 'batch_size')}, {seeds}. Loss as trained, "
        f"of {table['step'].nunique()} logged steps or windows of steps (pale), and smoothed (local lines, a "
        "Gaussian of 15 % of the step); "
        f"{'logarithmic' if _is_logarithmic(table) else 'linear'} scales."
    )
