"""Which law do these scores follow? Every form that the data allow, with intervals and a held-out test."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.errors import ResultsError
from analysis.laws.bootstrap import Bootstrap
from analysis.laws.choices import Intervals, Objective
from analysis.laws.held_out import (
    Comparison,
    HeldOut,
    compare,
    intervals_of,
    leave_largest_out,
    weight_of_evidence,
)
from analysis.laws.intervals import Interval, check_level
from analysis.laws.observations import Observations
from analysis.laws.patches import PatchLaws, laws_by_patch
from analysis.laws.profile_likelihood import Profile

COMPARED_FORMS = ("power", "power-floor", "tokens", "tokens-floor")
"""The laws of scores at one step."""
CLEAR_GAP = 2  # of AICc: more is better than a little (Burnham & Anderson 2002)


@dataclass(frozen=True)
class FitReport:
    """What `ditbench fit` says.

    Attributes:
        source: of the rows.
        rows: the observations.
        comparison: of the forms, best first.
        level: of all intervals.
        intervals: of each of the comparison's fits: how, and parameter -> interval.
        patches: one law per patch size; None where the rows do not allow it.
        held_out: the largest model predicted by the best form; if asked, by each, and then by the law of its patch size.
        refused: what could not be done, and why.
    """

    source: str
    rows: Observations
    comparison: Comparison
    level: float
    intervals: tuple[tuple[Bootstrap | Profile, dict[str, Interval]], ...]
    patches: PatchLaws | None
    held_out: tuple[HeldOut, ...]
    refused: tuple[str, ...]

    def headline(self) -> list[str]:
        """The answer in three lines: the best law, whether it predicts the largest model, and what that means."""
        best, (_, intervals) = self.comparison.fits[0], self.intervals[0]
        ranges = ", ".join(f"{name} {intervals[name].low:.3g} to {intervals[name].high:.3g}" for name in best.form.exponents)
        models = len(set(self.rows.models))
        law = f"{best.equation} ({self.level:.0%}: {ranges}), {models} models."
        test = next((test for test in self.held_out if test.fit.form is best.form), None)
        if test is None:
            return [law, "Not tested: there are too few models to predict the largest from the others.", *self._tenfold()]
        if test.holds_law:
            return [law, test.headline(), *self._tenfold()]
        return [law, test.headline(), f"So do not extrapolate with it{self._why_not()}."]

    def _tenfold(self) -> list[str]:
        """What ten times the compute does to the score, if the best law is a power of it."""
        best, (_, intervals) = self.comparison.fits[0], self.intervals[0]
        if best.form.floor or "compute" not in best.form.variables:
            return []
        estimate, high, low = (10 ** -getattr(intervals["alpha"], end) for end in ("estimate", "low", "high"))
        return [f"Ten times the compute makes the {self.rows.metric} {estimate:.2g} times ({low:.2g} to {high:.2g})."]

    def _why_not(self) -> str:
        if self.patches is None or not self.patches.aicc < self.comparison.fits[0].aicc - CLEAR_GAP:
            return ""
        alphas = [law.parameters["alpha"] for law in self.patches.fits.values()]
        return f": patch sizes follow different laws (alpha {min(alphas):.2g} to {max(alphas):.2g})"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            "sentences": self.sentence().splitlines(),
            "level": self.level,
            "fits": [
                law.to_dict()
                | {
                    "intervals": how.to_dict()
                    | {"parameters": {name: interval.to_dict() for name, interval in found.items()}}
                }
                for law, (how, found) in zip(self.comparison.fits, self.intervals, strict=True)
            ],
            "comparison": self.comparison.to_dict(),
            "by_patch": self.patches.to_dict() if self.patches else None,
            "held_out": [each.to_dict() for each in self.held_out],
            "refused": list(self.refused),
        }

    def table(self) -> list[list[str]]:
        """Rows of text under `TABLE_HEADINGS`."""
        return [
            [
                law.form.name,
                ", ".join(f"{name} {interval}" for name, interval in found.items()),
                str(law.num_parameters + 1),
                f"{law.loss:.4g}",
                f"{law.aicc:.1f}" if np.isfinite(law.aicc) else "none",
                "none" if np.isnan(error) else f"{error:.1%}",
                f"{law.agreeing:.0%} of {law.starts}",
                f"{law.condition:.3g}",
            ]
            for law, error, (_, found) in zip(
                self.comparison.fits, self.comparison.held_out_errors, self.intervals, strict=True
            )
        ]

    def sentence(self) -> str:
        """A line a finding."""
        fits = zip(self.comparison.fits, self.intervals, strict=True)
        lines = [law.sentence(found) for law, (_, found) in fits]
        lines.append(self.comparison.sentence())
        if self.patches:
            lines.append(self.patches.sentence())
            gap = self.comparison.fits[0].aicc - self.patches.aicc
            if gap > 0:
                lines.append(
                    f"One law a patch size is {weight_of_evidence(gap)} better than the best joint law by AICc "
                    f"({self.patches.aicc:.1f} against {self.comparison.fits[0].aicc:.1f})."
                )
        lines += [f"Held out: {each.sentence()}" for each in self.held_out]
        lines += [f"{law.form.name}: {how.sentence()}" for law, (how, _) in zip(
            self.comparison.fits, self.intervals, strict=True
        )]  # fmt: skip
        return "\n".join([*lines, *(f"Not done: {why}" for why in self.refused)])


TABLE_HEADINGS = ["form", "parameters", "k", "loss", "AICc", "held-out error", "starts agree", "condition"]


def fit_report(
    rows: Observations,
    source: str,
    forms: Iterable[str] = COMPARED_FORMS,
    objective: Objective = "logs",
    method: Intervals = "bootstrap",
    level: float = 0.9,
    seed: int = 0,
    held_out: bool = False,
    by_patch: bool = True,
) -> FitReport:
    """Fit the forms, compare them, make intervals, and test the best on the largest model; if `held_out`, all of them.

    Raises:
        ResultsError: no form can be fitted, or see `bootstrap` and `Profile`.
    """
    check_level(level)
    comparison = compare(rows, forms, objective)
    refused = list(comparison.refused)
    intervals = []
    for law in comparison.fits:
        how = intervals_of(law, method, seed)
        intervals.append((how, {name: how.interval(name, level) for name in law.form.parameters}))
    patches = None
    if by_patch:
        try:
            patches = laws_by_patch(rows, objective)
        except ResultsError as error:
            refused.append(f"by patch: {error}")
    tests = []
    subsets = [(law.form.name, rows) for law in comparison.fits[: None if held_out else 1]]
    if held_out and patches and len(patches.fits) > 1:
        largest = rows.patches[int(np.argmax(rows.variables["compute"]))]
        its = [row for row, patch in enumerate(rows.patches) if patch == largest]
        subsets.append(("power", rows.at(its)))
    for name, subset in subsets:
        try:
            tests.append(leave_largest_out(subset, name, objective, method, level, seed))
        except ResultsError as error:
            refused.append(f"held out, {name}: {error}")
    return FitReport(source, rows, comparison, level, tuple(intervals), patches, tuple(tests), tuple(refused))
