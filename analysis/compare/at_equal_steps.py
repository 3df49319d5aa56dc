"""Two designs of too few models for a law: the difference of their scores at equal steps, with what seeds say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from analysis.compare import given_up
from analysis.compare.between_labs import Closeness
from analysis.errors import ResultsError
from analysis.laws.forms import Array
from analysis.laws.intervals import Interval, check_level
from analysis.laws.observations import Observations
from analysis.results.tables import MIN_MODELS

CONVENTION = (
    "Scores are compared as they are, at equal steps and (but for --by batch_size) batch, whatever a design computes; "
    "the interval is Student's, over seeds: of their differences where both designs have the same seeds, else Welch's"
)


@dataclass(frozen=True)
class StepsComparison:
    """The design `better`, whose mean score is lower, against `worse`, over the models that both have.

    Attributes:
        better, worse: the designs' names.
        metric: the score.
        step: the training step, as the rows are named.
        models: those compared: the same of both designs, or the one of each.
        means: score of each design (better, worse): the mean over models of the mean over seeds.
        gmacs: of a forward pass, of each design (better, worse), the mean over models.
        seeds: of each design (better, worse).
        paired: whether both have the same seeds, whose differences are what the interval is of.
        difference: the worse design's mean minus the better one's.
        interval: of the difference; None where a design has one seed only.
        left_out: rows that were not compared, and why.
        given_up: runs that failed, of which there is no score.
        between_labs: whether laboratories differ by more; None of scores that no published one can stand beside.
    """

    better: str
    worse: str
    metric: str
    step: str
    models: tuple[str, ...]
    means: tuple[float, float]
    gmacs: tuple[float, float]
    seeds: tuple[int, int]
    paired: bool
    difference: float
    interval: Interval | None
    left_out: tuple[str, ...]
    given_up: tuple[str, ...] = ()
    convention: str = CONVENTION
    between_labs: Closeness | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether there is an interval and it does not contain 0."""
        return self.interval is not None and not self.interval.holds(0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "better": self.better,
            "worse": self.worse,
            "metric": self.metric,
            "step": int(self.step),
            "distinguishable": self.distinguishable,
            "models": list(self.models),
            "means": list(self.means),
            "gmacs": list(self.gmacs),
            "seeds": list(self.seeds),
            "paired": self.paired,
            "difference": self.difference,
            "interval": None if self.interval is None else self.interval.to_dict(),
            "multiplier": None,
            "convention": self.convention,
            "left_out": list(self.left_out),
            "given_up": list(self.given_up),
            "between_labs": self.between_labs.to_dict() if self.between_labs else None,
            "headline": self.headline(),
            "sentence": self.sentence(),
        }

    def headline(self) -> list[str]:
        """The answer in three lines: which is better and by how much, at what compute, and why there is no factor."""
        better, worse = (f"{mean:.4g}" for mean in self.means)
        gap = f"{self.metric} {better} against {worse} at step {int(self.step):,}"
        seeds = f"{self.seeds[0]} seed{'' if self.seeds[0] == 1 else 's'}" + (
            "" if self.seeds[0] == self.seeds[1] else f" and {self.seeds[1]}"
        )
        basis = (
            f"At {self.gmacs[0]:.4g} and {self.gmacs[1]:.4g} GMACs of a forward pass, {seeds}"
            f"{' in pairs' if self.paired and self.interval else ''}, models: {', '.join(self.models)}."
        )
        none = f"No factor of compute: that takes a law through at least {self._needed()}."
        labs = self.between_labs.warning() if self.between_labs else []
        rest = [basis, none, *labs, *given_up.warning(self.given_up)]
        if self.interval is None:
            return [f"Not known whether {self.better} is better than {self.worse}: {gap}, one seed.", *rest]
        low, high, level = self.interval.low, self.interval.high, self.interval.level
        verdict = f"{self.better} is better than {self.worse}" if self.distinguishable else (
            f"{self.better} and {self.worse} are not distinguishable"
        )  # fmt: skip
        return [f"{verdict}: {gap}, {self.difference:.3g} apart ({level:.0%}: {low:.3g} to {high:.3g}).", *rest]

    def table(self) -> list[list[str]]:
        """Rows of text: name, value."""
        sides = zip((self.better, self.worse), self.means, self.gmacs, self.seeds, strict=True)
        better, worse = (
            f"{name}: mean {self.metric} {mean:.4g} at {gmacs:.4g} GMACs, seeds: {seeds}"
            for name, mean, gmacs, seeds in sides
        )
        known = "not known: it takes two seeds of each" if self.interval is None else str(self.interval)
        return [
            [f"lower {self.metric} at step {self.step}", better],
            ["higher", worse],
            ["models", ", ".join(self.models)],
            [f"difference of {self.metric}", f"{self.difference:.4g}"],
            ["its interval", known],
            ["compute multiplier", f"none: it takes at least {self._needed('of each design')}"],
            ["distinguishable", "not known" if self.interval is None else "yes" if self.distinguishable else "no"],
            ["left out", "; ".join(self.left_out) or "none"],
        ]

    def _needed(self, whose: str = "of each") -> str:
        alike = ", of different compute" if len(self.models) >= MIN_MODELS else ""
        return f"{MIN_MODELS} models {whose}{alike}"

    def sentence(self) -> str:
        """The answer as one text."""
        return " ".join(self.headline())


def compare_at_equal_steps(designs: Mapping[str, Observations], level: float = 0.9) -> StepsComparison:
    """Compare two designs on the models that both have: name -> scores of its models at one step.

    Raises:
        ResultsError: no model in both, different metrics, or a level outside 0 to 1.
    """
    check_level(level)
    first, second = designs.values()
    if first.metric != second.metric:
        raise ResultsError(f"{first.metric} and {second.metric}; needed: one metric of both designs")
    models = sorted(set(first.models) & set(second.models))
    if not models and len(set(first.models)) == len(set(second.models)) == 1:  # one model is compared with another
        models = [first.models[0], second.models[0]]
    if not models:
        raise ResultsError(
            f"{' and '.join(designs)} have no model in common ({_all(first)}; {_all(second)}); needed: one, one of "
            f"each, or at least {MIN_MODELS} of each"
        )
    scores = {name: _by_seed(rows, models) for name, rows in designs.items()}
    better, worse = sorted(scores, key=lambda name: float(np.mean(list(scores[name].values()))))
    low, high = scores[better], scores[worse]
    paired = low.keys() == high.keys()
    gmacs = {name: _mean_of(rows, models, rows.variables["compute"]) for name, rows in designs.items()}
    means = float(np.mean(list(low.values()))), float(np.mean(list(high.values())))
    left_out = [f"{name}: {each}" for name, rows in designs.items() for each in rows.left_out]
    left_out += [
        f"{name}: {row}, {'its seed lacks another model' if model in models else 'not in the other design'}"
        for name, rows in designs.items()
        for row, model, seed in zip(rows.names, rows.models, rows.seeds, strict=True)
        if model not in models or seed not in scores[name]
    ]
    return StepsComparison(
        better,
        worse,
        first.metric,
        first.names[0].rpartition(" ")[2],
        tuple(models),
        means,
        (gmacs[better], gmacs[worse]),
        (len(low), len(high)),
        paired,
        means[1] - means[0],
        _interval(low, high, paired, level),
        tuple(left_out),
        given_up.given_up(designs),
    )


def _by_seed(rows: Observations, models: list[str]) -> dict[str, float]:
    """The mean score over those of `models` that are there, of each seed that all of them have."""
    models = [model for model in models if model in rows.models]
    found: dict[str, list[float]] = {}
    for model, seed, score in zip(rows.models, rows.seeds, rows.score, strict=True):
        if model in models:
            found.setdefault(seed, []).append(float(score))
    complete = {seed: float(np.mean(scores)) for seed, scores in found.items() if len(scores) == len(models)}
    if not complete:
        raise ResultsError(f"no seed of which all of {', '.join(models)} have a score; needed: one")
    return complete


def _mean_of(rows: Observations, models: list[str], values: Array) -> float:
    return float(np.mean([value for model, value in zip(rows.models, values, strict=True) if model in models]))


def _interval(low: Mapping[str, float], high: Mapping[str, float], paired: bool, level: float) -> Interval | None:
    """Student's interval of the mean of high - low; None where a design has one seed."""
    if min(len(low), len(high)) < 2:
        return None
    if paired:
        differences = np.array([high[seed] - low[seed] for seed in low])
        middle, variances, counts = float(np.mean(differences)), [np.var(differences, ddof=1)], [len(differences)]
    else:
        parts = [np.array(list(part.values())) for part in (low, high)]
        middle = float(np.mean(parts[1]) - np.mean(parts[0]))
        variances, counts = [np.var(part, ddof=1) for part in parts], [len(part) for part in parts]
    shares = [variance / count for variance, count in zip(variances, counts, strict=True)]
    if sum(shares) == 0:
        return Interval(middle, middle, middle, level)
    # Welch's degrees of freedom; of one part they are n - 1.
    freedom = sum(shares) ** 2 / sum(share**2 / (count - 1) for share, count in zip(shares, counts, strict=True))
    half = float(stdtrit(freedom, (1 + level) / 2) * np.sqrt(sum(shares)))
    return Interval(middle, middle - half, middle + half, level)


def _all(rows: Observations) -> str:
    return ", ".join(sorted(set(rows.models)))
