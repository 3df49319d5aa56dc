"""Two designs at equal compute: the difference of their scores, and the compute that the better one saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from analysis.compare import given_up
from analysis.compare.between_labs import Closeness
from analysis.errors import ResultsError
from analysis.laws.forms import Array
from analysis.laws.intervals import Interval, check_level
from analysis.laws.observations import Observations
from analysis.results.tables import MIN_MODELS

REPLICATES = 4000
SAME_COMPUTE = 1e-9  # a smaller share of the full variance of log C does not determine an exponent
SAME_EXPONENT = 0.01  # a share of alpha by which the designs' own may differ without a word
CONVENTION = (
    "C is GMACs of one forward pass of one image (true FLOPs are 2x), at equal steps and batch; the law is "
    "log(score) = a_design - alpha log(C) with one alpha, least squares over models, each the geometric mean of its "
    "seeds"
)


@dataclass(frozen=True)
class DesignComparison:
    """The design `better` against `worse`, by the law's score at equal compute; lower is better.

    Attributes:
        better, worse: the designs' names.
        metric: the score.
        rows: of the tables, of each design (better, worse).
        models: of each design (better, worse).
        seeds: of each design (better, worse); with one, the intervals know nothing of the spread between seeds.
        paired: whether the same models of both are compared, and drawn together; else each design has its own.
        exponent: alpha of the shared law.
        ratio: the worse design's score over the better one's at equal compute.
        difference: the worse design's score minus the better one's, in units of the score; paired: the mean over
            models, each pair moved along the law to the geometric mean of its two computes; else at `at_gmacs`.
        at_gmacs: the geometric middle of the compute that both designs reach.
        reached: the least and the most compute that both designs reach, GMACs.
        multiplier: exp((a_worse - a_better) / alpha), how many times the compute the worse design needs for the same
            score; None where the interval of alpha reaches 0.
        seed: of the bootstrap.
        undetermined: share of the replicates without a positive alpha, which are left out of the multiplier's interval.
        left_out: rows that were not compared, and why.
        given_up: runs that failed, of which there is no score.
        own_exponents: what alpha would be of each design alone (better, worse); None where one's compute does not vary.
        steeper: how much more the better design's own alpha is than the worse one's.
        between_labs: whether laboratories differ by more; None of scores that no published one can stand beside.
    """

    better: str
    worse: str
    metric: str
    rows: tuple[int, int]
    models: tuple[int, int]
    seeds: tuple[int, int]
    paired: bool
    exponent: Interval
    ratio: Interval
    difference: Interval
    at_gmacs: float
    multiplier: Interval | None
    seed: int
    undetermined: float
    left_out: tuple[str, ...]
    reached: tuple[float, float]
    given_up: tuple[str, ...] = ()
    convention: str = CONVENTION
    own_exponents: tuple[float, float] | None = None
    steeper: Interval | None = None
    between_labs: Closeness | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether there is a multiplier and its interval does not contain 1."""
        return self.multiplier is not None and not self.multiplier.holds(1)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "better": self.better,
            "worse": self.worse,
            "metric": self.metric,
            "distinguishable": self.distinguishable,
            "rows": list(self.rows),
            "models": list(self.models),
            "seeds": list(self.seeds),
            "paired": self.paired,
            "exponent": self.exponent.to_dict(),
            "own_exponents": None if self.own_exponents is None else list(self.own_exponents),
            "steeper": None if self.steeper is None else self.steeper.to_dict(),
            "reached": list(self.reached),
            "ratio": self.ratio.to_dict(),
            "difference": self.difference.to_dict(),
            "at_gmacs": self.at_gmacs,
            "multiplier": None if self.multiplier is None else self.multiplier.to_dict(),
            "convention": self.convention,
            "replicates": REPLICATES,
            "seed": self.seed,
            "undetermined": self.undetermined,
            "left_out": list(self.left_out),
            "given_up": list(self.given_up),
            "between_labs": self.between_labs.to_dict() if self.between_labs else None,
            "headline": self.headline(),
            "sentence": self.sentence(),
        }

    def headline(self) -> list[str]:
        """The answer in three lines: which is better, by what factor of compute, by how much, and on what basis."""
        models, seeds = (" and ".join(map(str, dict.fromkeys(each))) for each in (self.models, self.seeds))
        one_seed = ": the intervals leave out how seeds differ, and are too narrow" if min(self.seeds) == 1 else ""
        paired = " in pairs" if self.paired else ""
        rest = [
            f"{self.metric} of {self.worse} minus that of {self.better} at equal compute: "
            f"{_in_words(self.difference)}.",
            f"From {models} models{paired}, seeds: {seeds}{one_seed}.",
            *self._limits(),
            *(self.between_labs.warning() if self.between_labs else []),
            *given_up.warning(self.given_up),
        ]
        if self.multiplier is None:
            low, high = self.exponent.low, self.exponent.high
            why = f"the score does not surely fall with compute (alpha {low:.3g} to {high:.3g})"
            return [f"Not distinguishable in compute: {why}.", *rest]
        needs = f"{self.worse} needs {_in_words(self.multiplier)} times the compute of {self.better}"
        verdict = f"{self.better} is better" if self.distinguishable else "Not distinguishable"
        return [f"{verdict}: {needs}.", *rest]

    def _limits(self) -> list[str]:
        """What one factor does not say of designs that are compared by their laws alone."""
        if self.paired:
            return []
        low, high = self.reached
        lines = [f"Of compute beyond what both reach, {low:.3g} to {high:.3g} GMACs, it says nothing."]
        if self.own_exponents is None or self.steeper is None or self.steeper.holds(0):
            return lines
        one, other = self.own_exponents
        if abs(one - other) > SAME_EXPONENT * abs(self.exponent.estimate):
            lines.append(
                f"The factor itself changes with compute: alpha is {one:.3g} for {self.better} alone and {other:.3g} "
                f"for {self.worse}."
            )
        return lines

    def table(self) -> list[list[str]]:
        """Rows of text: name, value."""
        where = "mean over the same models" if self.paired else f"at {self.at_gmacs:.4g} GMACs"
        return [
            [
                "better at equal compute",
                f"{self.better}: {self.rows[0]} rows of {self.models[0]} models, seeds: {self.seeds[0]}",
            ],
            ["worse", f"{self.worse}: {self.rows[1]} rows of {self.models[1]} models, seeds: {self.seeds[1]}"],
            ["models", "paired" if self.paired else "not paired"],
            [f"difference of {self.metric}, {where}", str(self.difference)],
            ["ratio of the scores", str(self.ratio)],
            ["alpha, shared", str(self.exponent)],
            ["alpha, of each alone", " and ".join(f"{alpha:.4g}" for alpha in self.own_exponents or ()) or "none"],
            ["compute multiplier", "none" if self.multiplier is None else str(self.multiplier)],
            ["distinguishable", "yes" if self.distinguishable else "no"],
            ["left out", "; ".join(self.left_out) or "none"],
        ]

    def sentence(self) -> str:
        """The answer as one text."""
        return " ".join(self.headline())


def compare_designs(designs: Mapping[str, Observations], level: float = 0.9, seed: int = 0) -> DesignComparison:
    """Compare two designs: name -> scores of its models, compute being GMACs of a forward pass.

    Where both designs have at least three models in common, only these are compared, each with the seeds
    that both have (all, where they share none): what is peculiar to a model then cancels. Otherwise all models are.

    Intervals come from models and seeds, both drawn with replacement (the pigeonhole bootstrap; Owen 2007, The Annals
    of Applied Statistics 1:386): a seed moves all models together, so drawing models alone would promise too much.
    Paired models are drawn together, and so are seeds where both designs have the same. Since they are few, percentiles
    are expanded for the models (Hesterberg 2015, The American Statistician 69:371), and what seeds change is widened by
    the same factor for their number.

    Raises:
        ResultsError: not two designs, fewer than three models of one, no compute that both reach, compute that
            does not vary, different metrics or conventions of compute, or a level outside 0 to 1.
    """
    check_level(level)
    if len(designs) != 2:
        plural = "" if len(designs) == 1 else "s"
        raise ResultsError(f"{len(designs)} design{plural} ({', '.join(designs) or 'none'}); needed: two")
    names = sorted(designs)
    for name in names:
        count = len(set(designs[name].models))
        if count < MIN_MODELS:
            raise ResultsError(f"{name}: {count} model{'' if count == 1 else 's'}; needed: at least {MIN_MODELS}")
    first, second = (designs[name] for name in names)
    if (first.metric, first.compute.name) != (second.metric, second.compute.name):
        raise ResultsError(
            f"{first.metric} by {first.compute.name} and {second.metric} by {second.compute.name} compute; "
            "needed: the same of both designs"
        )
    common = set(first.models) & set(second.models)
    paired = len(common) >= MIN_MODELS
    chosen = [_in_common(first, second), _in_common(second, first)] if paired else [first, second]
    reached = [(np.min(rows.variables["compute"]), np.max(rows.variables["compute"])) for rows in chosen]
    low, high = max(low for low, _ in reached), min(high for _, high in reached)
    if low > high:
        ranges = " and ".join(f"{name} {at[0]:.4g} to {at[1]:.4g}" for name, at in zip(names, reached, strict=True))
        raise ResultsError(f"no shared compute: {ranges} GMACs; needed: ranges that overlap")
    if all(np.ptp(rows.variables["compute"]) == 0 for rows in chosen):
        raise ResultsError("compute is the same in every row; needed: models of different compute")
    at = 0.5 * float(np.log(low) + np.log(high))
    cells = [_cells(rows) for rows in chosen]
    full = _law([each.whole() for each in cells], at, paired)
    order = (0, 1) if full.log_ratio[0] >= 0 else (1, 0)  # better, worse
    cells = [cells[index] for index in order]
    best = _law([each.whole() for each in cells], at, paired)
    counts, seeds = ([len(each.compute) for each in cells], [len(each.seeds) for each in cells])
    found = _law(_draws(cells, paired, level, np.random.default_rng(seed)), at, paired)
    fewest = min(counts)
    exponent = _interval(best.exponent, found.exponent, level, fewest)
    alone = bool(np.all(np.isfinite(best.own)))
    return DesignComparison(
        names[order[0]],
        names[order[1]],
        first.metric,
        (len(chosen[order[0]]), len(chosen[order[1]])),
        (counts[0], counts[1]),
        (seeds[0], seeds[1]),
        paired,
        exponent,
        _exp(_interval(best.log_ratio, found.log_ratio, level, fewest)),
        _interval(best.difference, found.difference, level, fewest),
        float(np.exp(at)),
        _multiplier(best, found, exponent, fewest),
        seed,
        float(np.mean(~(found.exponent > 0))),
        _left_out(dict(zip(names, (first, second), strict=True)), dict(zip(names, chosen, strict=True))),
        (float(low), float(high)),
        given_up.given_up(designs),
        own_exponents=(float(best.own[0][0]), float(best.own[1][0])) if alone else None,
        steeper=_interval(best.own[0] - best.own[1], found.own[0] - found.own[1], level, fewest) if alone else None,
    )


@dataclass(frozen=True)
class _Drawn:
    """Of a design's models, in the order of their labels: log C (models,); log scores and weights (draws, models)."""

    compute: Array
    score: Array
    weight: Array


@dataclass(frozen=True)
class _Cells:
    """Log C (models,) and log scores (models, seeds), NaN where there is none, of a design."""

    compute: Array
    score: Array
    seeds: tuple[str, ...]

    def whole(self) -> _Drawn:
        """Every model and seed once."""
        return _Drawn(self.compute, np.nanmean(self.score, axis=1)[None], np.ones((1, len(self.compute))))

    def drawn(self, models: Array, seeds: Array, widening: float) -> _Drawn:
        """As often as (draws, models) and (draws, seeds) say; models without any drawn seed have no weight."""
        there = np.isfinite(self.score)
        counts = seeds @ there.T
        totals = seeds @ np.where(there, self.score, 0).T
        mean = np.nanmean(self.score, axis=1)
        away = np.divide(totals, counts, out=np.tile(mean, (len(seeds), 1)), where=counts > 0) - mean
        return _Drawn(self.compute, mean + widening * away, models * (counts > 0))


def _cells(rows: Observations) -> _Cells:
    models, model = np.unique(rows.models, return_inverse=True)
    seeds, seed = np.unique(rows.seeds or [""] * len(rows), return_inverse=True)
    score = np.full((len(models), len(seeds)), np.nan)
    score[model, seed] = np.log(rows.score)
    compute = np.bincount(model, weights=np.log(rows.variables["compute"])) / np.bincount(model)
    return _Cells(compute, score, tuple(seeds.tolist()))


def _draws(cells: Sequence[_Cells], paired: bool, level: float, random: np.random.Generator) -> list[_Drawn]:
    def draw(count: int) -> Array:
        return random.multinomial(count, np.full(count, 1 / count), size=REPLICATES).astype(float)

    models = [draw(len(cells[0].compute))] * 2 if paired else [draw(len(each.compute)) for each in cells]
    same = cells[0].seeds == cells[1].seeds
    seeds = [draw(len(cells[0].seeds))] * 2 if same else [draw(len(each.seeds)) for each in cells]
    return [
        each.drawn(model, seed, _widening(len(each.seeds), level))
        for each, model, seed in zip(cells, models, seeds, strict=True)
    ]


def _widening(count: int, level: float) -> float:
    """Of a percentile interval of the mean of `count` values, to Student's interval."""
    if count == 1:
        return 1.0
    tail = (1 - level) / 2
    return float(np.sqrt(count / (count - 1)) * stdtrit(count - 1, tail) / ndtri(tail))


@dataclass(frozen=True)
class _Law:
    """Of each draw: alpha, the log ratio of the second design's score to the first's, and their difference; and what
    alpha would be of either alone."""

    own: tuple[Array, Array]
    exponent: Array
    log_ratio: Array
    difference: Array


def _law(designs: Sequence[_Drawn], at: float, paired: bool) -> _Law:
    draws = len(designs[0].weight)
    covariance, variance, least, means, own = np.zeros(draws), np.zeros(draws), 0.0, [], []
    if paired:  # a model that one design has lost is lost to both
        weight = np.minimum(designs[0].weight, designs[1].weight)
        designs = [_Drawn(each.compute, each.score, weight) for each in designs]
    enough = np.all([np.sum(each.weight, axis=1) > 0 for each in designs], axis=0)
    for each in designs:
        share = each.weight / np.where(enough, np.sum(each.weight, axis=1), np.nan)[:, None]
        mean_x, mean_y = share @ each.compute, np.sum(share * each.score, axis=1)
        away = each.compute - mean_x[:, None]
        its_covariance = np.sum(each.weight * away * (each.score - mean_y[:, None]), axis=1)
        its_variance = np.sum(each.weight * away**2, axis=1)
        its_least = SAME_COMPUTE * float(np.sum((each.compute - np.mean(each.compute)) ** 2))
        own.append(_ratio(-its_covariance, its_variance, its_least))
        covariance += its_covariance
        variance += its_variance
        least += its_least
        means.append((mean_x, mean_y, share))
    exponent = _ratio(-covariance, variance, least)
    levels = [mean_y + exponent * mean_x for mean_x, mean_y, _ in means]
    if paired:
        first, second = designs
        half = 0.5 * exponent[:, None] * (second.compute - first.compute)  # from the pair's middle to either
        difference = np.sum(means[0][2] * (np.exp(second.score + half) - np.exp(first.score - half)), axis=1)
    else:
        difference = np.exp(levels[1] - exponent * at) - np.exp(levels[0] - exponent * at)
    return _Law((own[0], own[1]), exponent, levels[1] - levels[0], difference)


def _ratio(covariance: Array, variance: Array, least: float) -> Array:
    """Where the variance determines one; else NaN."""
    return np.divide(covariance, variance, out=np.full(len(variance), np.nan), where=variance > least)


def _in_common(rows: Observations, other: Observations) -> Observations:
    """Of the models that both have, the seeds that both have; all seeds of a model of which they share none."""
    names = set(rows.names) & set(other.names)
    seeded = {model for model, name in zip(rows.models, rows.names, strict=True) if name in names}
    shared = set(rows.models) & set(other.models)
    pairs = enumerate(zip(rows.models, rows.names, strict=True))
    return rows.at(row for row, (model, name) in pairs if model in shared and (name in names or model not in seeded))


def _interval(estimate: Array, values: Array, level: float, models: int) -> Interval:
    """Expanded percentiles: of a normal distribution, they would be Student's interval of `models` models."""
    outside = ndtr(_widening(models, level) * ndtri((1 - level) / 2))
    low, high = np.quantile(values[np.isfinite(values)], [outside, 1 - outside])
    return Interval(float(estimate[0]), float(low), float(high), level)


def _exp(interval: Interval) -> Interval:
    estimate, low, high = np.exp([interval.estimate, interval.low, interval.high]).tolist()
    return Interval(estimate, low, high, interval.level)


def _multiplier(best: _Law, found: _Law, exponent: Interval, models: int) -> Interval | None:
    if exponent.estimate <= 0 or exponent.low <= 0:
        return None
    positive = found.exponent > 0
    logs = found.log_ratio[positive] / found.exponent[positive]
    with np.errstate(over="ignore"):  # beyond the largest number: no multiplier
        interval = _exp(_interval(best.log_ratio / best.exponent, logs, exponent.level, models))
    return interval if np.all(np.isfinite([interval.estimate, interval.high])) else None


def _left_out(before: Mapping[str, Observations], after: Mapping[str, Observations]) -> tuple[str, ...]:
    lines: list[str] = []
    for name, rows in before.items():
        kept, models = set(after[name].names), set(after[name].models)
        lines += [f"{name}: {each}" for each in rows.left_out]
        lost = [
            row if model in models else model
            for model, row in zip(rows.models, rows.names, strict=True)
            if row not in kept
        ]
        lines += [f"{name}: {each}, not in the other design" for each in dict.fromkeys(lost)]
    return tuple(lines)


def _in_words(interval: Interval) -> str:
    return f"{interval.estimate:.3g} ({interval.level:.0%}: {interval.low:.3g} to {interval.high:.3g})"
