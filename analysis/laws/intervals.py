"""What every way of making intervals gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from analysis.errors import ResultsError


@dataclass(frozen=True)
class Interval:
    """From `low` to `high` at the confidence `level`, around the full fit's `estimate`."""

    estimate: float
    low: float
    high: float
    level: float

    def holds(self, value: float) -> bool:
        """Whether `value` lies in it."""
        return self.low <= value <= self.high

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Prediction:
    """The law's score at `at`: an interval of the law itself, and the wider one of a new run's score there."""

    at: Mapping[str, float]
    law: Interval
    new_run: Interval

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"at": dict(self.at), "law": self.law.to_dict(), "new_run": self.new_run.to_dict()}


def check_level(level: float) -> None:
    """Raise ResultsError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ResultsError(f"level {level:g}; accepted: between 0 and 1, such as 0.9")
