"""Models of several sizes at equal training compute: which size a budget is best spent on.

J. Hoffmann et al., "Training Compute-Optimal Large Language Models", 2022, arXiv:2203.15556, Fig. 3 (approach 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.advice.budget import pf_days
from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import in_short, keys, protocols
from analysis.figures.scores import Scores, axis_name, over_seeds, scaling_scores, side_by_side, titles
from analysis.figures.sources import Source, from_each
from analysis.laws.compute import FLOPS_PER_GMAC, training_gmacs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOLERANCE = 0.02  # budgets that differ by less count as one: steps are whole numbers
MIN_SIZES = 3  # a parabola goes through three
BETWEEN = 4  # budgets that are drawn of models which share none, but were scored on both sides of some
NEEDED = (
    f"needed: models of at least {MIN_SIZES} sizes and one patch size, scored at equal training compute or around it"
)
RULE = (
    f"Training compute = GMACs x 3 x batch x steps, equal within {TOLERANCE:.0%} on a line. Full markers: measured, "
    "geometric means over seeds, as in `ditbench advise`; hollow ones: between two scored steps, interpolated in the "
    "logs of score and compute. Curves: least-squares parabolas of log score in log parameters. A star is such a "
    "curve's minimum, marked only where the best model is neither the smallest nor the largest; elsewhere the best "
    "size lies beyond those measured, and points whose curve would say otherwise are joined by lines. Approach 2 of "
    "arXiv:2203.15556; sizes that are not centred on the minimum bias it."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture isoflop.

    A panel for each patch size of sources that were scored alike, which count as one: parameters against the score, a
    curve a compute budget. Data columns: source, label, size, patch, params, gmacs, budget (training GMACs, the
    smallest of its curve), score (as drawn); where it was measured: step, num_seeds, fid (mean over seeds), fid_min,
    fid_max, training_gmacs.

    Raises:
        NothingToDraw: no budget at which three sizes of one patch size were scored.
        ResultsError: scores that are not finite or not comparable.
    """
    scores, left_out = from_each(sources, scaling_scores)
    panels: list[tuple[list[Scores], pd.DataFrame]] = []
    for pool in _pools(scores):
        points = _points(pool)
        panels += [(pool, rows) for _, rows in points.groupby("patch")]
        if points.empty:
            named = " and ".join(one.source.called for one in pool)
            left_out.append(f"{named}: no training compute for which {MIN_SIZES} sizes have a score; {NEEDED}")
    if not panels:
        raise NothingToDraw("; ".join(left_out))
    named = len({id(pool) for pool, _ in panels}) > 1 or len(panels) == 1
    with style.look():
        columns = 1 if width == "one" else min(2, len(panels))
        figure = style.new_figure(width, 2.8 * -(-len(panels) // columns))
        if not named:
            figure.suptitle("\n".join(wrap(titles(panels[0][0]), 15 * int(style.WIDTHS[width]))), fontsize=9)
        for axes, (pool, points) in zip(style.panels(figure, len(panels), columns), panels, strict=True):
            patch = points["patch"].iloc[0]
            of_patch = f"patch size {patch}" if patch else "no patches"
            axes.set_title(f"{titles(pool)}, {of_patch}" if named else of_patch)
            draw_baselines(axes, pool)
            _panel(axes, points)
            axes.set_ylabel(axis_name(pool))
    drawn = [one for one in scores if any(one in pool for pool, _ in panels)]
    data = pd.concat([points for _, points in panels])
    fits = [parabola(rows["params"], rows["score"]) for _, rows in data.groupby(["source", "patch", "budget"])]
    found = sum(fit.minimum is not None for fit in fits)
    said = f"A minimum between the sizes measured: at {found or 'none'} of {len(fits)} budgets."
    short = f"Lines: equal training compute. {said} {in_short(drawn)}"
    return Picture("isoflop", figure, data, short, f"{RULE} {said}\n{protocols(drawn)}", keys(drawn), left_out)


def _pools(scores: Sequence[Scores]) -> list[list[Scores]]:
    """Sources of one block design that were scored alike: together, as they differ in seeds and steps only."""
    pools: dict[tuple[int, Any], list[Scores]] = {}
    for index, group in enumerate(side_by_side(scores)):
        for one in group:
            pools.setdefault((index, tuple(sorted(set(one.runs["block"])))), []).append(one)
    return list(pools.values())


def _points(pool: Sequence[Scores]) -> pd.DataFrame:
    """The points of every curve, as `draw` describes them."""
    evals, runs = (pd.concat(tables) for tables in zip(*((one.evals, one.runs) for one in pool), strict=True))
    for row in evals.loc[evals["fid"] <= 0].to_dict("records")[:1]:
        raise NothingToDraw(f"fid of {row['label']} is {row['fid']:g}; a logarithmic scale needs positive scores")
    logs: Any = evals.assign(log=np.log(evals["fid"].to_numpy(float))).groupby(["label", "step"])["log"].mean()
    params: Any = runs.drop_duplicates("label").set_index("label")["params"]
    means = over_seeds(evals, ["step"])
    means = means.assign(
        params=means["label"].map(params).astype("Float64").to_numpy(float, na_value=np.nan),
        score=np.exp([logs[point] for point in zip(means["label"], means["step"], strict=True)]),
        training_gmacs=training_gmacs(means["gmacs"], runs["batch_size"].iloc[0], means["step"].astype(float)),
    )
    curves = [curve for _, rows in means.dropna(subset=["params"]).groupby("patch") for curve in _at_budgets(rows)]
    columns = ["label", "size", "patch", "params", "gmacs", "budget", "score"]
    columns += ["step", "num_seeds", "fid", "fid_min", "fid_max", "training_gmacs"]
    points = pd.concat(curves) if curves else pd.DataFrame(columns=columns)
    points.insert(0, "source", " and ".join(one.source.called for one in pool))
    return points.loc[:, ["source", *columns]]


def _at_budgets(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Of one patch size's measured points: the points of each budget's curve, by parameters."""
    models = [model.sort_values("training_gmacs") for _, model in rows.groupby("label")]
    shared = rows.assign(budget=budgets(rows["training_gmacs"].tolist()))
    sizes: Any = shared.groupby("budget")["size"].transform("nunique")
    wanted = sorted(set(shared.loc[sizes >= MIN_SIZES, "budget"]))
    if len(wanted) < 2:
        ends = [model["training_gmacs"].iloc[end] for model in models for end in (0, -1)]
        reached = [end for end in ends if len(_curve(models, end)) >= MIN_SIZES]
        if reached and max(reached) > (1 + TOLERANCE) * min(reached):
            between = np.geomspace(min(reached), max(reached), BETWEEN).tolist()
            wanted += [budget for budget in between if all(abs(np.log(budget / one)) > 0.2 for one in wanted)]
    curves = [pd.DataFrame(_curve(models, budget)) for budget in sorted(wanted)]
    return [curve.sort_values("params") for curve in curves if not curve.empty and len(set(curve["size"])) >= MIN_SIZES]


def _curve(models: Sequence[pd.DataFrame], budget: float) -> list[dict[str, Any]]:
    """The models that were scored at the budget, or on both sides of it: their points as rows of a table."""
    found = []
    for model in models:
        spent: NDArray = model["training_gmacs"].to_numpy(float)
        nearest = model.iloc[int(np.argmin(np.abs(np.log(spent / budget))))].to_dict()
        if 1 - TOLERANCE <= nearest["training_gmacs"] / budget <= 1 + TOLERANCE:
            found.append(nearest | {"budget": budget})
        elif spent[0] < budget < spent[-1]:
            score = np.exp(np.interp(np.log(budget), np.log(spent), np.log(model["score"].to_numpy(float))))
            same = {name: nearest[name] for name in ("label", "size", "patch", "params", "gmacs")}
            empty = dict.fromkeys(("step", "num_seeds"), pd.NA) | dict.fromkeys(("fid", "fid_min", "fid_max"), np.nan)
            found.append(same | empty | {"training_gmacs": np.nan, "budget": budget, "score": float(score)})
    return found


def budgets(compute: Sequence[float]) -> list[float]:
    """The budget of each value: values within `TOLERANCE` of the smallest of a group share it."""
    values = np.asarray(compute, dtype=float)
    found = np.zeros(len(values))
    start = -np.inf
    for index in np.argsort(values, kind="stable"):
        if values[index] > start * (1 + TOLERANCE) or start < 0:
            start = values[index]
        found[index] = start
    return found.tolist()


@dataclass(frozen=True)
class Parabola:
    """log score = polynomial in log parameters; minimum: the parameters and the score there, None if it is not known to
    be one; agrees: whether the fit says of the minimum what the points say."""

    coefficients: NDArray
    minimum: tuple[float, float] | None
    agrees: bool

    def __call__(self, params: NDArray) -> NDArray:
        return np.exp(np.polyval(self.coefficients, np.log(params)))


def parabola(params: ArrayLike, score: ArrayLike) -> Parabola:
    """The least-squares one through at least three sizes.

    Its minimum counts only if the data bracket it: the best score is neither the smallest's nor the largest's.
    """
    x, y = np.log(np.asarray(params, dtype=float)), np.log(np.asarray(score, dtype=float))
    coefficients = np.polyfit(x, y, 2)
    curvature, slope, _ = coefficients
    lowest = -slope / (2 * curvature) if curvature > 0 else np.inf
    inside = bool(min(x) < lowest < max(x))
    bracketed = bool(min(x) < x[np.argmin(y)] < max(x))
    at = (float(np.exp(lowest)), float(np.exp(np.polyval(coefficients, lowest)))) if inside and bracketed else None
    return Parabola(coefficients, at, inside == bracketed)


def _panel(axes: Axes, points: pd.DataFrame) -> None:
    for index, (_, rows) in enumerate(points.groupby("budget")):
        look = marks.series_mark(index)
        line: dict[str, Any] = {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1}
        x, y = rows["params"].to_numpy(float), rows["score"].to_numpy(float)
        fit = parabola(x, y)
        grid = np.geomspace(min(x), max(x), 60)
        axes.plot(*((grid, fit(grid)) if fit.agrees else (x, y)), **line)
        if fit.minimum is not None:
            star: dict[str, Any] = {"marker": "*", "markersize": 10, "markeredgecolor": "black", "markeredgewidth": 0.6}
            axes.plot(*fit.minimum, color=look["color"], zorder=4, **star)
        measured = rows["fid"].notna().to_numpy()
        if measured.any() and max(rows["num_seeds"].dropna()) > 1:
            low, high = (rows[name].to_numpy(float)[measured] for name in ("fid_min", "fid_max"))
            axes.vlines(x[measured], low, high, color="#555555", linewidth=0.8, zorder=1)
        dots: dict[str, Any] = look | {"linestyle": "none"}
        axes.plot(x[measured], y[measured], **dots)
        hollow = {"markerfacecolor": "white", "markeredgecolor": look["color"], "markeredgewidth": 1}
        axes.plot(x[~measured], y[~measured], **(dots | hollow))
        budget = float(rows["budget"].iloc[0])
        days = pf_days(budget * FLOPS_PER_GMAC)
        axes.plot([], [], **look, label=f"{budget:.3g} GMACs, {days:.2g} PF-days")
    axes.set_xscale("log")
    axes.set_yscale("log")
    style.log_ticks(axes.xaxis)
    axes.xaxis.set_major_formatter(lambda value, _: style.steps_text(value))
    axes.set_xlabel("Parameters")
    legend = axes.legend(
        title="Training compute", title_fontsize=7, alignment="left", loc="upper left", handlelength=2.8
    )
    legend.set_in_layout(False)  # in a narrow panel it may reach out of it
    _leave_room(axes, points)
    style.log_ticks(axes.yaxis)


def _leave_room(axes: Axes, points: pd.DataFrame) -> None:
    """Raise the upper end of the scale until no line's left two thirds reach up to the legend there."""
    low, high = np.log(axes.get_ylim())
    params: NDArray = np.log(points["params"].to_numpy(float))
    left = np.linspace(min(params), min(params) + 0.67 * (max(params) - min(params)))
    lines = [
        np.interp(left, np.log(rows["params"].to_numpy(float)), np.log(rows["score"].to_numpy(float)), right=-np.inf)
        for _, rows in points.groupby("budget")
    ]
    bars = np.log(points["fid_max"].dropna().to_numpy(float)[params[points["fid_max"].notna()] <= left[-1]])
    below = 1 - 0.075 * (1.5 + len(lines))  # the share of the height that the legend leaves
    highest = max(np.max(lines), np.max(bars, initial=-np.inf))
    axes.set_ylim(np.exp(low), np.exp(max(high, low + (highest - low) / below)))
