"""Whether a learning rate that is tuned at one width is that of others: the best rate of each width, and how it drifts.

Of runs that differ in width, learning rate and seed, and perhaps in their block design, of which the parametrisation is
a part (`models.parametrization`). Loss is the mean training loss over the last tenth of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.drawing.picture import NothingToDraw
from analysis.laws.intervals import Interval
from analysis.laws.observed import mean_losses
from analysis.results.run_folders import SETTINGS
from analysis.results.tables import Tables

LEVEL = 0.9
REPLICATES = 2000
MIN_RATES = 3  # a parabola needs as many
NEAR = 1.25  # times the lowest loss; where runs nearly diverge they scatter in another way
# In which runs must agree: widths at their rates are compared, and nothing else.
SAME = (
    "family",
    "depth",
    "patch",
    "input_size",
    "data",
    "steps",
    *(name for name in SETTINGS if name != "learning_rate"),
)


@dataclass(frozen=True)
class OfWidth:
    """The runs of one width.

    Attributes:
        rates: (R,) ascending.
        losses: (R, S) by seed; infinite where a run's loss was not finite, or it failed.
        optimum: log of the best rate, by a parabola through the lowest mean and its neighbours, log loss over log rate.
        at_end: whether the lowest mean is at an end of the rates, or beside one that diverged: the best may lie beyond.
        draws: (B,) the same of residuals drawn anew; empty of one seed.
        excess: loss at the transferred rate over the lowest of this width's rates, minus 1; both as run, not fitted.
        excess_draws: (B,) the same of residuals drawn anew.
    """

    width: int
    rates: np.ndarray
    losses: np.ndarray
    optimum: float
    at_end: bool
    draws: np.ndarray
    excess: float
    excess_draws: np.ndarray

    @property
    def means(self) -> np.ndarray:
        return self.losses.mean(1)

    @property
    def tuned(self) -> tuple[float, float]:
        """The best of the rates that were run, and its loss."""
        best = int(np.argmin(self.means))
        return float(self.rates[best]), float(self.means[best])


@dataclass(frozen=True)
class Transfer:
    """One design.

    Attributes:
        design: its block, and its objective where there are several.
        widths: narrowest first.
        transferred: the best of the narrowest width's rates, as run.
        drift: the exponent of the width that the best rate follows, by least squares.
        drift_draws: (B,) the same of residuals drawn anew.
    """

    design: str
    widths: tuple[OfWidth, ...]
    transferred: float
    drift: float
    drift_draws: np.ndarray

    @property
    def power(self) -> str:
        """What the best rate follows, as text: width^-0.91 (-1.21 to -0.78)."""
        drift = interval(self.drift, self.drift_draws)
        return f"width^{drift.estimate:.2f}" + (
            "" if np.isnan(drift.low) else f" ({drift.low:.2f} to {drift.high:.2f})"
        )

    def predicted(self, width: int) -> tuple[float, np.ndarray]:
        """Log of the rate at a width by the line through all of them, and the same of every draw."""
        x = np.log([one.width for one in self.widths])
        fitted = _line(x, np.array([[one.optimum] for one in self.widths]), np.log(width))
        return float(fitted[0]), _line(x, _together(self.widths), np.log(width))


def interval(estimate: float, draws: np.ndarray, level: float = LEVEL) -> Interval:
    """Percentiles of the draws; NaN without any."""
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail]) if len(draws) else (np.nan, np.nan)
    return Interval(float(estimate), float(low), float(high), level)


def transfers(tables: Tables, seed: int = 0) -> list[Transfer]:
    """Every design of the runs with at least two widths, each at three rates or more.

    Intervals are residual bootstraps, `REPLICATES` times, each width by itself: log loss is a rate's part, a seed's
    part, which all rates share, and a residual. Residuals are drawn anew for every run, from those of rates whose loss
    is at most `NEAR` times the lowest, and inflated by the square root of runs over degrees of freedom. (Whole seeds,
    drawn from three, would give intervals that are too narrow.)

    Raises:
        NothingToDraw: there is none, or the runs differ in more than width, rate, design and seed.
    """
    runs = _runs(tables)
    names: Any = runs["block"] if len(set(runs["objective"])) < 2 else runs["block"] + ", " + runs["objective"]
    random = np.random.default_rng(seed)
    found = []
    designs: Any = runs.groupby(names)
    for design, of_design in sorted(designs, key=lambda each: (len(str(each[0])), str(each[0]))):
        grids = {
            int(width): grid
            for width, of_width in of_design.groupby("hidden_size")
            if len(grid := _grid(of_width)) >= MIN_RATES and np.isfinite(grid.mean(axis=1)).any()
        }
        if len(grids) > 1:
            found.append(_transfer(str(design), grids, random))
    if not found:
        raise NothingToDraw(f"no design was trained at two widths, each at {MIN_RATES} learning rates or more")
    return found


def _runs(tables: Tables) -> pd.DataFrame:
    """With their `loss`."""
    runs = tables.runs
    if "block_alone" in runs:  # of a `Source`, whose designs differ by learning rate
        runs = runs.assign(block=runs["block_alone"])
    runs = runs.loc[runs["hidden_size"].notna() & runs["learning_rate"].notna()]
    if runs["hidden_size"].nunique() < 2 or runs["learning_rate"].nunique() < MIN_RATES:
        raise NothingToDraw(f"needed: runs of two widths, each at {MIN_RATES} learning rates or more")
    for name in SAME:
        if name in runs and runs[name].nunique(dropna=False) > 1:
            values = ", ".join(map(str, sorted(runs[name].dropna().unique())))
            raise NothingToDraw(
                f"the runs differ in {name} ({values}); keep one value to compare widths at their rates"
            )
    if tables.train.empty:
        raise NothingToDraw("no run has logged a loss yet")
    losses = mean_losses(tables)
    losses = losses.loc[losses["step"] == int(runs["steps"].iloc[0])]
    known = dict(zip(losses["run"], losses["score"].astype(float), strict=True))
    runs = runs.loc[runs["run"].isin(known) | (runs["state"] == "failed")]  # others have not come so far yet
    found = np.array([known.get(run, np.inf) for run in runs["run"]])
    runs = runs.assign(loss=np.where(np.isfinite(found) & (found > 0), found, np.inf))
    twice = runs.loc[runs.duplicated(["block", "objective", "hidden_size", "learning_rate", "seed"])]
    for row in twice.head(1).to_dict("records"):
        where = f"width {row['hidden_size']} at {row['learning_rate']:g}"
        raise NothingToDraw(f"{row['block']} of {where} has several runs of seed {row['seed']}; keep one of each")
    return runs


def _grid(runs: pd.DataFrame) -> pd.DataFrame:
    """Losses by rate (index) and seed; seeds that all rates have."""
    return runs.pivot(index="learning_rate", columns="seed", values="loss").dropna(axis=1).sort_index()


def _transfer(design: str, grids: dict[int, pd.DataFrame], random: np.random.Generator) -> Transfer:
    narrowest = next(iter(grids.values()))
    means: Any = narrowest.mean(axis=1)
    transferred = float(means.idxmin())
    at_narrowest = _drawn(narrowest.to_numpy(float), random)
    rates_drawn = narrowest.index.to_numpy(float)[np.argmin(at_narrowest, 0)] if at_narrowest.size else np.array([])
    widths = []
    for width, grid in grids.items():
        rates, losses = grid.index.to_numpy(float), grid.to_numpy(float)
        drawn = at_narrowest if grid is narrowest else _drawn(losses, random)
        optimum, at_end = _vertex(np.log(rates), losses.mean(1, keepdims=True))
        draws, _ = _vertex(np.log(rates), drawn) if drawn.size else (np.array([]), None)
        excess = _excess(rates, losses.mean(1, keepdims=True), np.array([transferred]))
        excess_draws = _excess(rates, drawn, rates_drawn) if drawn.size and rates_drawn.size else np.array([])
        widths.append(
            OfWidth(width, rates, losses, float(optimum[0]), bool(at_end[0]), draws, float(excess[0]), excess_draws)
        )
    x = np.log([one.width for one in widths])
    drift = _slope(x, np.array([[one.optimum] for one in widths]))
    return Transfer(design, tuple(widths), transferred, float(drift[0]), _slope(x, _together(widths)))


def _together(widths: Sequence[OfWidth]) -> np.ndarray:
    """Draws of all widths, (W, B); none, (W, 0), where one width has none."""
    if not all(len(one.draws) for one in widths):
        return np.empty((len(widths), 0))
    return np.array([one.draws for one in widths])


def _drawn(losses: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(R, S) -> means over seeds with their residuals drawn anew, (R, B); nothing of one seed."""
    finite, seeds = np.isfinite(losses).all(1), losses.shape[1]
    logs = np.log(losses[finite])
    near = logs.mean(1) <= logs.mean(1).min() + np.log(NEAR)
    if near.sum() < 2:
        near[np.argsort(logs.mean(1))[:2]] = True
    if seeds < 2 or len(logs) < 2:
        return np.empty((len(losses), 0))
    known = logs[near]
    residuals = known - known.mean(1, keepdims=True) - known.mean(0) + known.mean()
    residuals *= np.sqrt(known.size / ((len(known) - 1) * (seeds - 1)))
    drawn = random.choice(residuals.ravel(), (len(logs), REPLICATES, seeds)).mean(2)
    means = np.full((len(losses), REPLICATES), np.inf)
    means[finite] = losses[finite].mean(1, keepdims=True) * np.exp(drawn)
    return means


def _vertex(x: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R,) and (R, B) -> (B,) where the parabola of log loss through the lowest point and its neighbours is lowest, and
    whether there was none of them on a side: then it is the lowest point itself."""
    lowest = np.argmin(losses, 0)
    columns = np.arange(losses.shape[1])
    inside = (lowest > 0) & (lowest < len(x) - 1)
    middle = np.clip(lowest, 1, len(x) - 2)
    with np.errstate(invalid="ignore"):
        left, centre, right = (np.log(losses[middle + side, columns]) for side in (-1, 0, 1))
        one, other = x[middle] - x[middle - 1], x[middle] - x[middle + 1]
        above = one**2 * (centre - right) - other**2 * (centre - left)
        below = one * (centre - right) - other * (centre - left)
        found = x[middle] - above / (2 * below)
    inside &= np.isfinite(found)
    return np.where(inside, found, x[lowest]), ~inside


def _excess(rates: np.ndarray, losses: np.ndarray, transferred: np.ndarray) -> np.ndarray:
    """(R,), (R, B) and a rate each of (B,) -> (B,); infinite where that rate was not run or diverged."""
    places = np.searchsorted(rates, transferred).clip(max=len(rates) - 1)
    at = losses[places, np.arange(losses.shape[1])]
    return np.where(np.isclose(rates[places], transferred), at / losses.min(0), np.inf) - 1


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(W,) and (W, B) -> (B,), by least squares."""
    centred = x - x.mean()
    return centred @ y / (centred @ centred)


def _line(x: np.ndarray, y: np.ndarray, at: float) -> np.ndarray:
    return y.mean(0) + _slope(x, y) * (at - x.mean())
