"""How much laboratories differ: an interval around a published FID, from repeats of published models by others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.intervals import Interval, check_level


@dataclass(frozen=True)
class BetweenLabs:
    """What another laboratory's FID of a published model may be, as a factor of the published one.

    Attributes:
        factor: the interval; its middle is 1, and its high end is 1 / its low end.
        deviation: root mean square of the logarithms of the ratios, every laboratory weighing the same. Its own
            interval, at the same level, says how little so few laboratories can know of it.
        laboratories: name -> its own root mean square; as many degrees of freedom as there are.
        models, repeats: how many are behind it.
    """

    factor: Interval
    deviation: Interval
    laboratories: dict[str, float]
    models: int
    repeats: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return len(self.laboratories)

    def sentence(self) -> str:
        """The interval and what it rests on."""
        low, high = (f"{100 * end:.2g}" for end in (self.deviation.low, self.deviation.high))
        own = ", ".join(f"{100 * each:.1f} % of {name}" for name, each in self.laboratories.items())
        return (
            f"Another laboratory's FID of a published model is {self.factor.low:.3f} to {self.factor.high:.3f} times "
            f"the published one ({self.factor.level:.0%}), by {_counted(self.repeats, 'repeat')} of "
            f"{_counted(self.models, 'model')} without guidance: root mean square of the logarithms {own}, together "
            f"{100 * self.deviation.estimate:.1f} %, each laboratory weighing the same. {self.freedom} "
            f"degree{'s' * (self.freedom > 1)} of freedom leave that open from {low} to {high} %."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "factor": self.factor.to_dict(),
            "deviation": self.deviation.to_dict(),
            "degrees_of_freedom": self.freedom,
            "laboratories": self.laboratories,
            "models": self.models,
            "repeats": self.repeats,
        }


@dataclass(frozen=True)
class Closeness:
    """Which designs' scores, such as "adaln and cross-attention (a factor of 1.037)", are no farther apart than
    laboratories are in one model."""

    spread: BetweenLabs
    pairs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.spread.to_dict(), "smaller": list(self.pairs)}

    def warning(self) -> list[str]:
        """A line that names them, none if there are none."""
        if not self.pairs:
            return []
        factor = self.spread.factor
        return [
            f"Smaller than what laboratories differ by in the FID of one model, a factor of {factor.high:.3g} "
            f"({factor.level:.0%}): {'; '.join(self.pairs)}."
        ]


def closeness(spread: BetweenLabs, scores: Iterable[tuple[str, float]]) -> Closeness:
    """Of differences between scores: what they are between, and the higher score over the lower one."""
    close = [f"{name} (a factor of {ratio:.3f})" for name, ratio in scores if spread.factor.holds(ratio)]
    return Closeness(spread, tuple(close))


def between_labs(repeats: pd.DataFrame, level: float = 0.9) -> BetweenLabs:
    """The interval that repeats of published scores give: columns model, laboratory, ratio (of repeat to published).

    The logarithm of a ratio has the mean 0: any laboratory might have published first. Its mean square is taken over a
    model's runs, then over a laboratory's models, then over laboratories, since what is trained and scored by one habit
    is no independent evidence: five models of one laboratory weigh as much as two of another. So there are as many
    degrees of freedom as laboratories, and the interval is Student's. It holds a new laboratory's score as often as
    `level` says or more often, however much of a laboratory's deviation its models share; pooled over models, with a
    degree of freedom for each, it would be too narrow by far where they share all of it.

    Raises:
        ResultsError: no repeat, or a level outside 0 to 1.
    """
    from scipy import stats

    check_level(level)
    if repeats.empty:
        raise ResultsError("no repeat of a published score; needed: at least one by another laboratory")
    squares = repeats.assign(square=np.log(repeats["ratio"].to_numpy(float)) ** 2)
    of_models: Any = squares.groupby(["laboratory", "model"], sort=False)["square"].mean()
    of_laboratories = of_models.groupby("laboratory", sort=False).mean()
    freedom, deviation = len(of_laboratories), float(np.sqrt(of_laboratories.mean()))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * deviation
    tails = stats.chi2.ppf([(1 + level) / 2, (1 - level) / 2], freedom)
    low, high = (deviation * np.sqrt(freedom / tails)).tolist()
    return BetweenLabs(
        Interval(1.0, float(np.exp(-half)), float(np.exp(half)), level),
        Interval(deviation, low, high, level),
        {str(name): float(np.sqrt(square)) for name, square in of_laboratories.items()},
        len(set(repeats["model"])),
        len(repeats),
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}"
