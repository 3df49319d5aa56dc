"""Which law do these scores follow? Every form that the data allow, with intervals and a held-out test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analysis.errors import ResultsError
from analysis.laws.bootstrap import Bootstrap
from analysis.laws.choices import Intervals, Objective
from analysis.laws.fit import Fit
from analysis.laws.held_out import (
    Comparison,
    HeldOut,
    compare,
    intervals_of,
    leave_largest_out,
    usual_intervals,
    weight_of_evidence,
)
from analysis.laws.intervals import Interval, check_level
from analysis.laws.observations import Observations
from analysis.laws.patches import PatchLaws, laws_by_patch
from analysis.laws.profile_likelihood import Profile

COMPARED_FORMS = ("power", "power-floor", "tokens", "tokens-floor")
"""The laws of scores at one step."""
BY_PATCH = "by-patch"
"""In the place of forms: nothing but a power law for each patch size."""
WIDTH = 100  # of a terminal
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
        held_out: the largest model predicted by the best form; if asked, by each, then by the law of its patch size.
        refused: what could not be done, and why.
        alphas: patch size -> the exponent of its law, where laws by patch size are all that was asked for.
    """

    source: str
    rows: Observations
    comparison: Comparison
    level: float
    intervals: tuple[tuple[Bootstrap | Profile, dict[str, Interval]], ...]
    patches: PatchLaws | None
    held_out: tuple[HeldOut, ...]
    refused: tuple[str, ...]
    alphas: Mapping[Any, Interval] = field(default_factory=dict)

    def headline(self) -> list[str]:
        """The answer in three lines: the best law, whether it predicts the largest model, and what that means."""
        if self.alphas:
            return self._headline_by_patch()
        best, (_, intervals) = self.comparison.fits[0], self.intervals[0]
        ranges = [f"{name} {intervals[name].low:.3g} to {intervals[name].high:.3g}" for name in best.form.exponents]
        laws = [
            f"{best.equation} ({self.level:.0%}: {', '.join(ranges[:count])}), {self._size}."
            for count in range(len(ranges), 0, -1)
        ]
        law = next((law for law in laws if len(law) <= WIDTH), laws[-1])
        if self.test is None:
            return [law, self._untested(), *self._tenfold()]
        meaning = self._tenfold() if self.test.holds_law else [f"So do not extrapolate with it{self._why_not()}."]
        return [law, self.test.headline(), *meaning]

    def _headline_by_patch(self) -> list[str]:
        alphas = ", ".join(
            f"{alpha.estimate:.2g} ({alpha.low:.2g} to {alpha.high:.2g}) at /{patch}"
            for patch, alpha in self.alphas.items()
        )
        law = f"{self.rows.metric} = A C^-alpha, alpha {alphas}."
        test = self.patch_test or self.test  # of one patch size alone, they are the same
        return [law, self._untested() if test is None else test.headline(), *self._against_joint()]

    @property
    def test(self) -> HeldOut | None:
        """The largest model predicted by the best law of all models."""
        return self._test_of(self.comparison.fits[0])

    @property
    def patch_test(self) -> HeldOut | None:
        """The largest model predicted by the law of its patch size, if there is more than one size."""
        return next(filter(self._is_of_one_patch, self.held_out), None)

    def _test_of(self, law: Fit) -> HeldOut | None:
        tests = (test for test in self.held_out if not self._is_of_one_patch(test))
        return next((test for test in tests if test.fit.form is law.form), None)

    def _is_of_one_patch(self, test: HeldOut) -> bool:
        return len(set(test.fit.observations.patches)) == 1 < len(set(self.rows.patches))

    @property
    def _size(self) -> str:
        return f"{len(set(self.rows.models))} {self.rows.counted}"

    def scores(self) -> str:
        """How many there are, in words."""
        what = f"{self.rows.metric}, {len(self.rows)}"
        return f"{what} rows." if self.rows.counted == "rows" else f"{what} scores of {self._size}."

    def _untested(self) -> str:
        """Why the largest model was not predicted; `refused` has the same of every law."""
        whys = (why.partition(": ")[2] for why in self.refused if why.startswith("held out, "))
        return f"It was not tested on the largest model: {next(whys, 'there are too few')}."

    def _tenfold(self) -> list[str]:
        """What ten times the compute does to the score, if the best law is a power of it."""
        best, (_, intervals) = self.comparison.fits[0], self.intervals[0]
        if best.form.floor or "compute" not in best.form.variables:
            return []
        estimate, high, low = (10 ** -getattr(intervals["alpha"], end) for end in ("estimate", "low", "high"))
        what = f"Ten times the {self.rows.columns.get('compute', 'compute')}"
        return [f"{what} multiplies the {self.rows.metric} by {estimate:.2g} ({low:.2g} to {high:.2g})."]

    def _why_not(self) -> str:
        if self.patches is None or not self.patches.aicc < self.comparison.fits[0].aicc - CLEAR_GAP:
            return ""
        alphas = [law.parameters["alpha"] for law in self.patches.fits.values()]
        return f": patch sizes follow different laws (alpha {min(alphas):.2g} to {max(alphas):.2g})"

    def _against_joint(self) -> list[str]:
        joint = self.comparison.fits[0].aicc
        if self.patches is None or not self.patches.aicc < joint:
            return []
        return [
            f"One law for each patch size is {weight_of_evidence(joint - self.patches.aicc)} better than one for all "
            f"by AICc ({_aicc(self.patches.aicc)} against {_aicc(joint)})."
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source,
            **({"columns": {"score": self.rows.metric, **self.rows.columns}} if self.rows.columns else {}),
            "headline": self.headline(),
            "sentences": self.sentence().splitlines(),
            "level": self.level,
            "fits": [
                law.to_dict()
                | {
                    "intervals": how.to_dict()
                    | {"parameters": {name: interval.to_dict() for name, interval in found.items()}}
                    | ({"standard_errors": _standard_errors(how)} if isinstance(how, Bootstrap) else {})
                }
                for law, (how, found) in zip(self.comparison.fits, self.intervals, strict=True)
            ],
            "comparison": self.comparison.to_dict(),
            "by_patch": self.patches.to_dict() if self.patches else None,
            "alphas": {str(patch): alpha.to_dict() for patch, alpha in self.alphas.items()},
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
                _aicc(law.aicc),
                "none" if np.isnan(error) else f"{error:.1%}",
                f"{law.agreeing:.0%} of {law.starts}",
                f"{law.condition:.3g}",
            ]
            for law, error, (_, found) in zip(
                self.comparison.fits, self.comparison.held_out_errors, self.intervals, strict=True
            )
        ]

    def parameters(self) -> list[list[str]]:
        """Rows of text under `PARAMETER_HEADINGS`, of the laws whose intervals are a bootstrap's."""
        return [
            [law.form.name, name, f"{law.parameters[name]:.6g}", f"{error:.3g}"]
            for law, (how, _) in zip(self.comparison.fits, self.intervals, strict=True)
            if isinstance(how, Bootstrap)
            for name, error in _standard_errors(how).items()
        ]

    def predictions(self) -> list[list[str]]:
        """Rows of text under `PREDICTION_HEADINGS`: what each law says of the largest model, fitted without it."""
        rows = []
        if self.alphas and self.patches:
            of_largest = None if self.patch_test is None else self.patch_test.fit.observations.patches[0]
            for patch, law in self.patches.fits.items():
                models = f"{len(set(law.observations.models)) - (patch == of_largest)} of /{patch}"
                said = self.patch_test.cells() if self.patch_test and patch == of_largest else ["", "", ""]
                rows.append([law.equation.partition(" = ")[2], _aicc(law.aicc), models, *said])
        for law, error in zip(self.comparison.fits, self.comparison.held_out_errors, strict=True):
            test = self._test_of(law)
            models = str(len(set(self.rows.models)) - 1)
            unasked = ["none" if np.isnan(error) else f"{error:.1%} off", "", ""]
            said = [models, *(unasked if test is None else test.cells())]
            rows.append([law.equation.partition(" = ")[2], _aicc(law.aicc), *said])
        if (test := self.patch_test) is not None and self.patches is not None and not self.alphas:
            patch = test.fit.observations.patches[0]
            models = f"{len(set(test.fit.observations.models))} of /{patch}"
            rows.append(["a law for each patch size", _aicc(self.patches.aicc), models, *test.cells()])
        return rows

    def findings(self) -> list[str]:
        """What the tables do not say, a line each."""
        lines = [self.comparison.sentence()]
        if self.patches:
            lines += [self.patches.sentence(), *self._against_joint()]
        return [*lines, self.how(), *(f"Not done: {why}" for why in self.refused)]

    def how(self) -> str:
        """How the intervals were made, in words: of several bootstraps, with what is worst of any."""
        first, *others = (how for how, _ in self.intervals)
        if isinstance(first, Bootstrap):
            every = [first, *(how for how in others if isinstance(how, Bootstrap))]
            worst = {name: max(getattr(how, name) for how in every) for name in ("failed", "missed")}
            return f"Intervals: {replace(first, **worst).sentence()}"
        return f"Intervals: {first.sentence()}"

    def sentence(self) -> str:
        """One line for each finding: everything in words."""
        fits = zip(self.comparison.fits, self.intervals, strict=True)
        lines = [law.sentence(found) for law, (_, found) in fits]
        return "\n".join([*lines, *(f"Held out: {each.sentence()}" for each in self.held_out), *self.findings()])


PREDICTION_HEADINGS = ["law", "AICc", "models", "predicted", "the law's interval", "a new run's"]
"""models: those that the prediction of the largest is made from."""
PARAMETER_HEADINGS = ["form", "parameter", "value", "standard error"]
TABLE_HEADINGS = ["form", "parameters", "k", "loss", "AICc", "held-out error", "starts agree", "condition"]


def fit_report(
    rows: Observations,
    source: str,
    forms: Iterable[str] = COMPARED_FORMS,
    objective: Objective = "logs",
    method: Intervals | None = None,
    level: float = 0.9,
    seed: int = 0,
    held_out: bool = False,
    by_patch: bool = True,
) -> FitReport:
    """Fit the forms, compare them, make intervals, and test the best on the largest model; if `held_out`, all of them.

    Args:
        forms: names of `FORMS`, or `BY_PATCH` alone.
        method: of the intervals; default: `usual_intervals`.

    Raises:
        ResultsError: no form can be fitted, or see `bootstrap` and `Profile`.
    """
    check_level(level)
    method = method or usual_intervals(rows, objective)
    names = tuple(forms)
    alone = names == (BY_PATCH,)
    comparison = compare(rows, ("power",) if alone else names, objective)
    refused = list(comparison.refused)
    intervals = []
    for law in comparison.fits:
        how = intervals_of(law, method, seed)
        intervals.append((how, {name: how.interval(name, level) for name in law.form.parameters}))
    patches, alphas = None, {}
    if by_patch or alone:
        try:
            patches = laws_by_patch(rows, objective)
        except ResultsError as error:
            if alone:
                raise
            refused.append(f"by patch: {error}")
    if alone and patches:
        alphas = {
            patch: intervals_of(law, method, seed).interval("alpha", level) for patch, law in patches.fits.items()
        }
    tests = []
    subsets = [(law.form.name, rows) for law in comparison.fits[: None if held_out else 1]]
    if (held_out or alone) and patches and len(patches.fits) > 1:
        largest = rows.patches[int(np.argmax(rows.variables["compute"]))]
        its = [row for row, patch in enumerate(rows.patches) if patch == largest]
        subsets.append(("power", rows.at(its)))
    for name, subset in subsets:
        try:
            tests.append(leave_largest_out(subset, name, objective, method, level, seed))
        except ResultsError as error:
            refused.append(f"held out, {name}: {error}")
    return FitReport(source, rows, comparison, level, tuple(intervals), patches, tuple(tests), tuple(refused), alphas)


def _standard_errors(how: Bootstrap) -> dict[str, float]:
    return {name: how.standard_error(name) for name in how.fit.form.parameters}


def _aicc(value: float) -> str:
    return f"{value:.1f}" if np.isfinite(value) else "none"
