"""How well a law foretells what it has not seen: fitted without the largest models, and forms compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from analysis.errors import ResultsError
from analysis.laws import bootstrap
from analysis.laws.choices import Intervals, Objective, check_known
from analysis.laws.fit import Fit, fit
from analysis.laws.forms import Array, Form
from analysis.laws.intervals import Prediction
from analysis.laws.observations import Observations
from analysis.laws.profile_likelihood import Profile

FEW_NAMES = 4  # so many models are named in a sentence


def usual_intervals(rows: Observations, objective: Objective) -> Intervals:
    """How intervals are made unless somebody says: profile where each model has one score, else bootstrap.

    The profile likelihood counts rows as independent. With one score a model that is what is assumed anyway, and it
    has Student's t for how few they are, where percentiles of a dozen models are too narrow. Several scores of a model
    are not independent, nor are those of one seed: only the bootstrap draws models, and seeds across models. It also
    serves where there is no likelihood (log-huber).
    """
    return "profile" if len(set(rows.models)) == len(rows) and objective != "log-huber" else "bootstrap"


def intervals_of(law: Fit, method: Intervals, seed: int = 0) -> bootstrap.Bootstrap | Profile:
    """The intervals of `law` by the method of that name."""
    check_known("intervals", method, get_args(Intervals))
    return Profile(law) if method == "profile" else bootstrap.bootstrap(law, method, seed=seed)


@dataclass(frozen=True)
class HeldOut:
    """A law fitted without some models, and what it says of them.

    Attributes:
        fit: of the other models.
        method: how the intervals were made.
        models: left out of the fit.
        truth: the score of each, a mean over its rows.
        runs: the scores of each, a row each.
        predictions: of each.
        beyond: the largest compute held out / the largest fitted: how far the prediction extrapolates.
    """

    fit: Fit
    method: str
    models: tuple[str, ...]
    truth: tuple[float, ...]
    runs: tuple[tuple[float, ...], ...]
    predictions: tuple[Prediction, ...]
    beyond: float

    @property
    def relative_errors(self) -> tuple[float, ...]:
        """predicted / true - 1 of each model."""
        pairs = zip(self.predictions, self.truth, strict=True)
        return tuple(prediction.law.estimate / truth - 1 for prediction, truth in pairs)

    @property
    def holds_law(self) -> bool:
        """Whether every model's score is inside the law's interval."""
        return all(prediction.law.holds(truth) for prediction, truth in zip(self.predictions, self.truth, strict=True))

    def headline(self) -> str:
        """The prediction of the largest model in a line."""
        law, new, truth = self.predictions[-1].law, self.predictions[-1].new_run, self.truth[-1]
        said = decimals_of(truth)
        where = "inside" if law.holds(truth) else "outside"
        both = "" if law.holds(truth) or any(map(new.holds, self.runs[-1])) else " and a new run's"
        return (
            f"From the others it predicts {self.models[-1]} at {law.estimate:{said}}; true: {truth:{said}} "
            f"({self.relative_errors[-1]:+.1%}), {where} the law's {law.low:{said}} to {law.high:{said}}{both}."
        )

    def cells(self) -> list[str]:
        """The same in three cells: the prediction, the law's interval, a new run's; and whether one missed."""
        law, new, truth = self.predictions[-1].law, self.predictions[-1].new_run, self.truth[-1]
        said, runs = decimals_of(truth), self.runs[-1]
        inside = sum(map(new.holds, runs))
        missed = "" if inside == len(runs) else ", missed" if len(runs) == 1 else f", {inside} of {len(runs)} inside"
        return [
            f"{law.estimate:{said}} ({self.relative_errors[-1]:+.1%})",
            f"{law.low:{said}} to {law.high:{said}}{'' if law.holds(truth) else ', missed'}",
            f"{new.low:{said}} to {new.high:{said}}{missed}",
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "form": self.fit.form.name,
            "intervals": self.method,
            "models_fitted": sorted(set(self.fit.observations.models)),
            "num_rows_fitted": len(self.fit.observations),
            "aicc_of_rows_fitted": float(self.fit.aicc) if np.isfinite(self.fit.aicc) else None,
            "beyond": self.beyond,
            "parameters": dict(self.fit.parameters),
            "status": self.fit.status,
            "models": [
                {
                    "model": model,
                    "truth": truth,
                    "runs": list(runs),
                    "prediction": prediction.to_dict(),
                    "error": prediction.law.estimate - truth,
                    "relative_error": error,
                    "truth_inside_law": prediction.law.holds(truth),
                    "truth_inside_new_run": all(map(prediction.new_run.holds, runs)),
                }
                for model, truth, runs, prediction, error in zip(
                    self.models, self.truth, self.runs, self.predictions, self.relative_errors, strict=True
                )
            ],
        }

    def sentence(self) -> str:
        """What was predicted, and what was true."""
        metric, said = self.fit.observations.metric, []
        for model, truth, runs, prediction, error in zip(
            self.models, self.truth, self.runs, self.predictions, self.relative_errors, strict=True
        ):
            law, new = prediction.law, prediction.new_run
            inside = sum(map(new.holds, runs))
            verdict = (
                f"the truth is {'inside' if law.holds(truth) else 'OUTSIDE'} the law's interval, and "
                + (f"{inside} of {len(runs)} runs are" if len(runs) > 1 else ("is" if inside else "is NOT"))
                + " inside a new run's"
            )
            said.append(
                f"{model}: {metric} {law.estimate:.4g} predicted, {truth:.4g} true ({error:+.1%}); {law.level:.0%} "
                f"intervals: the law {law.low:.4g} to {law.high:.4g}, a new run {new.low:.4g} to {new.high:.4g}; "
                f"{verdict}"
            )
        fitted = sorted(set(self.fit.observations.models))
        of = f" ({', '.join(fitted)})" if len(fitted) <= FEW_NAMES else ""
        aicc = f"AICc {self.fit.aicc:.1f}" if np.isfinite(self.fit.aicc) else "too few for an AICc"
        how = (
            f"{self.fit.form.formula}, from {len(self.fit.observations)} rows{of}, {aicc}, "
            f"{self.beyond:.3g}x beyond, {self.method}"
        )
        return f"{how}: {'; '.join(said)}."


def decimals_of(score: float) -> str:
    """The format of numbers beside `score`: the decimals that give it four digits."""
    return f".{max(0, 3 - int(np.floor(np.log10(score))))}f"


def leave_largest_out(
    rows: Observations,
    form: str = "power-floor",
    objective: Objective = "logs",
    method: Intervals = "bootstrap",
    level: float = 0.9,
    seed: int = 0,
    models: int = 1,
) -> HeldOut:
    """Fit without the `models` models of most compute, all their rows, and predict them.

    Rows without compute rank by params. A model with rows at several steps is predicted at its last.

    Raises:
        ResultsError: nothing is left to fit the form to, or `fit` and the intervals refuse.
    """
    kept, out, beyond = _split(rows, models)
    law = fit(rows.at(kept), form, objective)
    intervals = intervals_of(law, method, seed)
    points = [_last_point(rows, model, law.form) for model in out]
    return HeldOut(
        law,
        method,
        out,
        tuple(float(np.mean(scores)) for _, scores in points),
        tuple(tuple(scores.tolist()) for _, scores in points),
        tuple(intervals.predict(at, level) for at, _ in points),
        beyond,
    )


def _split(rows: Observations, models: int) -> tuple[list[int], tuple[str, ...], float]:
    """Rows to fit, models held out, and how many times the size of the largest fitted one the largest is."""
    sizes = rows.variables["compute" if "compute" in rows.variables else "params"]
    largest: dict[str, float] = {}
    for model, value in zip(rows.models, sizes.tolist(), strict=True):
        largest[model] = max(value, largest.get(model, 0.0))
    ranked = sorted(largest, key=lambda model: (largest[model], model))
    if len(ranked) <= models:
        raise ResultsError(f"{len(ranked)} models, {models} to hold out; needed: others to fit the law to")
    out = ranked[-models:]
    kept = [row for row, model in enumerate(rows.models) if model not in out]
    return kept, tuple(out), largest[ranked[-1]] / largest[ranked[-models - 1]]


def _last_point(rows: Observations, model: str, form: Form) -> tuple[dict[str, float], Array]:
    """Where the model's row of the largest variables is, such as its last step, and all its scores there."""
    its = [row for row, name in enumerate(rows.models) if name == model]
    columns = np.stack([rows.variables[name] for name in form.variables], axis=1)
    last = max(columns[row].tolist() for row in its)
    scores = rows.score[[row for row in its if columns[row].tolist() == last]]
    return dict(zip(form.variables, last, strict=True)), scores


def weight_of_evidence(gap: float) -> str:
    """In words, of a difference of AICc (Burnham & Anderson 2002, section 2.6)."""
    return "clearly" if gap > 10 else "fairly" if gap > 2 else "hardly"


@dataclass(frozen=True)
class Comparison:
    """Forms fitted to the same rows with one objective, best AICc first; without one (log-huber), best held-out error.

    Attributes:
        fits: to all rows.
        held_out_errors: |predicted / true - 1| of the largest model, fitted without it; NaN where it cannot be.
        refused: forms that could not be fitted, and why.
    """

    fits: tuple[Fit, ...]
    held_out_errors: tuple[float, ...]
    refused: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "forms": [
                {
                    "form": law.form.name,
                    "n": len(law.observations),
                    "k": law.num_parameters + 1,
                    "objective": law.objective,
                    "loss": law.loss,
                    "aic": None if np.isnan(law.aic) else law.aic,
                    "aicc": float(law.aicc) if np.isfinite(law.aicc) else None,
                    "held_out_error": None if np.isnan(error) else error,
                    "status": law.status,
                }
                for law, error in zip(self.fits, self.held_out_errors, strict=True)
            ],
            "refused": list(self.refused),
        }

    def sentence(self) -> str:
        """Which form, and by how much."""
        first, others = self.fits[0], self.fits[1:]
        if not others:
            return f"{first.form.formula} alone was fitted."
        if np.isnan(first.aic):
            return f"Least error on the model held out: {first.form.formula}."
        second = others[0]
        gap = second.aicc - first.aicc
        better = f"{weight_of_evidence(gap)} better than {second.form.formula} (by {gap:.1f})"
        return f"Best by AICc: {first.form.formula}, {better}."


def compare(rows: Observations, forms: Iterable[str], objective: Objective = "logs") -> Comparison:
    """Fit each form to all rows, and again without the largest model.

    Raises:
        ResultsError: no form can be fitted.
    """
    found, refused = [], []
    for name in forms:
        try:
            law = fit(rows, name, objective)
        except ResultsError as error:
            refused.append(f"{name}: {error}")
            continue
        found.append((law, _held_out_error(rows, name, objective)))
    if not found:
        raise ResultsError("; ".join(refused))
    by_aicc = objective != "log-huber"
    found.sort(key=lambda pair: (pair[0].aicc if by_aicc else np.nan_to_num(pair[1], nan=np.inf), pair[0].aic))
    return Comparison(tuple(law for law, _ in found), tuple(error for _, error in found), tuple(refused))


def _held_out_error(rows: Observations, form: str, objective: Objective) -> float:
    try:
        kept, out, _ = _split(rows, 1)
        law = fit(rows.at(kept), form, objective)
    except ResultsError:  # too few models are left; the table says none
        return float("nan")
    at, scores = _last_point(rows, out[0], law.form)
    return abs(float(law(**at)[0]) / float(np.mean(scores)) - 1)
