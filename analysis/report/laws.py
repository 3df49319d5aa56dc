"""A report's laws: how well compute orders the models, and which scaling law their scores follow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.choices import Intervals
from analysis.laws.held_out import leave_largest_out, weight_of_evidence
from analysis.laws.intervals import Interval
from analysis.laws.observations import Observations
from analysis.laws.observed import METRICS, collected_observations
from analysis.laws.profile_likelihood import Profile
from analysis.laws.report import FitReport, fit_report
from analysis.laws.solver import OBJECTIVES
from analysis.paper.table_formats import Column, Table, fixed, signed
from analysis.paper.table_formats import count as whole
from analysis.paper.tables import correlations
from analysis.report.answer import LEVEL, POWER, TOO_NARROW, held_out_in_words
from analysis.report.study import Study
from analysis.report.tables import brief, counted, minus, number
from analysis.results.tables import MIN_MODELS

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}


def fitted(study: Study) -> FitReport:
    """What `ditbench fit` finds, of all forms at the last step that most runs share, and the largest model predicted.

    Raises:
        ResultsError: see `collected_observations` and `fit_report`.
    """
    metric = study.metric
    if metric is None:
        raise ResultsError("no score yet: no run has been evaluated")
    if metric not in METRICS:
        raise ResultsError(f"{study.called(metric)} is no score that falls to a floor; accepted: {', '.join(METRICS)}")
    rows = collected_observations(study.tables, metric)
    if (count := len(set(rows.models))) < MIN_MODELS:
        raise ResultsError(f"{counted(count, 'model')} with a score at one step; needed: at least {MIN_MODELS}")
    source = f"{study.source.name}, {rows.names[0].rpartition(' step ')[2]} steps"
    found = _fitted(rows, source)
    method: Intervals = "profile" if isinstance(found.intervals[0][0], Profile) else "bootstrap"
    subsets = [(POWER, rows)] if found.comparison.fits[0].form.name != POWER else []  # the best form is tested already
    if found.patches and len(found.patches.fits) > 1:
        largest = rows.patches[int(np.argmax(rows.variables["compute"]))]
        subsets.append((POWER, rows.at(row for row, patch in enumerate(rows.patches) if patch == largest)))
    tests, refused = [*found.held_out], [*found.refused]
    for name, subset in subsets:
        try:
            tests.append(leave_largest_out(subset, name, method=method, level=LEVEL))
        except ResultsError as error:
            refused.append(f"held out, {name}: {error}")
    # Two models always have a law; what it foretells of a third says nothing.
    told = tuple(test for test in tests if len(set(test.fit.observations.models)) >= MIN_MODELS)
    return replace(found, held_out=told, refused=tuple(refused))


def _fitted(rows: Observations, source: str) -> FitReport:
    """All forms, with the usual intervals; where a bootstrap draws too few of few models, with profiles'."""
    try:
        return fit_report(rows, source, level=LEVEL)
    except ResultsError:
        return fit_report(rows, source, method="profile", level=LEVEL)


def laws(study: Study, found: FitReport | None, why_none: str) -> dict[str, Any]:
    """Correlations and fits; `why_none` where there is no fit."""
    try:
        table = brief(correlations(study.tables), study.tables)
    except ResultsError:  # too few models; that there is no law says the same
        table = None
    content: dict[str, Any] = {"correlations": table, "refused": why_none, "tables": [], "findings": [], "method": []}
    if found is None:
        return content
    tests = [forms_table(found)]
    tests += [held_out_table(found)] if found.held_out else []
    tests += [patches_table(found)] if found.patches else []
    models = found.rows.models
    return content | {
        "refused": "",
        "findings": [_symbols(line, models) for line in _findings(found, study.called(found.rows.metric))],
        "tables": tests,
        "method": [_symbols(line, models) for line in (_conventions(found), TOO_NARROW.sub("", found.how()))],
    }


def forms_table(found: FitReport) -> Table:
    """One row per form, best AICc first.

    Data columns: form, formula, parameters (text, with intervals), k, loss, aicc, held_out_percent, status.
    """
    fits = zip(found.comparison.fits, found.comparison.held_out_errors, found.intervals, strict=True)
    rows = [
        {
            "form": law.form.name,
            "formula": _symbols(law.form.formula),
            "parameters": ", ".join(_with_interval(_symbols(name), each) for name, each in intervals.items()),
            "k": law.num_parameters + 1,
            "loss": law.loss,
            "aicc": law.aicc if np.isfinite(law.aicc) else np.nan,
            "held_out_percent": 100 * error,
            "status": law.status,
        }
        for law, error, (_, intervals) in fits
    ]
    return Table(
        "laws",
        "Forms of the law, fitted to the same scores, best first",
        "Lower AICc is better. Held-out error: of the model with the most compute, predicted by the law of the others.",
        (
            Column("form", "Form"),
            Column("formula", "Law"),
            Column("parameters", f"Parameters, {100 * found.level:g} % intervals"),
            Column("k", "k", whole),
            Column("loss", "Loss ↓", number),
            Column("aicc", "AICc ↓", fixed(1)),
            Column("held_out_percent", "Held-out error, %", fixed(1)),
            Column("status", "Status"),
        ),
        pd.DataFrame(rows),
    )


def patches_table(found: FitReport) -> Table:
    """One row per patch size, coarsest first. Data columns: patch, rows, models, A, alpha, loss, status."""
    assert found.patches
    rows = [
        {
            "patch": str(patch),
            "rows": len(law.observations),
            "models": len(set(law.observations.models)),
            **{name: law.parameters[name] for name in ("A", "alpha")},
            "loss": law.loss,
            "status": law.status,
        }
        for patch, law in found.patches.fits.items()
    ]
    return Table(
        "laws-by-patch",
        "A law of compute for each patch size",
        "AICc of all of them together: "
        + (minus(f"{found.patches.aicc:.1f}.") if np.isfinite(found.patches.aicc) else "none, the rows are too few."),
        (
            Column("patch", "Patch size"),
            Column("models", "Models", whole),
            Column("rows", "Rows", whole),
            Column("A", "A", number),
            Column("alpha", "α", fixed(3)),
            Column("loss", "Loss ↓", number),
            Column("status", "Status"),
        ),
        pd.DataFrame(rows),
    )


def held_out_table(found: FitReport) -> Table:
    """One row per law and model held out.

    Data columns: formula, fitted (to what), model, predicted, true (mean over its runs), error_percent, law and
    new_run (intervals, as text), inside (whether the truth lies in the law's, and how many runs in a new run's).
    """
    rows = []
    for test in found.held_out:
        models = sorted(set(test.fit.observations.models))
        for model, truth, runs, prediction, error in zip(
            test.models, test.truth, test.runs, test.predictions, test.relative_errors, strict=True
        ):
            law, new = prediction.law, prediction.new_run
            inside = f"{sum(map(new.holds, runs))} of {len(runs)} in a new run's"
            rows.append(
                {
                    "formula": _symbols(test.fit.form.formula),
                    "fitted": f"{len(models)} models" + (f": {', '.join(models)}" if len(models) < 5 else ""),
                    "model": model,
                    "predicted": law.estimate,
                    "true": truth,
                    "error_percent": 100 * error,
                    "law": f"{law.low:.4g} to {law.high:.4g}",
                    "new_run": f"{new.low:.4g} to {new.high:.4g}",
                    "inside": f"{'inside' if law.holds(truth) else 'outside'} the law's, {inside}",
                }
            )
    beyond = max(test.beyond for test in found.held_out)
    return Table(
        "held-out",
        "The model with the most compute, predicted by the law of the others",
        f"True: mean over the model's runs. Its compute is {beyond:.3g} times the largest fitted. Intervals: "
        f"{100 * found.level:g} %, of the law itself, and of the score of a new run.",
        (
            Column("formula", "Law"),
            Column("fitted", "Fitted to"),
            Column("model", "Held out"),
            Column("predicted", "Predicted", number),
            Column("true", "True", number),
            Column("error_percent", "Error, %", signed(1)),
            Column("law", "Law's interval"),
            Column("new_run", "A new run's"),
            Column("inside", "The truth is"),
        ),
        pd.DataFrame(rows),
    )


def _findings(found: FitReport, called: str) -> list[str]:
    """What to know before the tables are read; the page has begun with what the law of compute alone foretells."""
    best, *others = found.comparison.fits
    equation = best.equation.removeprefix(f"{found.rows.metric} = ")
    line = f"Of {len(others) + 1} forms, {called} = {equation} describes these scores best"
    if not others:
        line = f"One form alone can be fitted to these scores: {called} = {equation}"
    second = next(
        (law for law in others if law.parameters.get("E") != 0), None
    )  # with a floor of 0, it is another's twin
    if second and np.isfinite(second.aicc):
        gap, other = second.aicc - best.aicc, second.form.formula.removeprefix("y = ")
        line += f", {weight_of_evidence(gap)} better than {other} (AICc lower by {gap:.1f})"
    lines = [f"{line}. C: {found.rows.compute.unit} of a forward pass; T: tokens of an image."]
    if found.patches:
        said = ", ".join(f"−{law.parameters['alpha']:.2f} (patch {at})" for at, law in found.patches.fits.items())
        gap = best.aicc - found.patches.aicc
        better = f"{weight_of_evidence(gap)} better than" if gap > 0 else "no better than"
        lines.append(
            f"Fitted for each patch size apart, the exponents of C are {said}: {better} one law of all by AICc."
        )
    for test in found.held_out:
        if test.fit.form.name == best.form.name != POWER:
            lines.append(f"This form, fitted without the largest model: {held_out_in_words(test)}")
    return lines + [f"Not done: {why}." for why in found.refused]


def _conventions(found: FitReport) -> str:
    """What the letters and columns of the tables mean."""
    best = found.comparison.fits[0]
    return (
        f"{len(found.rows)} rows of {found.source}; left out: {'; '.join(found.rows.left_out) or 'none'}. C: "
        f"{found.rows.compute.definition}. T: image tokens. Loss: {OBJECTIVES[best.objective]}. k: parameters, and one "
        "for the variance. AICc compares forms that were fitted to the same rows."
    )


def _with_interval(name: str, interval: Interval) -> str:
    """One parameter, on one line."""
    text = f"{name} = {interval.estimate:.4g} ({interval.low:.4g} to {interval.high:.4g})"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _symbols(text: str, names: Iterable[str] = ()) -> str:
    """With Greek letters, and minus signs, at which a browser breaks no line, before numbers and exponents.

    names: of models in the text, which stay as they are.
    """
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    pattern = "|".join(
        [*map(re.escape, longest_first), rf"(?P<minus>(?<!\w)-(?=\w))|\b(?P<letter>{'|'.join(GREEK)})\b"]
    )
    return re.sub(pattern, lambda at: "−" if at["minus"] else GREEK[at["letter"]] if at["letter"] else at[0], text)
