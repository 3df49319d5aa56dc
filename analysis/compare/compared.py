"""What is said of designs: two by a law, two at equal steps where models are too few for one, or all in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from analysis.compare import given_up
from analysis.compare.at_equal_steps import StepsComparison, compare_at_equal_steps
from analysis.compare.beside_published import known_spread
from analysis.compare.between_labs import Closeness, closeness
from analysis.compare.designs import DesignComparison, compare_designs
from analysis.laws.observations import Observations
from analysis.results.tables import MIN_MODELS


@dataclass(frozen=True)
class ModelScores:
    """One model of one design: the mean of its score over seeds, and the lowest and highest."""

    design: str
    model: str
    gmacs: float
    seeds: int
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class DesignTable:
    """All designs at one step: rows by model, lowest mean first.

    left_out: runs without a score there; given_up: those of them that failed. unscored: designs that have none.
    between_labs: which are closer than laboratories are; None of scores that no published one can stand beside.
    """

    metric: str
    step: str
    rows: tuple[ModelScores, ...]
    left_out: tuple[str, ...]
    given_up: tuple[str, ...] = ()
    unscored: tuple[str, ...] = ()
    between_labs: Closeness | None = None
    convention: str = "Mean and range over seeds, at equal steps and (but for --by batch_size) batch; lower is better"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "metric": self.metric,
            "step": int(self.step),
            "designs": [vars(row) for row in self.rows],
            "convention": self.convention,
            "left_out": list(self.left_out),
            "given_up": list(self.given_up),
            "unscored": list(self.unscored),
            "between_labs": self.between_labs.to_dict() if self.between_labs else None,
            "headline": self.headline(),
            "sentence": self.sentence(),
        }

    def table(self) -> list[list[str]]:
        """Rows of text: name, value."""
        rows = [
            [
                f"{row.model}, {row.design}",
                f"{self.metric} {row.mean:.4g} [{row.lowest:.4g}, {row.highest:.4g}], seeds: {row.seeds}, "
                f"{row.gmacs:.4g} GMACs",
            ]
            for row in self.rows
        ]
        rows += [[name, f"no {self.metric} at step {self.step}"] for name in self.unscored]
        return [*rows, ["left out", "; ".join(self.left_out) or "none"]]

    def headline(self) -> list[str]:
        """The answer in two lines: who is lowest, and what says whether that is more than chance."""
        best = {row.model: row for row in reversed(self.rows)}
        said = "; ".join(f"{row.design} for {model} ({row.mean:.4g})" for model, row in sorted(best.items()))
        surely = (
            "With one seed of each, nothing says whether that is more than chance."
            if max(row.seeds for row in self.rows) == 1
            else "Is that more than chance? Choose two: --between A,B."
        )
        if len(best) == len(self.rows):  # no model in two designs, such as families
            own = {row.design: row for row in sorted(self.rows, key=lambda row: -row.mean)}
            said = "; ".join(
                f"{row.mean:.4g} of {design} (by {row.model}, {row.gmacs:.4g} GMACs)" for design, row in own.items()
            )
            surely = "Their models cost differently. Which is better at equal compute? Choose two: --between A,B."
        lowest = f"Lowest mean {self.metric} at step {int(self.step):,}: {said}."
        labs = self.between_labs.warning() if self.between_labs else []
        return [lowest, surely, *labs, *given_up.warning(self.given_up)]

    def sentence(self) -> str:
        """The answer as one text."""
        return " ".join(self.headline())


def compared(
    designs: Mapping[str, Observations], level: float = 0.9, seed: int = 0
) -> DesignComparison | StepsComparison | DesignTable:
    """Compare two designs, by a law if both have enough models of different compute for one; put more side by side.

    Raises:
        ResultsError: those of `compare_designs` and `compare_at_equal_steps`.
    """
    if len(designs) > 2:
        found = _table(designs)
        ratios = _ratios(found.rows)
    elif min(len(set(rows.variables["compute"])) for rows in designs.values()) < MIN_MODELS:
        found = compare_at_equal_steps(designs, level)
        ratios = [(f"{found.better} and {found.worse}", found.means[1] / found.means[0])]
    else:
        found = compare_designs(designs, level, seed)
        ratios = [(f"{found.better} and {found.worse}", found.ratio.estimate)]
    if not all(rows.as_published for rows in designs.values() if len(rows)):
        return found
    return replace(found, between_labs=closeness(known_spread(level), ratios))


def _ratios(rows: Sequence[ModelScores]) -> list[tuple[str, float]]:
    """Of each model's designs, lowest mean first, each with the next."""
    pairs = [(row, after) for row, after in pairwise(rows) if row.model == after.model]
    return [(f"{row.design} and {after.design} for {row.model}", after.mean / row.mean) for row, after in pairs]


def _table(designs: Mapping[str, Observations]) -> DesignTable:
    rows = [_scores(name, model, of) for name, of in designs.items() for model in dict.fromkeys(of.models)]
    first = next(each for each in designs.values() if len(each))
    rows.sort(key=lambda row: (row.model, row.mean))
    left_out = tuple(f"{name}: {each}" for name, of in designs.items() for each in of.left_out)
    step, unscored = first.names[0].rpartition(" ")[2], tuple(name for name, of in designs.items() if not len(of))
    return DesignTable(first.metric, step, tuple(rows), left_out, given_up.given_up(designs), unscored)


def _scores(design: str, model: str, rows: Observations) -> ModelScores:
    chosen = rows.at(row for row, name in enumerate(rows.models) if name == model)
    low, high = float(np.min(chosen.score)), float(np.max(chosen.score))
    gmacs = float(chosen.variables["compute"][0])
    return ModelScores(design, model, gmacs, len(chosen), float(np.mean(chosen.score)), low, high)
